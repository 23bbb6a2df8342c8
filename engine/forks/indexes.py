"""The indexes of forks: the first reader of an index that only an ancestor of its branch serves has it made.

It is an ordinary build of the fork, which begins from the generation that the ancestor serves, with a plan to switch to
it. So it survives a restart, and the reader that asked for it may give up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from shadowswitch.actors.build.registry import BuildRegistry
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.engine.calls.builds import PRIORITY_MAX, BuildCalls
from shadowswitch.engine.calls.switches import ScheduleCalls
from shadowswitch.model.errors import BuildFailed, DuplicateBuild, InvalidTransition, Timeout
from shadowswitch.model.events import ENGINE
from shadowswitch.model.shadow_state import ENDED, ShadowState
from shadowswitch.model.views import SwitchRequest
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, ShadowRow

WHY = "the first reader of a fork"
AGAIN_S = 60.0
"""After a build that failed."""
REQUEST = SwitchRequest(force_switch=True, allow_empty=True, performed_by=ENGINE, reason=WHY)
"""What its ancestor serves was accepted there."""


class ForkIndexes:
    """Makes indexes of forks when they are asked for. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        indexes: LiveIndexes,
        builds: BuildCalls,
        registry: BuildRegistry,
        schedule: ScheduleCalls,
        hurry: Callable[[], None],
    ) -> None:
        """`hurry` lets the Schedule look at its plans at once."""
        self._context = context
        self._catalog = context.catalog
        self._indexes = indexes
        self._builds = builds
        self._registry = registry
        self._schedule = schedule
        self._hurry = hurry

    def made(self, branch: BranchRow, index_type: str, timeout_s: float) -> bool:
        """True once the branch serves the index, which an ancestor serves; False if none does.

        Raises Timeout when it takes longer: the build goes on. Raises BuildFailed, and as `start_build`.
        """
        deadline = self._context.clock.monotonic() + timeout_s
        source = self._inherited(branch, index_type)
        if source is None:
            return False
        try:
            shadow = self._begun(branch, index_type, source)
        except InvalidTransition:  # the fork is ARCHIVED: it keeps what it has, and gets no new index
            return False
        hurried = False

        def served() -> bool | None:
            nonlocal hurried
            if self._indexes.live(branch.number, index_type) is not None:
                return True
            row = self._catalog.find_shadow(shadow)
            if row is None or row.state in ENDED:
                return False
            if row.state == ShadowState.BUILT and row.plan is not None and not hurried:
                hurried = True
                self._hurry()
            return None

        try:
            if self._context.changes.wait(served, deadline, "read"):
                return True
        except Timeout:
            raise self._late(branch, index_type, shadow, timeout_s) from None
        self._builds.wait_for(shadow, timeout_s=0)  # it raises why there is none
        return False

    def _inherited(self, branch: BranchRow, index_type: str) -> GenerationRow | None:
        """What the nearest ancestor serves. None for an index that the branch had itself."""
        own = self._catalog.index(branch.number, index_type)
        if own is not None and (own.live or own.withdrawn):
            return None
        with self._catalog.read() as txn:
            ancestors = self._catalog.lineage_in(txn, branch.number).ancestors
        for number, _ in ancestors:
            live = self._indexes.live(number, index_type)
            if live is not None:
                return None if live.row.opaque else live.row
        return None

    def _begun(self, branch: BranchRow, index_type: str, source: GenerationRow) -> str:
        """The shadow that will be switched to, or the one of a caller that stands in its place."""
        given = self._catalog.shadow(source.shadow_id)
        config: dict[str, Any] = {**given.build_config, "backend": source.backend, "shards": source.shards}
        self._leave_failed(branch, index_type)
        try:
            id = self._registry.claim(
                branch, index_type, source.resource_types, config, False, ENGINE, by=ENGINE, reason=WHY,
                priority=PRIORITY_MAX, is_clone=True,
            ).id  # fmt: skip
        except DuplicateBuild as error:
            id = error.shadow_index_id
        row = self._catalog.find_shadow(id)
        if row is not None and _is_ours(row) and row.plan is None:
            with contextlib.suppress(InvalidTransition):  # it is switched to already
                self._schedule.schedule_switch(id, quiet_for_s=0, within_s=0, request=REQUEST)
        return id

    def _leave_failed(self, branch: BranchRow, index_type: str) -> None:
        """The last try failed: its reason is the answer for a while; then its files make room for those of the next.

        Without that, each reader of an index that cannot be made would build it again, and leave its files for
        `Config.failed_keep_s`. Raises BuildFailed.
        """
        for row in self._context.shadows.pages(branch.number, ShadowState.FAILED):
            if row.index_type != index_type or not _is_ours(row):
                continue
            left_s = self._context.clock.seconds_until(row.failed_at) if row.failed_at is not None else None
            if left_s is not None and -left_s < AGAIN_S:
                raise BuildFailed(
                    f"{index_type} of fork {branch.name!r} could not be made: {row.error}",
                    operation="read",
                    object=branch.name,
                    hint=f"a reader tries it again {AGAIN_S:.0f} s after the failure; or build the index",
                )
            with contextlib.suppress(InvalidTransition):  # another reader was faster
                self._registry.cancel(row.id, "another try follows", ENGINE)

    def _late(self, branch: BranchRow, index_type: str, shadow: str, timeout_s: float) -> Timeout:
        row = self._catalog.find_shadow(shadow)
        what = f"{row.state}, at {row.progress:.0f} %" if row is not None else "gone"
        hint = "it goes on: try again, or wait longer (timeout_s)"
        if row is not None and not _is_ours(row):
            hint = "another caller began that build: switch to it, or cancel it"
        return Timeout(
            f"{index_type} of fork {branch.name!r} was not there after {timeout_s:.1f} s: shadow {shadow} is {what}",
            operation="read",
            object=branch.name,
            hint=hint,
        )


def _is_ours(row: ShadowRow) -> bool:
    return row.service_name == ENGINE and row.begun_by == ENGINE
