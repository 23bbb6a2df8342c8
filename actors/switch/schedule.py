"""The Schedule: it switches to shadows at the first quiet moment of their branch, at the latest after a while.

    planned    `ShadowRow.plan`: durable, so a plan outlives restarts and kills
    quiet      no change of the branch became durable for so long. It is counted while the engine is open, from the
               plan or the start on: the engine does not know what was before. So no switch comes too early
    latest     a moment of the monotonic clock, as the end of a soak: setting the clock of the machine moves nothing.
               After a reboot the time begins again
    due        a BUILT shadow, and one of both. The switch is that of a caller, with request and author of the plan
    refused    tried again after a minute, and twice as long after each further refusal, if it is still due

A plan ends with its switch, with another switch to the shadow, and with the shadow. A FAILED build keeps it for a
retry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.model.views import SwitchRequest, SwitchResult
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow, SwitchPlan
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable
from shadowswitch.storage.clock import Clock

logger = logging.getLogger("shadowswitch")

AGAIN_S = 30.0
PLANNED = UNDER_WAY | {ShadowState.FAILED}
ENDED = frozenset(ShadowState) - PLANNED
"""A shadow in one of these has no plan any more."""
Switch = Callable[[str, SwitchRequest], SwitchResult]


class Plans:
    """The shadows with a plan, and since when their branches are quiet. One object for each engine. Any thread."""

    def __init__(self, table: ShadowTable, clock: Clock, heads: Heads) -> None:
        self._clock = clock
        self._heads = heads
        self.shadows: set[str] = {row.id for row in table.standing(PLANNED) if row.plan is not None}
        self._quiet: dict[str, tuple[int, float]] = {}

    def add(self, row: ShadowRow) -> None:
        """A switch was scheduled; the quiet is counted from now on."""
        self._quiet[row.id] = (self._heads.of(row.branch), self._clock.monotonic())
        self.shadows = self.shadows | {row.id}

    def drop(self, shadow_id: str) -> None:
        """A plan ended."""
        self.shadows = self.shadows - {shadow_id}
        self._quiet.pop(shadow_id, None)

    def quiet_s(self, row: ShadowRow) -> float:
        """For how long no change of the branch was seen, since the plan or the start."""
        head, now = self._heads.of(row.branch), self._clock.monotonic()
        seen, since = self._quiet.get(row.id, (-1, now))
        if head != seen:
            self._quiet[row.id] = (head, now)
            return 0.0
        return now - since


class Schedule(EngineActor):
    """One for each engine. Scheduled switches run one after the other, each as long as its request allows."""

    def __init__(self, context: EngineContext, plans: Plans, switch: Switch) -> None:
        super().__init__("shadowswitch-schedule", context.crashed)
        self._context = context
        self._plans = plans
        self._switch = switch
        self._tried: dict[str, tuple[SwitchPlan, float]] = {}
        """By shadow, plan and time of the last try: a refusal that cannot be stored is not tried again at once."""
        self.handles(Tick, self._tick)

    def _tick(self, _: Tick) -> None:
        for shadow_id in sorted(self._plans.shadows):
            if self._context.changes.closing or self._context.catalog.failed is not None:
                return
            row = self._context.catalog.find_shadow(shadow_id)
            if row is None or row.plan is None or row.state in ENDED:
                self._plans.drop(shadow_id)
            elif self._is_due(row, row.plan):
                self._run(row, row.plan)

    def _is_due(self, row: ShadowRow, plan: SwitchPlan) -> bool:
        """May the switch begin?"""
        until = self._context.clock.seconds_until
        quiet_s = self._plans.quiet_s(row)  # each time, so that no change is missed
        if row.state != ShadowState.BUILT:
            return False
        if plan.not_before is not None and (until(plan.not_before) or 0.0) > 0:
            return False
        left_s = until(plan.latest)
        return quiet_s >= plan.quiet_for_s or (left_s is not None and left_s <= 0)

    def _run(self, row: ShadowRow, plan: SwitchPlan) -> None:
        now = self._context.clock.monotonic()
        tried, at = self._tried.get(row.id, (None, now))
        if tried == plan and now - at < AGAIN_S:
            return
        self._tried = {one: last for one, last in self._tried.items() if one in self._plans.shadows}
        self._tried[row.id] = plan, now
        try:
            result = self._switch(row.id, msgspec.convert(plan.request, SwitchRequest))
            refusal = "" if result.success else result.message
        except EngineClosed:
            return  # the next start goes on with the plan
        except (ShadowSwitchError, msgspec.ValidationError) as error:
            refusal = str(error)
        if refusal:
            logger.warning("the scheduled switch to shadow %s was refused: %s", row.id, refusal)
            self._context.transact(partial(transitions.postpone, shadow_id=row.id, message=refusal), "postpone switch")
