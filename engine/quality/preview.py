"""Preview: a shadow that waits or soaks is read on purpose, by its id.

A preview is pinned as any reader is (SW-5), and follows the journal as its generation does. It is bound by no other
reader: a BUILT shadow may show more than the live index, or less. Its queries are not those of the live index.
"""

from __future__ import annotations

from shadowswitch.actors.kit.signals import Kick
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import CorruptData, EngineClosed, InvalidConfig, InvalidTransition
from shadowswitch.model.names import check_index_type
from shadowswitch.model.shadow_state import OPEN_ROLES, ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, ShadowRow
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation

_HINTS = {
    ShadowState.PREPARING: "wait until it is BUILT (wait_for), then read it",
    ShadowState.BUILDING: "wait until it is BUILT (wait_for), then read it",
    ShadowState.FAILED: "go on with it (retry_build), or build another",
}


def readable(catalog: Catalog, branch: BranchRow, index_type: str, shadow_index_id: str) -> GenerationRow:
    """The generation of a shadow that can be read.

    Raises InvalidName, UnknownShadow; InvalidConfig for a shadow of another index, and for one that only its builder
    can read; InvalidTransition for one that is not BUILT yet, or not any more.
    """
    check_index_type(index_type)
    if not isinstance(shadow_index_id, str):
        raise InvalidConfig(
            f"shadow_index_id is the id of a shadow, not {shadow_index_id!r:.80}", hint="shadows() lists them"
        )
    shadow = catalog.shadow(shadow_index_id)
    if (shadow.branch, shadow.index_type) != (branch.number, index_type):
        raise InvalidConfig(
            f"shadow {shadow.id} is of {shadow.index_type} of branch {shadow.branch_name!r},"
            f" not of {index_type} of branch {branch.name!r}",
            operation="read",
            object=shadow.id,
            hint="read it with the branch and the index type that it was built for",
        )
    row = catalog.generation(shadow.generation) if shadow.generation else None
    if row is None or row.role not in OPEN_ROLES:
        raise unreadable(shadow)
    if row.opaque:
        raise InvalidConfig(
            f"shadow {shadow.id} has a format that only its builder knows; the engine cannot read it",
            operation="read",
            object=shadow.id,
            hint=f"open {row.path} of the data directory with the program that built it",
        )
    return row


def unreadable(shadow: ShadowRow) -> InvalidTransition:
    """The error for a shadow without a whole generation."""
    error = f" ({shadow.error})" if shadow.error else ""
    return InvalidTransition(
        f"shadow {shadow.id} is {shadow.state}{error}: only one that is BUILT, live or soaking can be read",
        operation="read",
        object=shadow.id,
        hint=_HINTS.get(shadow.state, "its files go or are gone: read the live index, or build another"),
    )


class Previews:
    """Pins shadows for readers of this process. Any thread."""

    def __init__(
        self, catalog: Catalog, clock: Clock, generations: OpenGenerations, indexes: LiveIndexes,
        followers: FollowerPool,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._clock = clock
        self._generations = generations
        self._indexes = indexes
        self._followers = followers

    def pin(
        self, branch: BranchRow, index_type: str, shadow_index_id: str, min_lsn: int, timeout_s: float
    ) -> Generation:
        """The generation of a shadow, pinned, once it shows `min_lsn`; the live one shows its read floor, too.

        Raises as `readable`, CorruptData for a generation that is not open, EngineClosed, Timeout.
        """
        deadline = self._clock.monotonic() + timeout_s
        row = readable(self._catalog, branch, index_type, shadow_index_id)
        generation = self._generations.get(row.number)
        if generation is None or not generation.pin():
            readable(self._catalog, branch, index_type, shadow_index_id)  # did it retire meanwhile?
            if generation is not None:
                raise EngineClosed("the engine is closed", operation="read", hint="open it again")
            raise self._not_open(row, shadow_index_id)
        try:
            readable(self._catalog, branch, index_type, shadow_index_id)  # no Follower follows one that retires
            self._wait(generation, min_lsn, deadline)
        except BaseException:
            generation.unpin()
            raise
        return generation

    def _not_open(self, row: GenerationRow, shadow_index_id: str) -> CorruptData:
        reason = self._generations.unread.get(row.number) or self._catalog.shadow(shadow_index_id).error
        return CorruptData(
            f"shadow {shadow_index_id} cannot be read: {reason or 'its files could not be opened'}",
            operation="read",
            object=shadow_index_id,
            hint="build another; the records are safe",
        )

    def _wait(self, generation: Generation, min_lsn: int, deadline: float) -> None:
        index = self._indexes.of_generation(generation)
        live = index.live
        if live is generation:
            min_lsn = max(min_lsn, index.read_floor_lsn)
        if generation.applied_lsn >= min_lsn:
            return
        if live is not None and live is not generation and index.is_exposed(generation):
            self._kick(live)  # one that soaks is not brought ahead of the live one (SW-2)
            live.wait_applied(min_lsn, deadline, lambda: index.live is not live)
        self._kick(generation)
        generation.wait_applied(min_lsn, deadline)

    def _kick(self, generation: Generation) -> None:
        self._followers.of(generation.row.number).tell(Kick(generation.row.branch))
