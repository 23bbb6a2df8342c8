"""The messages between actors: frozen structs, one handler each.

A `reply` is a `Reply`. The receiver claims it with `set_running_or_notify_cancel` before anything
irrevocable, so a caller whose deadline passes and whose `cancel()` succeeds knows that nothing was or will be done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.locks.branch_state import BranchOperation, BranchState, Completion
from shadowswitch.model.locks.info import Lock, LockWaiter
from shadowswitch.model.locks.records import LockRequest, ProgressReport
from shadowswitch.model.locks.refusal import WritePermission
from shadowswitch.model.records import Receipt
from shadowswitch.storage.catalog.journal_format import Batch
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.worker import Answer


class Append(msgspec.Struct, frozen=True):
    """To the JournalWriter: commit a batch of changes of a branch. Reply: Receipt, or what `fence` raised.

    `fence` is called in the transaction, before the batch is added to it; on the JournalWriter's thread. The garbage
    collector knows it: an error that is its reply leads back to it by the frames of its traceback.
    """

    branch: int
    batch: Batch
    reply: Reply[Receipt]
    fence: Callable[[Commit], None] | None = None


class Transact(msgspec.Struct, frozen=True):
    """To the JournalWriter: do metadata work in a write transaction. Reply: what `work` returned.

    `work` may run more than once (when another operation of its group failed), so it must depend on the transaction
    alone; it raises before it changes anything, or its changes vanish with the transaction.
    """

    work: Callable[[Commit], Any]
    reply: Reply[Any]


class Barrier(msgspec.Struct, frozen=True):
    """To the JournalWriter: reply once everything sent before is committed. Reply: the head LSN of the branch."""

    branch: int
    reply: Reply[int]


class Flush(msgspec.Struct, frozen=True):
    """The JournalWriter to itself: commit what has gathered."""


class Write(msgspec.Struct, frozen=True):
    """To a BranchActor: admit a batch and pass it on. Reply: Receipt, or WriteBlocked."""

    batch: Batch
    owner: str
    reply: Reply[Receipt]
    tokens: tuple[int, ...] = ()


class AcquireLock(msgspec.Struct, frozen=True):
    """To a BranchActor: grant all of these locks or none, within `wait_s`. Reply: the locks, or LockConflict."""

    requests: tuple[LockRequest, ...]
    owner: str
    wait_s: float
    under: tuple[int, ...]
    reply: Reply[tuple[Lock, ...]]


class AbandonLocks(msgspec.Struct, frozen=True):
    """To a BranchActor: nobody waits for the answer to this AcquireLock any more; undo it whatever became of it."""

    request: AcquireLock


class HeartbeatLock(msgspec.Struct, frozen=True):
    """To a BranchActor: the holder lives, and may say how far it is. Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    progress: ProgressReport | None
    reply: Reply[Lock]


class ExtendLock(msgspec.Struct, frozen=True):
    """To a BranchActor: add to the time to live. Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    extra_s: float
    reply: Reply[Lock]


class ReleaseLock(msgspec.Struct, frozen=True):
    """To a BranchActor: give a lock back. Reply: the lock as it was, or LockLost."""

    lock_id: str
    token: int
    reply: Reply[Lock]


class ForceUnlock(msgspec.Struct, frozen=True):
    """To a BranchActor: take away every lock; kept in the audit history. Reply: the locks that were held."""

    by: str
    reason: str
    reply: Reply[tuple[Lock, ...]]


class CheckWrite(msgspec.Struct, frozen=True):
    """To a BranchActor: may this be written at this moment, or for as long as a lease? Reply: WritePermission."""

    action: str
    resource_type: str
    resource_id: str | None
    owner: str
    tokens: tuple[int, ...]
    reply: Reply[WritePermission]
    lease: LockRequest | None = None


class ConfirmLock(msgspec.Struct, frozen=True):
    """To a BranchActor: is this still held under this token? Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    reply: Reply[Lock]


class ListLocks(msgspec.Struct, frozen=True):
    """To a BranchActor: who holds what, and who waits? Reply: the locks in order of grant, the waiters in line."""

    reply: Reply[tuple[tuple[Lock, ...], tuple[LockWaiter, ...]]]


class MoveBranch(msgspec.Struct, frozen=True):
    """To a BranchActor: change the state of the branch. Reply: the new state, or InvalidTransition."""

    operation: BranchOperation
    by: str
    reason: str
    reply: Reply[BranchState]


class StartIndexing(msgspec.Struct, frozen=True):
    """To a BranchActor: indexing begins, under all of these locks or, in a shadow, under none. Reply: the locks."""

    requests: tuple[LockRequest, ...]
    resource_types: tuple[str, ...] | None
    owner: str
    track_ready: bool
    reason: str
    reply: Reply[tuple[Lock, ...]]


class TrackBuild(msgspec.Struct, frozen=True):
    """To a BranchActor: claim a build, and note what its switch will complete, in one transaction. Reply: ShadowRow."""

    shadow_id: str
    index_type: str
    resource_types: tuple[str, ...]
    owner: str
    claim: Callable[[Commit], ShadowRow]
    reply: Reply[ShadowRow]


class SettleBuild(msgspec.Struct, frozen=True):
    """To a BranchActor: a tracked build may have ended; complete or fail what it indexed. Reply: the new state."""

    shadow_id: str
    reply: Reply[BranchState]


class EndIndexing(msgspec.Struct, frozen=True):
    """To a BranchActor: indexing of these types (None: of all) is over. Reply: Completion, or InvalidTransition.

    With `tokens` of that which is under their locks, and nothing else; LockLost if one of them opens nothing.
    """

    resource_types: tuple[str, ...] | None
    owner: str
    failed: bool
    reason: str
    reply: Reply[Completion]
    tokens: tuple[int, ...] = ()


class NoteLocks(msgspec.Struct, frozen=True):
    """From the timers to a BranchActor: write down who waits and who was heard of, for those who only read."""


class LocksDue(msgspec.Struct, frozen=True):
    """From the timers to a BranchActor: a lock or a waiter has reached its time."""


class BeginBuild(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: begin, or go on after a restart."""


class WorkerSaid(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: a worker process reported about its task."""

    task: int
    answer: Answer


class WorkerGone(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: a worker process died before it finished its task."""

    task: int
    how: str


class Step(msgspec.Struct, frozen=True):
    """A builder to itself: the next small piece of work."""


class Tune(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: throttle (share of the time it may work), pause or go on. Reply: None."""

    share: float | None
    paused: bool | None
    reply: Reply[None]


class CancelBuild(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: end it. Reply: None, once the shadow is CANCELLED (or `failed`) and its workers are gone."""

    reason: str
    reply: Reply[None]
    failed: bool = False


class Follow(msgspec.Struct, frozen=True):
    """To a Follower: keep this generation up with the journal."""

    generation: Generation


class Unfollow(msgspec.Struct, frozen=True):
    """To a Follower: let go of a generation. Reply: None, once it will not be touched again."""

    number: int
    reply: Reply[None]


class Tick(msgspec.Struct, frozen=True):
    """From the timers: look whether there is something to do."""


class Kick(msgspec.Struct, frozen=True):
    """To a Follower or the Dispatcher: there is something to do now."""

    branch: int = 0


class WatchesChanged(msgspec.Struct, frozen=True):
    """To the Watcher: somebody watches another folder, or one less. Reply: None, once that is so."""

    reply: Reply[None] | None


class Sweep(msgspec.Struct, frozen=True):
    """To the Janitor: one full round now. Reply: None."""

    reply: Reply[None]
