"""The transitions of a scheduled switch: planned, taken back, refused and tried again later."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidTransition
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.rows import ShadowRow, SwitchPlan
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.moves import emit

PLANNABLE = frozenset({ShadowState.PREPARING, ShadowState.BUILDING, ShadowState.BUILT})
RETRY_FIRST_S, RETRY_MAX_S = 60.0, 3600.0
"""After a refusal; twice as long after each further one."""


def schedule(
    commit: Commit, shadow_id: str, quiet_for_s: float, within_s: float, request: dict[str, Any], by: str, reason: str
) -> ShadowRow:
    """Plan the switch of a shadow; a plan that it has is replaced. The time until the latest moment begins now."""
    row = commit.shadow(shadow_id)
    if row.state not in PLANNABLE:
        raise InvalidTransition(
            f"shadow {shadow_id} is {row.state}, so its switch cannot be scheduled",
            operation="schedule switch",
            object=shadow_id,
            hint="schedule the switch of a build that is under way or BUILT",
        )
    plan = SwitchPlan(quiet_for_s, within_s, commit.catalog.clock.moment(within_s), request)
    what = {"quiet_for_s": quiet_for_s, "within_s": within_s}
    return _noted(commit, row, plan, "switch.scheduled", **what, by=by, reason=reason)


def unschedule(commit: Commit, shadow_id: str, by: str, reason: str) -> ShadowRow:
    """Take a plan back. Raises InvalidTransition without one, and once the switch is under way."""
    row = commit.shadow(shadow_id)
    if row.plan is not None and row.state == ShadowState.SWITCHING:
        raise InvalidTransition(
            f"the scheduled switch of shadow {shadow_id} is under way (SWITCHING)",
            operation="unschedule switch",
            object=shadow_id,
            hint="wait for its end, then roll back",
        )
    if row.plan is None:
        raise InvalidTransition(
            f"no switch of shadow {shadow_id} is scheduled",
            operation="unschedule switch",
            object=shadow_id,
            hint="shadow() says what is scheduled",
        )
    return _noted(commit, row, None, "switch.unscheduled", by=by, reason=reason)


def postpone(commit: Commit, shadow_id: str, message: str) -> ShadowRow:
    """A scheduled switch was refused: it is tried again later. No change if the plan is gone."""
    row = commit.shadow(shadow_id)
    if row.plan is None or row.state != ShadowState.BUILT:
        return row
    retry_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0**row.plan.refusals)
    plan = msgspec.structs.replace(
        row.plan, refusals=row.plan.refusals + 1, error=message, not_before=commit.catalog.clock.moment(retry_s)
    )
    return _noted(commit, row, plan, "switch.postponed", reason=message, retry_s=retry_s, refusals=plan.refusals)


def carry_over_plan(commit: Commit, shadow_id: str) -> None:
    """After a reboot: the time until the latest moment begins again."""
    row = commit.shadow(shadow_id)
    if row.plan is not None:
        latest = commit.catalog.clock.moment(row.plan.within_s)
        commit.put_shadow(
            msgspec.structs.replace(row, plan=msgspec.structs.replace(row.plan, latest=latest, not_before=None))
        )


def _noted(commit: Commit, row: ShadowRow, plan: SwitchPlan | None, kind: str, **data: Any) -> ShadowRow:
    row = msgspec.structs.replace(row, plan=plan)
    commit.put_shadow(row)
    emit(commit, row, kind, **data)
    commit.audit(kind, row.id, data)
    return row
