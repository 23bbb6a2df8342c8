"""The states of a shadow index, and the moves that are allowed."""

from __future__ import annotations

from enum import StrEnum

from shadowswitch.model.errors import InvalidTransition


class ShadowState(StrEnum):
    """Where a shadow index stands in its life."""

    PREPARING = "PREPARING"
    BUILDING = "BUILDING"
    BUILT = "BUILT"
    SWITCHING = "SWITCHING"
    ACTIVE = "ACTIVE"
    CLEANUP = "CLEANUP"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


S = ShadowState

MOVES: dict[ShadowState, frozenset[ShadowState]] = {
    S.PREPARING: frozenset({S.BUILDING, S.FAILED, S.CANCELLED}),
    S.BUILDING: frozenset({S.BUILT, S.FAILED, S.CANCELLED}),
    S.BUILT: frozenset({S.SWITCHING, S.FAILED, S.CANCELLED}),
    # back to BUILT: an attempt that was given up, nothing changed
    S.SWITCHING: frozenset({S.ACTIVE, S.BUILT, S.FAILED}),
    S.ACTIVE: frozenset({S.CLEANUP}),
    S.FAILED: frozenset({S.PREPARING, S.CANCELLED}),
    S.CANCELLED: frozenset(),
    S.CLEANUP: frozenset(),
}

UNDER_WAY = frozenset({S.PREPARING, S.BUILDING, S.BUILT, S.SWITCHING})
"""While a shadow is in one of these, another build of the same branch and index type is a duplicate."""


def check_move(shadow_id: str, present: ShadowState, wanted: ShadowState) -> None:
    """Raise InvalidTransition unless a shadow may go from `present` to `wanted`."""
    if wanted not in MOVES[present]:
        allowed = ", ".join(sorted(MOVES[present])) or "none, the state is final"
        raise InvalidTransition(
            f"shadow {shadow_id} is {present} and cannot become {wanted}",
            object=shadow_id,
            hint=f"possible from here: {allowed}",
        )
