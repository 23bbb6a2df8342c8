"""One switch of a group on its way, from what is asked to what is answered."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shadowswitch.actors.group.group_check import GroupCheck
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.attempt import AttemptEnd
from shadowswitch.actors.switch.switch_run import RunSwitch, SwitchRun
from shadowswitch.model.groups.views import GroupResult, GroupState
from shadowswitch.model.switch_outcome import SwitchOutcome, WayBack
from shadowswitch.model.views import SwitchRequest
from shadowswitch.storage.catalog.rows import GroupRow


class RunGroup(msgspec.Struct, frozen=True):
    """To a GroupSwitcher: the whole switch of a group (or a rollback). Reply: GroupResult.

    `members` are the switches of the members, in the order of the group. `state` is that of the group behind it. The
    GroupSwitcher claims the reply before the first attempt. Until then `cancel` ends the switch.
    """

    group: GroupRow
    members: tuple[RunSwitch, ...]
    request: SwitchRequest
    state: GroupState
    rollback: bool
    checks: Mapping[str, GroupCheck]
    """By name, the checks of the host that see all members together."""
    reply: Reply[GroupResult]


class GroupRun:
    """A group on its way: the run of each member, and what concerns all."""

    def __init__(self, message: RunGroup, runs: list[SwitchRun]) -> None:
        self.message = message
        self.runs = runs
        self.begun = runs[0].begun
        self.deadline = runs[0].deadline
        self.reason = ""
        """Why the switch did not go on."""
        self.epoch = message.group.epoch
        """The epoch of the group that the next attempt expects."""
        self.attempts = 0

    def overdue(self, now: float) -> str:
        """Why the switch is given up before its commit: its time is over; or ""."""
        return self.runs[0].overdue(now)

    def name(self, run: SwitchRun) -> str:
        """A member as messages name it."""
        return f"{run.target.row.index_type} of branch {run.message.branch_name!r}"

    @property
    def way_back(self) -> WayBack:
        """What all could go back to together: the worst of what each could."""
        ways = {run.way_back for run in self.runs}
        worst = (WayBack.UNSOUND, WayBack.LOST, WayBack.OPEN, WayBack.FIRST)
        return next(way for way in worst if way in ways)

    def add(self, end: AttemptEnd, ends: list[AttemptEnd]) -> None:
        """An attempt came to its end; `ends` are those of the members if it committed."""
        self.attempts += 1
        for number, run in enumerate(self.runs):
            run.add(ends[number] if ends else end)

    def result(self, outcome: SwitchOutcome, text: str, epoch: int, ended: float) -> GroupResult:
        """The answer to the caller; `ended` is by the clock of `begun`."""
        members = [run.result(outcome, text, ended) for run in self.runs]
        return GroupResult(
            success=outcome == SwitchOutcome.SWITCHED,
            members=members,
            epoch=epoch,
            message=text,
            group_id=self.message.group.id,
            switch_duration_ms=(ended - self.begun) * 1000,
            sealed_ms=max(run.sealed_ms for run in self.runs),
            rolled_back=outcome == SwitchOutcome.REVERTED,
        )
