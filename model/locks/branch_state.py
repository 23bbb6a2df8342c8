"""The states of a branch: which operation leads where, and how indexing starts and completes, in parts if need be.

    operation   from                         to                 who calls it
    LOCK        ACTIVE READY ERROR           LOCKED_FOR_WRITE   an INDEXING lock of the whole branch is granted
    UNLOCK      LOCKED_FOR_WRITE             ACTIVE             that lock ends and nothing was completed
    COMPLETE    ACTIVE LOCKED_FOR_WRITE      READY              the last tracked indexing completes, none failed
    FAIL        ACTIVE LOCKED_FOR_WRITE READY   ERROR           indexing of the whole branch failed
    RECOVER     ERROR                        ACTIVE             somebody says that the cause is gone
    REOPEN      READY MERGED                 ACTIVE             work goes on
    MERGE       READY                        MERGED             the content was merged elsewhere
    ARCHIVE     ACTIVE READY MERGED ERROR    ARCHIVED           final: others may cite it, so it never changes again

LOCKED_FOR_WRITE never outlives its lock: `after_locks` leaves it when the lock is released, expires or is forced. So
ARCHIVED is the only state without a way out. Nothing is lost by that: an archived branch stays readable.
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
    """Where a branch stands. ARCHIVED, MERGED and ERROR admit no write; LOCKED_FOR_WRITE only that of the holder."""

    ACTIVE = "ACTIVE"
    LOCKED_FOR_WRITE = "LOCKED_FOR_WRITE"
    READY = "READY"
    MERGED = "MERGED"
    ARCHIVED = "ARCHIVED"
    ERROR = "ERROR"


class BranchOperation(StrEnum):
    """What moves a branch from one state to another."""

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

CLOSED_FOR_WRITE = frozenset({B.MERGED, B.ARCHIVED, B.ERROR})
WHOLE = "*"
"""Stands for "all resource types" where indexing is told of by resource type."""


class IndexingWork(msgspec.Struct, frozen=True):
    """One resource type being indexed. `lock_id` is "" when it is built in the shadow, which locks nothing.

    `shadow_id` names the shadow whose switch completes it, `index_type` the index: one type may be indexed for several.
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
        """What it is called where indexing is told of: the resource type, and the index if one was named."""
        return f"{self.resource_type} in {self.index_type}" if self.index_type else self.resource_type


class BranchStatus(msgspec.Struct, frozen=True):
    """The state of a branch, since when, by whom and why; and the indexing that is under way or has gone wrong."""

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
        """Whether the state lets a write through; the locks have their own say."""
        return self.state not in CLOSED_FOR_WRITE

    @property
    def is_ready_for_merge(self) -> bool:
        """READY, with no indexing under way."""
        return self.state is BranchState.READY and not self.indexing


class Completion(msgspec.Struct, frozen=True):
    """What completing or failing indexing did: `release` are the locks that nothing needs any more."""

    status: BranchStatus
    release: tuple[str, ...]
    completed: tuple[str, ...]
    remaining: tuple[str, ...]


def move(
    status: BranchStatus, operation: BranchOperation, wall: datetime, *, by: str = "", reason: str = ""
) -> BranchStatus:
    """The status after an operation. Raises InvalidTransition when the state does not allow it."""
    allowed, wanted = MOVES[operation]
    if status.state not in allowed:
        possible = ", ".join(op for op, (froms, _) in MOVES.items() if status.state in froms)
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
    """The status once indexing is under way; the locks named in `works` have been granted.

    With a lock of the whole branch the state becomes LOCKED_FOR_WRITE. With narrow locks, or with none (a shadow), it
    stays ACTIVE and drafts stay editable; a READY branch becomes ACTIVE, it is not ready before this is done.
    A type that failed before stays failed until it, or WHOLE, is indexed again.
    Raises InvalidTransition for a closed branch, and for a resource type that is being indexed already.
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

    With the ids of locks in `under` only what is indexed under these is meant.
    What is built in a tracked shadow is completed by the switch of that shadow, named `shadow_id` then, and by nothing
    else. The branch becomes READY when the last is done, none failed, and somebody asked to track that; but not while
    another indexing lock of all of it is `held`. Raises InvalidTransition when nothing of it is being indexed.
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
    """Indexing failed. Of the whole branch: the state becomes ERROR. Of single types: the branch stays as editable
    as it was, but does not become READY in this run. Raises InvalidTransition when nothing of it is being indexed."""
    done = _works(status, resource_types, owner, shadow_id, under, "fail indexing")
    return _finish(status, done, wall, by=by, reason=reason or "indexing failed", failed=True, held=held)


def forget_shadow(status: BranchStatus, shadow_id: str) -> BranchStatus:
    """The status without what was indexed in a shadow: it is begun anew."""
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
    """The state that fits once `done` is over: ERROR, READY, no longer locked, or unchanged."""
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
    """The status after what happened to locks, and with those that are held now. Never raises: the locks are a fact.

    An INDEXING lock of the whole branch makes it LOCKED_FOR_WRITE when it is granted. A lock that ends takes the
    indexing under it along as failed, unless `complete_indexing` has taken that off before; the branch then goes back
    to ACTIVE, or to ERROR if it was locked to recover from that.
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
