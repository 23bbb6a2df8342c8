"""The rows of the catalog: msgspec structs, stored as MessagePack arrays with the format version first.

    BranchRow        [1, 7, "feature/user", "ACTIVE", 1795467600.0]
    GenerationRow    [1, 12, 7, "SEARCH_INDEX", "5f0c...", "fts5", {...}, "9c1a...", 4, ["object_type"], ...]

A field may be added at the end with a default; anything else needs a new version.
Times are seconds since the epoch, UTC, for display only: nothing is ordered or expired by them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.groups.views import GroupState
from shadowswitch.model.progress import Pace
from shadowswitch.model.shadow_state import ENDED, GenerationRole, PublishStrategy, ShadowState
from shadowswitch.storage.clock import Moment

FORMAT = 1
WallTime = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Seconds since the epoch, before the year 10000: a flipped bit makes another number of it, which no date is."""
EXTERNAL = "external"
"""The name of the backend for an index in a format that only its builder knows."""


SNAPSHOT, FOLLOWING = "snapshot", "following"
LSN_MAX = (1 << 64) - 1
"""Above every LSN."""
DROPPING = "DROPPING"
"""The stored state of a branch that was dropped, while the Janitor removes its rows: no call knows it any more."""


class BranchRow(msgspec.Struct, array_like=True, frozen=True):
    """A branch. Every key refers to it by `number`."""

    v: int
    number: int
    name: str
    state: str
    created_at: WallTime
    parent: int = 0
    """The number of the branch that it was forked from; 0: none."""
    fork_lsn: int = 0
    """It is compared with its parent as of this LSN: that of the fork, or of the last rebase."""
    shown_lsn: int = -1
    """It shows its parent as of this LSN, except for what it changed itself; -1: as of `fork_lsn`.

    Lower after a rebase of a branch that has forks itself: they go on to show what it showed through."""
    rebase_lsn: int = -1
    """A rebase brings in what the parent changed up to this LSN; -1: none is under way."""
    follows: bool = False
    """It shows its parent as it is at each moment, except for what it changed itself."""
    born_lsn: int = -1
    """The LSN of a fork when it was made; -1 in rows of older versions."""

    @property
    def mode(self) -> str:
        """The mode of a fork, as callers give it."""
        return FOLLOWING if self.follows else SNAPSHOT

    @property
    def shows_as_of(self) -> int:
        """The LSN as of which a fork shows its parent."""
        if self.follows:
            return LSN_MAX
        return self.shown_lsn if self.shown_lsn >= 0 else self.fork_lsn


class SwitchPlan(msgspec.Struct, array_like=True, frozen=True):
    """A switch that is scheduled, see `actors.switch.schedule`."""

    quiet_for_s: float
    within_s: float
    latest: Moment
    request: dict[str, Any]
    refusals: int = 0
    error: str = ""
    """The last refusal."""
    not_before: Moment | None = None
    """After a refusal: the next try."""


class ShadowRow(msgspec.Struct, array_like=True, frozen=True):
    """One build and its result; `generation` is 0 until the build has claimed a directory."""

    v: int
    id: str
    branch: int
    branch_name: str
    index_type: str
    resource_types: list[str]
    state: ShadowState
    phase: str
    backend: str
    build_config: dict[str, Any]
    fingerprint: str
    token: int
    created_at: WallTime
    external: bool = False
    service_name: str = ""
    generation: int = 0
    start_lsn: int = 0
    applied_lsn: int = 0
    progress: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    eta_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    record_count: int | None = None
    size_bytes: int | None = None
    started_at: WallTime | None = None
    completed_at: WallTime | None = None
    switched_at: WallTime | None = None
    error: str | None = None
    retry_count: int = 0
    path: str = ""
    summary: dict[str, Any] = {}
    track_ready: bool = False
    failed_at: Moment | None = None
    """The failure of a FAILED build: its files stay for `Config.failed_keep_s` from then on."""
    surprises: list[str] = []
    """What the gate says of the fields of a BUILT shadow, see `actors.build.gate`."""
    pace: Pace | float | None = None
    """How the time of its build was spent, for the ETA of the next one. A number is of an older version: not used."""
    switch_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    """The time of the last call that made it live, in seconds."""
    priority: int = 0
    """Among the builds that wait for a place; the highest goes first."""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """The share of the time that `throttle_build` left the build; None: `Config.build_share`."""
    paused_by: str = ""
    """The author of a pause; "" while the build may work."""
    paused_why: str = ""
    ended_at: Moment | None = None
    """The removal of the files of an ended shadow: its row stays for `Config.ended_keep_s` from then on."""
    plan: SwitchPlan | None = None
    begun_by: str = ""
    """The author of the build, or of its last retry; "" in rows of older versions."""
    begun_why: str = ""
    of_rebuild: bool = False
    """Its caller switches to it or cancels it. When the host has stopped, the next build of this kind does."""
    sealed_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    """The time of the turn of the last switch that made it live, in milliseconds; None in rows of older versions."""
    seed: str = "never"
    """What `start_build` was given: `auto`, `never` or `require`; `never` in rows of older versions."""
    seeded_from: int = 0
    """The generation that the build begins from, or began from; 0: the records."""


