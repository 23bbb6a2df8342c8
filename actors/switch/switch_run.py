"""One switch on its way, from what is asked to what is answered."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.actors.build.validator import Validation
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.attempt import AttemptEnd
from shadowswitch.model.errors import ResourceExhausted, ShadowSwitchError
from shadowswitch.model.switch_outcome import SwitchOutcome, WayBack
from shadowswitch.model.views import SwitchRequest, SwitchResult
from shadowswitch.storage import disk
from shadowswitch.storage.generations.generation import Generation

MORE_TIME = "try again with more time (switch_timeout_seconds)"


class RunSwitch(msgspec.Struct, frozen=True):
    """To a Switcher: the whole switch of a shadow (or a rollback). Reply: SwitchResult.

    The Switcher claims the reply before the first attempt. Until then `cancel` ends the switch: nothing is committed.
    """

    branch_name: str
    target: Generation
    shadow_id: str
    request: SwitchRequest
    rollback: bool
    reply: Reply[SwitchResult]
    leaving: int = 0
    """The generation that must be live, because a fault was found in it; 0: any."""
    unsound: str = ""
    """The fault: that generation retires in the commit itself."""


class SwitchRun:
    """One switch on its way: what is asked, what was live before, and what the attempts cost."""

    def __init__(self, message: RunSwitch, begun: float, previous: int, old: Generation | None) -> None:
        self.message = message
        self.target = message.target
        self.begun = begun
        self.deadline = begun + message.request.switch_timeout_seconds
        """Nothing is begun or waited for beyond it, but a turn that has begun comes to its end (monotonic)."""
        self.previous = previous
        """The number of the generation that was live before; 0: none."""
        self.old = old
        self.validation = Validation({}, [], [], 0, 0)
        self.problems: list[str] = []
        """What the verification found."""
        self.reason = ""
        """Why the switch did not go on."""
        self.attempts = 0
        self.sealed_ms = self.sealed_ms_max = 0.0
        self.drained = 0
        self.commit_lsn = 0

    def seconds_left(self, now: float) -> float:
        """Until the deadline; not negative."""
        return max(0.0, self.deadline - now)

    def overdue(self, now: float, error: ShadowSwitchError | None = None) -> str:
        """Why the switch is given up before its commit: its time is over, perhaps in a step that raised this; or ""."""
        if now < self.deadline:
            return ""
        timeout_s = self.message.request.switch_timeout_seconds
        step = f" ({error.message})" if error is not None else ""
        return f"{timeout_s:g} s passed before its commit{step}; nothing was changed, {MORE_TIME}"

    @property
    def way_back(self) -> WayBack:
        """What the switch could go back to."""
        if self.message.unsound:
            return WayBack.UNSOUND
        if not self.previous:
            return WayBack.FIRST
        return WayBack.OPEN if self.old is not None else WayBack.LOST

    def add(self, end: AttemptEnd) -> None:
        """An attempt came to its end."""
        self.attempts += 1
        self.sealed_ms += end.sealed_ms
        self.sealed_ms_max = max(self.sealed_ms_max, end.sealed_ms)
        self.drained += end.drained
        self.commit_lsn = end.commit_lsn or self.commit_lsn

    def result(self, outcome: SwitchOutcome, text: str, ended: float) -> SwitchResult:
        """The answer to the caller; `ended` is by the clock of `begun`."""
        message, old = self.message, self.old
        success = outcome == SwitchOutcome.SWITCHED
        old_path = str(old.path) if old is not None else None
        try:
            old_size = disk.directory_size_bytes(old.path) if old is not None else None
        except ResourceExhausted:  # the answer to the caller does not wait for a figure
            old_size = None
        return SwitchResult(
            shadow_index_id=message.shadow_id,
            success=success,
            message=text,
            switch_duration_ms=(ended - self.begun) * 1000,
            sealed_ms=self.sealed_ms,
            sealed_ms_max=self.sealed_ms_max,
            attempts=self.attempts,
            drained_changes=self.drained,
            sealed_lsn=self.commit_lsn,
            validation_passed=not self.validation.errors,
            validation_errors=self.validation.errors,
            verification_passed=not self.problems,
            verification_errors=self.problems,
            rolled_back=outcome == SwitchOutcome.REVERTED,
            old_index_path=old_path,
            new_index_path=str(self.target.path),
            backup_path=old_path if success and message.request.backup_current else None,
            index_size_change_bytes=self.validation.size_bytes - old_size if old_size is not None else None,
            generation=self.target.row.number,
            query_performance_improvement=self.validation.improvement,
        )


def figures_of(result: SwitchResult, is_rollback: bool) -> dict[str, Any]:
    """What the event of a switch says of its result."""
    return {
        "success": result.success,
        "rollback": is_rollback,
        "rolled_back": result.rolled_back,
        "generation": result.generation,
        "sealed_ms": round(result.sealed_ms, 3),
        "switch_duration_ms": round(result.switch_duration_ms, 3),
        "attempts": result.attempts,
        "drained_changes": result.drained_changes,
        "message": result.message,
    }
