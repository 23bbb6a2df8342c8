"""The states of a shadow index, its phases, the roles of its generation, and the moves that are allowed.

All of them are stored as their strings. A phase is for people to read: older rows may hold a phase that is no longer
listed here, so a row keeps it as a string.
"""

from __future__ import annotations

from enum import StrEnum

from shadowswitch.model.errors import InvalidTransition


class ShadowState(StrEnum):
    """The state of a shadow index."""

    PREPARING = "PREPARING"
    BUILDING = "BUILDING"
    BUILT = "BUILT"
    SWITCHING = "SWITCHING"
    ACTIVE = "ACTIVE"
    CLEANUP = "CLEANUP"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """The present activity of a build or of the built index: finer than the state."""

    QUEUED = "queued"
    """A build that waits for a place among those that work, see `Config.builds_max`."""
    PREPARING = "preparing"
    COPYING = "copying"
    PAUSED = "paused"
    """A caller paused the build, or the disk is short of room."""
    CATCHING_UP = "catching_up"
    CAUGHT_UP = "caught_up"
    BUILDING = "building"
    """An external builder is at work."""
    VALIDATING = "validating"
    WAITING = "waiting"
    """BUILT, and kept up with the journal until its switch."""
    LIVE = "live"
    SOAKING = "soaking"
    RETIRING = "retiring"
    FAILED = "failed"
    CANCELLED = "cancelled"


class GenerationRole(StrEnum):
    """The purpose of a generation, which the catalog stores with it."""

    BUILDING = "building"
    STANDBY = "standby"
    """A BUILT shadow, which follows the journal until its switch."""
    LIVE = "live"
    SOAKING = "soaking"
    """The generation that was live before; a rollback makes it live again."""
    RETIRING = "retiring"
    """Its files go as soon as no reader pins them."""


OPEN_ROLES = frozenset({GenerationRole.STANDBY, GenerationRole.LIVE, GenerationRole.SOAKING})
"""A generation in one of these is whole: the engine opens it, and fsck checks it."""


class PublishStrategy(StrEnum):
    """How `published/<branch>/<INDEX_TYPE>` is made, see `storage.generations.published_path`."""

    ATOMIC_RENAME = "ATOMIC_RENAME"
    COPY_AND_REPLACE = "COPY_AND_REPLACE"


S = ShadowState

MOVES: dict[ShadowState, frozenset[ShadowState]] = {
    S.PREPARING: frozenset({S.BUILDING, S.FAILED, S.CANCELLED}),
    S.BUILDING: frozenset({S.BUILT, S.FAILED, S.CANCELLED}),
    S.BUILT: frozenset({S.SWITCHING, S.FAILED, S.CANCELLED}),
    # to BUILT after an attempt was given up
    S.SWITCHING: frozenset({S.ACTIVE, S.BUILT, S.FAILED}),
    S.ACTIVE: frozenset({S.CLEANUP}),
    S.FAILED: frozenset({S.PREPARING, S.CANCELLED}),
    S.CANCELLED: frozenset(),
    S.CLEANUP: frozenset(),
}

UNDER_WAY = frozenset({S.PREPARING, S.BUILDING, S.BUILT, S.SWITCHING})
"""While a shadow is in one of these, another build of the same branch and index type is a duplicate."""


ENDED = frozenset({S.CLEANUP, S.FAILED, S.CANCELLED})
"""Nothing comes of a shadow in one of these once its files are gone; its row goes after `Config.ended_keep_s`."""


def check_move(shadow_id: str, present: ShadowState, wanted: ShadowState) -> None:
    """Raise InvalidTransition unless a shadow may go from `present` to `wanted`."""
    if wanted not in MOVES[present]:
        allowed = ", ".join(sorted(MOVES[present])) or "none, the state is final"
        hint = f"possible from here: {allowed}"
        if present == ShadowState.ACTIVE:
            hint = "it was switched to: drop_index removes the index"
        raise InvalidTransition(
            f"shadow {shadow_id} is {present} and cannot become {wanted}",
            object=shadow_id,
            hint=hint,
        )
