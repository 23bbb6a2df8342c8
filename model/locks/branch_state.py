"""The states of a branch, the operations between them, and the indexing of a branch, whole or in parts.

    operation   from                         to                 cause
    LOCK        ACTIVE READY ERROR           LOCKED_FOR_WRITE   an INDEXING lock of the whole branch is granted
    UNLOCK      LOCKED_FOR_WRITE             ACTIVE             that lock ends and nothing was completed
    COMPLETE    ACTIVE LOCKED_FOR_WRITE      READY              the last tracked indexing completes, none failed
    FAIL        ACTIVE LOCKED_FOR_WRITE READY   ERROR           indexing of the whole branch failed
    RECOVER     ERROR                        ACTIVE             the cause of the error is gone
    REOPEN      READY MERGED                 ACTIVE             work continues
    MERGE       READY                        MERGED             another system merged the content
    ARCHIVE     ACTIVE READY MERGED ERROR    ARCHIVED           final: other systems may cite the branch

LOCKED_FOR_WRITE never outlives its lock: `after_locks` leaves it when the lock is released, expires or is forced open.
So ARCHIVED is the only final state. An archived branch stays readable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from shadowswitch.model.errors import InvalidTransition
from shadowswitch.model.locks.records import ENDINGS, Lock, LockEvent, LockEventKind
from shadowswitch.model.locks.targets import LockScope, LockType


class BranchState(StrEnum):
    """The state of a branch. ARCHIVED, MERGED and ERROR admit no write; LOCKED_FOR_WRITE only writes of the holder."""

    ACTIVE = "ACTIVE"
    LOCKED_FOR_WRITE = "LOCKED_FOR_WRITE"
    READY = "READY"
    MERGED = "MERGED"
    ARCHIVED = "ARCHIVED"
    ERROR = "ERROR"


class BranchOperation(StrEnum):
    """The operations that change the state of a branch."""

    LOCK = "LOCK"
    UNLOCK = "UNLOCK"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    RECOVER = "RECOVER"
    REOPEN = "REOPEN"
    MERGE = "MERGE"
    ARCHIVE = "ARCHIVE"


B, Op = BranchState, BranchOperation

MOVES: dict[BranchOperation, tuple[frozenset[BranchState], BranchState]] = {
    Op.LOCK: (frozenset({B.ACTIVE, B.READY, B.ERROR}), B.LOCKED_FOR_WRITE),
    Op.UNLOCK: (frozenset({B.LOCKED_FOR_WRITE}), B.ACTIVE),
    Op.COMPLETE: (frozenset({B.ACTIVE, B.LOCKED_FOR_WRITE}), B.READY),
    Op.FAIL: (frozenset({B.ACTIVE, B.LOCKED_FOR_WRITE, B.READY}), B.ERROR),
    Op.RECOVER: (frozenset({B.ERROR}), B.ACTIVE),
    Op.REOPEN: (frozenset({B.READY, B.MERGED}), B.ACTIVE),
    Op.MERGE: (frozenset({B.READY}), B.MERGED),
    Op.ARCHIVE: (frozenset({B.ACTIVE, B.READY, B.MERGED, B.ERROR}), B.ARCHIVED),
}

CALLS: dict[BranchOperation, str] = {
    Op.LOCK: "acquire_lock",
    Op.UNLOCK: "release_lock",
    Op.COMPLETE: "complete_indexing",
    Op.FAIL: "complete_indexing",
    Op.RECOVER: "recover_branch",
    Op.REOPEN: "reopen_branch",
    Op.MERGE: "merge_branch",
    Op.ARCHIVE: "archive_branch",
}
"""The call of the library that asks for an operation."""

CLOSED_FOR_WRITE = frozenset({B.MERGED, B.ARCHIVED, B.ERROR})
WHOLE = "*"
"""Means "all resource types" in the name of an indexing."""


class IndexingWork(msgspec.Struct, frozen=True):
    """The indexing of one resource type. `lock_id` is "" for indexing in a shadow, which needs no lock.

    The switch of the shadow `shadow_id` completes it. `index_type` is the index: one type may be indexed for several.
    """

    resource_type: str
    owner: str
    started_at: datetime
    lock_id: str = ""
    whole_branch: bool = False
    track_ready: bool = True
    index_type: str = ""
    shadow_id: str = ""

    @property
    def name(self) -> str:
        """The name in messages: the resource type, and the index if there is one."""
        return f"{self.resource_type} in {self.index_type}" if self.index_type else self.resource_type


class BranchStatus(msgspec.Struct, frozen=True):
    """The state of a branch, its time, cause and author; and the indexing that is under way or has failed."""

    branch: str
    since: datetime
    state: BranchState = BranchState.ACTIVE
    previous: BranchState | None = None
    by: str = ""
    reason: str = ""
    indexing: tuple[IndexingWork, ...] = ()
    failed: tuple[str, ...] = ()
    tracked: bool = False
    indexing_started_at: datetime | None = None
    indexing_completed_at: datetime | None = None

    @property
    def admits_writes(self) -> bool:
        """True if the state admits a write. The locks may still refuse it."""
        return self.state not in CLOSED_FOR_WRITE

    @property
    def is_ready_for_merge(self) -> bool:
        """READY, with no indexing under way."""
        return self.state is BranchState.READY and not self.indexing


class Completion(msgspec.Struct, frozen=True):
    """The result of `complete_indexing` or `fail_indexing`; the caller releases the locks in `release`."""

    status: BranchStatus
    release: tuple[str, ...]
    completed: tuple[str, ...]
    remaining: tuple[str, ...]


def move(
    status: BranchStatus, operation: BranchOperation, wall: datetime, *, by: str = "", reason: str = ""
) -> BranchStatus:
    """The status after an operation. Raises InvalidTransition when the state does not allow the operation."""
    allowed, wanted = MOVES[operation]
    if status.state not in allowed:
        possible = ", ".join(dict.fromkeys(CALLS[op] for op, (froms, _) in MOVES.items() if status.state in froms))
        raise InvalidTransition(
            f"branch {status.branch} is {status.state}, which does not allow {operation}",
            operation=operation.lower(),
            object=status.branch,
            hint=f"possible from here: {possible or 'nothing, the state is final'}",
        )
    return msgspec.structs.replace(
        status, state=wanted, previous=status.state, since=wall, by=by, reason=reason or operation.lower()
    )


def start_indexing(
    status: BranchStatus, wall: datetime, works: Sequence[IndexingWork], *, reason: str = ""
) -> BranchStatus:
    """The status once indexing is under way; the locks named in `works` are granted already.

    With a lock of the whole branch the state becomes LOCKED_FOR_WRITE. With narrow locks, or with none (a shadow), it
    stays ACTIVE and drafts stay editable. A READY branch becomes ACTIVE until the indexing completes. A failed type
    stays failed until it, or WHOLE, is indexed again. Raises InvalidTransition for a closed branch, and for a resource
    type whose indexing is under way.
    """
    if status.state in (B.ARCHIVED, B.MERGED):
        raise InvalidTransition(
            f"branch {status.branch} is {status.state} and cannot be indexed for tracking",
            operation="start indexing",
            object=status.branch,
            hint="reopen a merged branch first; an archived one is final",
        )
    names = [work.name for work in works]
    twice = sorted({n for n in names if names.count(n) > 1} | {w.name for w in status.indexing} & set(names))
    if twice:
        raise InvalidTransition(
            f"{', '.join(twice)} of branch {status.branch} is being indexed already",
            operation="start indexing",
            object=status.branch,
            hint="complete or fail that indexing first",
        )
    fresh = not status.indexing
    status = msgspec.structs.replace(
        status,
        indexing=(*status.indexing, *works),
        failed=() if WHOLE in names else tuple(n for n in status.failed if n not in names),
        tracked=any(work.track_ready for work in works) or (status.tracked and not fresh),
        indexing_started_at=wall if fresh else status.indexing_started_at,
        indexing_completed_at=None,
    )
    by = works[0].owner if works else ""
    if any(work.whole_branch for work in works):
        return status if status.state is B.LOCKED_FOR_WRITE else move(status, Op.LOCK, wall, by=by, reason=reason)
    return move(status, Op.REOPEN, wall, by=by, reason=reason) if status.state is B.READY else status


def complete_indexing(
    status: BranchStatus,
    wall: datetime,
    *,
    by: str = "",
    resource_types: Iterable[str] | None = None,
    owner: str | None = None,
    shadow_id: str = "",
    under: Collection[str] | None = None,
    reason: str = "",
    held: Iterable[Lock] = (),
) -> Completion:
    """Indexing of these resource types succeeded (None: all of it, of `owner` if given). Release the locks returned.

    With lock ids in `under`, only indexing under these locks is meant. Only the switch of a tracked shadow, with its
    `shadow_id`, completes the indexing in that shadow. The branch becomes READY when the last tracked indexing is
    complete and none failed, unless another INDEXING lock of the whole branch is `held`. Raises InvalidTransition when
    no such indexing is under way.
    """
    done = _works(status, resource_types, owner, shadow_id, under, "complete indexing")
    return _finish(status, done, wall, by=by, reason=reason or "indexing completed", failed=False, held=held)


def fail_indexing(
    status: BranchStatus,
    wall: datetime,
    *,
    by: str = "",
    resource_types: Iterable[str] | None = None,
    owner: str | None = None,
    shadow_id: str = "",
    under: Collection[str] | None = None,
    reason: str = "",
    held: Iterable[Lock] = (),
) -> Completion:
    """Indexing failed; arguments as of `complete_indexing`.

    Of the whole branch: the state becomes ERROR. Of single types: the branch stays as editable as before, and does not
    become READY in this run. Raises InvalidTransition when no such indexing is under way.
    """
    done = _works(status, resource_types, owner, shadow_id, under, "fail indexing")
    return _finish(status, done, wall, by=by, reason=reason or "indexing failed", failed=True, held=held)


def forget_shadow(status: BranchStatus, shadow_id: str) -> BranchStatus:
    """The status without the indexing in a shadow, which begins anew."""
    left = tuple(w for w in status.indexing if w.shadow_id != shadow_id)
    return status if left == status.indexing else msgspec.structs.replace(status, indexing=left)


def _works(
    status: BranchStatus,
    resource_types: Iterable[str] | None,
    owner: str | None,
    shadow_id: str,
    under: Collection[str] | None,
    operation: str,
) -> tuple[IndexingWork, ...]:
    wanted = None if resource_types is None else set(resource_types)
    candidates = tuple(
        w
        for w in status.indexing
        if w.shadow_id == shadow_id and owner in (None, w.owner) and (under is None or w.lock_id in under)
    )
    chosen = tuple(w for w in candidates if wanted is None or w.resource_type in wanted)
    missing = sorted((wanted or set()) - {w.resource_type for w in chosen})
    if missing or not chosen:
        pending = ", ".join(f"{w.name} ({w.owner})" for w in status.indexing)
        what = f"{', '.join(missing)} is not" if missing else "nothing is"
        where = "" if under is None else " under the locks of these tokens"
        raise InvalidTransition(
            f"{what} being indexed on branch {status.branch}{where}",
            operation=operation,
            object=status.branch,
            hint=f"under way: {pending}" if pending else "start indexing first",
        )
    return chosen


def _finish(
    status: BranchStatus,
    done: tuple[IndexingWork, ...],
    wall: datetime,
    *,
    by: str,
    reason: str,
    failed: bool,
    held: Iterable[Lock],
) -> Completion:
    left = tuple(w for w in status.indexing if w not in done)
    still_needed = {w.lock_id for w in left}
    names = tuple(w.name for w in done)
    after = msgspec.structs.replace(
        status,
        indexing=left,
        failed=tuple(dict.fromkeys((*status.failed, *names))) if failed else status.failed,
        indexing_completed_at=wall if not (left or failed or status.failed) else None,
    )
    release = tuple(dict.fromkeys(w.lock_id for w in done if w.lock_id and w.lock_id not in still_needed))
    if not any(_locks_branch(lock) for lock in held if lock.lock_id not in release):
        after = _settle(after, done, wall, by=by, reason=reason, failed=failed)
    return Completion(after, release, () if failed else names, tuple(w.name for w in left))


def _settle(
    status: BranchStatus, done: Iterable[IndexingWork], wall: datetime, *, by: str, reason: str, failed: bool
) -> BranchStatus:
    """The status once `done` has ended: ERROR, READY, no longer locked, or unchanged."""
    if failed and any(w.whole_branch for w in done) and status.state in MOVES[Op.FAIL][0]:
        return move(status, Op.FAIL, wall, by=by, reason=reason)
    if not status.indexing and not status.failed and status.tracked and status.state in MOVES[Op.COMPLETE][0]:
        return move(status, Op.COMPLETE, wall, by=by, reason=reason)
    if status.state is B.LOCKED_FOR_WRITE and not any(w.whole_branch for w in status.indexing):
        return move(status, Op.UNLOCK, wall, by=by, reason=reason)
    return status


def after_locks(
    status: BranchStatus, events: Iterable[LockEvent], wall: datetime, *, held: Iterable[Lock] = ()
) -> BranchStatus:
    """The status after these events of locks, with the locks held now. Never raises: the locks are a fact.

    The grant of an INDEXING lock of the whole branch makes the branch LOCKED_FOR_WRITE. Indexing under a lock that ends
    has failed, unless `complete_indexing` removed it before. At the end of the lock the branch becomes ACTIVE, or ERROR
    if that was its state before the lock.
    """
    locked = any(_locks_branch(lock) for lock in held)
    for event in events:
        lock = event.lock
        if lock is None:
            continue
        if event.kind is LockEventKind.GRANTED and _locks_branch(lock) and status.state in MOVES[Op.LOCK][0]:
            status = move(status, Op.LOCK, wall, by=lock.owner, reason=lock.reason)
        if event.kind in ENDINGS:
            status = _lock_ended(status, lock, event, wall, still_locked=locked)
    return status


def _locks_branch(lock: Lock) -> bool:
    return lock.lock_type is LockType.INDEXING and lock.scope is LockScope.BRANCH and not lock.shared


def _lock_ended(
    status: BranchStatus, lock: Lock, event: LockEvent, wall: datetime, *, still_locked: bool
) -> BranchStatus:
    lost = tuple(w.name for w in status.indexing if w.lock_id == lock.lock_id)
    if lost:
        status = msgspec.structs.replace(
            status,
            indexing=tuple(w for w in status.indexing if w.lock_id != lock.lock_id),
            failed=tuple(dict.fromkeys((*status.failed, *lost))),
        )
    if still_locked or not _locks_branch(lock) or status.state is not B.LOCKED_FOR_WRITE:
        return status
    reason = f"lock {event.kind.removeprefix('lock.')}: {event.reason}" if event.reason else str(event.kind)
    from_error = status.previous is B.ERROR
    status = move(status, Op.UNLOCK, wall, by=event.by, reason=reason)
    return move(status, Op.FAIL, wall, by=event.by, reason=reason) if from_error else status