_NONE = msgspec.Raw(msgspec.msgpack.encode(None))


class ShadowHead(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The fields of a ShadowRow by which a list of shadows is made; the others are not decoded.

    A `Raw` is a part of the stored row, so a head is valid inside the transaction only.
    """

    v: int
    id: str
    branch: int
    branch_name: str
    index_type: str
    resource_types: msgspec.Raw
    state: ShadowState
    phase: msgspec.Raw
    backend: msgspec.Raw
    build_config: msgspec.Raw
    fingerprint: msgspec.Raw
    token: int
    created_at: msgspec.Raw
    external: msgspec.Raw = _NONE
    service_name: msgspec.Raw = _NONE
    generation: int = 0
    start_lsn: msgspec.Raw = _NONE
    applied_lsn: msgspec.Raw = _NONE
    progress: msgspec.Raw = _NONE
    eta_s: msgspec.Raw = _NONE
    record_count: msgspec.Raw = _NONE
    size_bytes: msgspec.Raw = _NONE
    started_at: msgspec.Raw = _NONE
    completed_at: msgspec.Raw = _NONE
    switched_at: msgspec.Raw = _NONE
    error: str | None = None
    retry_count: msgspec.Raw = _NONE
    path: msgspec.Raw = _NONE
    summary: msgspec.Raw = _NONE
    track_ready: msgspec.Raw = _NONE
    failed_at: msgspec.Raw = _NONE
    surprises: msgspec.Raw = _NONE
    pace: msgspec.Raw = _NONE
    switch_s: msgspec.Raw = _NONE
    priority: msgspec.Raw = _NONE
    share: msgspec.Raw = _NONE
    paused_by: msgspec.Raw = _NONE
    paused_why: msgspec.Raw = _NONE
    ended_at: Moment | None = None
    plan: msgspec.Raw = _NONE

    @property
    def at_rest(self) -> bool:
        """It ended, its files are gone, and it has no plan: no start looks at it."""
        return self.ended_at is not None and self.state in ENDED and bytes(self.plan) == bytes(_NONE)


class GenerationRow(msgspec.Struct, array_like=True, frozen=True):
    """One built copy of an index."""

    v: int
    number: int
    branch: int
    index_type: str
    shadow_id: str
    backend: str
    options: dict[str, Any]
    fingerprint: str
    shards: int
    resource_types: list[str]
    path: str
    role: GenerationRole
    created_at: WallTime
    durable_lsn: int = 0
    """Every change up to this LSN is durable in the generation; the journal may be trimmed up to it."""
    switched_at: WallTime | None = None
    soak_until: WallTime | None = None
    """The end of the soak by the wall clock, as older versions stored it; not used."""
    boot_id: str = ""
    """The boot of the machine in which the generation was last open; "" after a close with everything on disk."""
    manifest_hash: str = ""
    """The checksum of the manifest, taken when the build passed its validation; "" before."""
    soak_ends: Moment | None = None
    hindered: str = ""
    """Why it does not follow the journal at present; "" while it does."""
    settings: dict[str, Any] = {}
    """Options that its readers take instead of those it was built with, see `Engine.retune`."""

    @property
    def query_options(self) -> dict[str, Any]:
        """The options of a reader."""
        return {**self.options, **self.settings}

    @property
    def opaque(self) -> bool:
        """Only its builder knows the format: the generation does not follow the journal."""
        return self.backend == EXTERNAL

    @property
    def needs_journal(self) -> bool:
        """The journal must keep every change above its durable LSN."""
        if self.role is GenerationRole.RETIRING:
            return False
        return not (self.opaque and self.role in (GenerationRole.LIVE, GenerationRole.SOAKING))


class IndexRow(msgspec.Struct, array_like=True, frozen=True):
    """THE LIVE POINTER: the generation that a branch serves for one index type. `epoch` grows with every switch."""

    v: int
    branch: int
    index_type: str
    live: int
    previous: int
    epoch: int
    sealed_lsn: int
    switched_at: WallTime
    strategy: PublishStrategy = PublishStrategy.ATOMIC_RENAME
    """How `published/<branch>/<INDEX_TYPE>` is made to agree with this row, also after a crash."""
    withdrawn: str = ""
    """Why an index that was served has no live generation; until the next switch, or until the index is dropped."""
    unread: bool = False
    """The backend has not checked the live generation yet: the clone of a parent's, see `storage.generations.seeding`.
    """


class GroupMemberRow(msgspec.Struct, array_like=True, frozen=True):
    """A member of a group: a shadow, its generation, and the one that the switch of the group replaced (0: none)."""

    branch: int
    branch_name: str
    index_type: str
    shadow_id: str
    generation: int
    previous: int = 0


class GroupRow(msgspec.Struct, array_like=True, frozen=True):
    """Indexes that are switched together, by branch and index type. `epoch` grows with each switch and rollback."""

    v: int
    number: int
    name: str
    state: GroupState
    members: list[GroupMemberRow]
    created_at: WallTime
    epoch: int = 0
    switched_at: WallTime | None = None
    ended: str = ""
    """Why the group has ended."""

    @property
    def id(self) -> str:
        """Its id outside of the catalog."""
        return f"group-{self.number}"


class EventRow(msgspec.Struct, array_like=True, frozen=True):
    """One transition in the outbox, or one decision in the audit history."""

    v: int
    sequence: int
    id: str
    type: str
    subject: str
    time: WallTime
    data: dict[str, Any]


class HoldRow(msgspec.Struct, array_like=True, frozen=True):
    """A subscriber's hold on the journal of a branch; `given_up` is the reason why it keeps nothing any more."""

    v: int
    branch: int
    name: str
    after_lsn: int
    created_at: WallTime
    moved_at: WallTime
    given_up: str = ""


Row = TypeVar("Row", bound=msgspec.Struct)
_KINDS: dict[type[msgspec.Struct], str] = {
    BranchRow: "a branch", ShadowRow: "a shadow", ShadowHead: "a shadow", GenerationRow: "a generation",
    IndexRow: "an index", HoldRow: "a hold", EventRow: "an event", GroupRow: "a group",
}  # fmt: skip
_encode = msgspec.msgpack.Encoder().encode
_decode: dict[type[msgspec.Struct], Callable[[bytes], msgspec.Struct]] = {
    kind: msgspec.msgpack.Decoder(kind).decode for kind in _KINDS if kind is not EventRow
}


def _decoder(kind: type[Row]) -> Callable[[bytes | memoryview], Row]:
    """The inverse of `encode_row`; it raises CorruptData."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def decoded(data: bytes | memoryview) -> Row:
        try:
            return decode(data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CorruptData(
                f"the row of {_KINDS[kind]} does not decode: {error}",
                operation="read the catalog",
                hint="check the disk and restore the data directory from a backup",
            ) from error

    return decoded


decode_branch = _decoder(BranchRow)
decode_shadow = _decoder(ShadowRow)
decode_shadow_head = _decoder(ShadowHead)
decode_generation = _decoder(GenerationRow)
decode_index = _decoder(IndexRow)
decode_event = _decoder(EventRow)
decode_hold = _decoder(HoldRow)
decode_group = _decoder(GroupRow)


def encode_row(row: msgspec.Struct) -> bytes:
    """A row in its stored form, decoded once as a check.

    A number in the place of a text would make the catalog unreadable at every later start: it is refused here.
    """
    data = _encode(row)
    decode = _decode.get(type(row))
    if decode is not None:
        decode(data)
    return data
