"""The JournalWriter: the only writer of the catalog. Group commit falls out of its mailbox.

The first operation of an empty group makes the actor send itself `Flush`; the operations queued ahead of that join the
same transaction and share one fsync. A write is acknowledged only after that commit (ST-5). When an operation of a
group fails, the transaction is aborted as if it had never been, and each operation is tried alone: only the one at
fault fails. The transaction of a switch is a group of its own, see `CommitSwitch`.

So is each large batch. Small batches that stand before it are committed and answered first. Small batches of other
branches that arrive meanwhile come before the next large one. So a small batch waits for one large batch at most.
Writes of one branch keep their order, and metadata its place behind all that was sent before.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from typing import Any

import lmdb
import msgspec

from shadowswitch.actors.kit.actor import EngineActor, wrap
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import (
    CorruptData,
    DirectoryLost,
    InternalFailure,
    ResourceExhausted,
    ShadowSwitchError,
    StorageFull,
)
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.records import Receipt
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import Batch
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

logger = logging.getLogger("shadowswitch")

GROUP_CHANGES_MAX = 5_000
"""A group is committed at the latest with so many changes: beyond, one more fsync costs less than the waiting."""


LARGE_BYTES = 4 << 20
"""A batch of so many bytes takes longer to write than one more fsync."""


class Append(msgspec.Struct, frozen=True):
    """To the JournalWriter: commit a batch of changes of a branch. Reply: Receipt, or what `fence` raised.

    `fence` is called in the transaction, before the batch is added to it; on the JournalWriter's thread. The garbage
    collector knows it: an error that is its reply leads back to it by the frames of its traceback.
    """

    branch: int
    batch: Batch
    reply: Reply[Receipt]
    fence: Callable[[Commit], object] | None = None


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


class CommitLarge(msgspec.Struct, frozen=True):
    """The JournalWriter to itself: commit what has gathered, then one large batch."""


class CommitSwitch(msgspec.Struct, frozen=True):
    """To a BranchActor, which passes it on to the JournalWriter: commit a switch in one turn.

    What has gathered is committed first. Then, on the JournalWriter's thread and with nothing in between: `prepare`
    applies the last durable changes and returns None, or a refusal; `work` is the transaction and returns the row of
    the index, or those of a group; `settle` makes the live pointer agree with that, or with the catalog (None) when the
    transaction raised: it may be durable all the same. Reply: what `work` returned, or the refusal.
    """

    prepare: Callable[[], Any]
    work: Callable[[Commit], Any]
    settle: Callable[[Any], object]
    reply: Reply[Any]


Operation = Append | Transact | CommitSwitch
Committed = Callable[[dict[int, int], bool], None]
"""Called after each commit, on the writer's thread: the new heads by branch, and whether metadata may have changed."""


class JournalWriter(EngineActor):
    """Commits writes and metadata. One for each engine; no other part begins a write transaction."""

    def __init__(
        self,
        catalog: Catalog,
        metrics: Metrics,
        committed: Committed,
        crashed: Any,
        check_directory: Callable[[], None],
    ) -> None:
        super().__init__("shadowswitch-journal", crashed)
        self._catalog = catalog
        self._clock = catalog.clock
        self._metrics = metrics
        self._committed = committed
        self._check_directory = check_directory
        """Raises DirectoryLost. Called in every transaction, when it is complete but for its commit."""
        self._counters = Counters(catalog)
        self._pending: list[Append | Transact] = []
        self._pending_changes = 0
        self._flush_sent = self._large_sent = False
        self._large: list[Append] = []
        """Large batches, and what came behind them on their branches; the first is a large one."""
        self._unanswered: list[tuple[Operation, Any]] = []
        self._unsettled: list[CommitSwitch] = []
        self.handles(Append, self._append)
        self.handles(Transact, self._transact)
        self.handles(Barrier, self._barrier)
        self.handles(CommitSwitch, self._commit_switch)
        self.handles(Flush, self._flush)
        self.handles(CommitLarge, self._commit_large)

    def on_receive(self, message: Any) -> None:
        """Handle one message. A caller without an answer, while the next group gathers, is answered by its commit."""
        super().on_receive(message)
        for _ in range(len(self._unsettled)):
            self._settle(self._unsettled.pop(0))
        if self._unanswered and not self._pending and self.actor_inbox.empty():
            self._answer()

    def _append(self, message: Append) -> None:
        several = len(message.batch.chunks) > 1  # one chunk, as of a single edit, needs no look at its size
        if (several and _is_large(message.batch)) or (self._large and _is_behind(message, self._large)):
            self._large.append(message)
            self._send_large()
            return
        self._pending_changes += len(message.batch)
        self._gather(message)

    def _send_large(self) -> None:
        if self._large and not self._large_sent:
            self._large_sent = True
            self.actor_ref.tell(CommitLarge())

    def _commit_large(self, _: CommitLarge) -> None:
        self._large_sent = False
        self._commit_gathered()
        self._commit_first_large()
        self._send_large()

    def _commit_first_large(self) -> None:
        """Commit it alone. What stood behind it, and behind no other, gathers."""
        if not self._large:  # a Barrier has committed them
            return
        self._answer()  # the writers of the small ones do not wait for it
        self._pending = [self._large.pop(0)]
        self._commit_gathered()
        behind, self._large = self._large, []
        for message in behind:
            self._append(message)

    def _transact(self, message: Transact) -> None:
        if self._large:
            self._commit_pending()
        self._gather(message)

    def _gather(self, message: Append | Transact) -> None:
        self._pending.append(message)
        if self._pending_changes >= GROUP_CHANGES_MAX:
            self._commit_gathered()
        elif not self._flush_sent:
            self._flush_sent = True
            self.actor_ref.tell(Flush())

    def _flush(self, _: Flush) -> None:
        self._flush_sent = False
        self._commit_gathered()

    def _barrier(self, message: Barrier) -> None:
        self._commit_pending()
        if message.reply.set_running_or_notify_cancel():
            message.reply.set_result(self._catalog.head(message.branch)[0])

    def _commit_switch(self, message: CommitSwitch) -> None:
        self._commit_pending()
        self._answer()  # its writers do not wait for the switch
        if not message.reply.set_running_or_notify_cancel():
            return
        if self._catalog.failed is not None:
            raise self._catalog.failed
        refusal = message.prepare()
        if refusal is not None:
            message.reply.set_result(refusal)
            return
        try:
            self._commit([message])
        except BaseException as error:
            self._settle(message)
            self._refuse([message], self._judge(error))

    def _settle(self, message: CommitSwitch) -> None:
        """Behind an error, by the catalog. If that cannot be read, again behind the next message."""
        try:
            message.settle(None)
        except BaseException as error:
            logger.critical("the live pointer may not agree with the catalog: %s", error)
            self._unsettled.append(message)

    def _commit_pending(self) -> None:
        """Commit everything that was sent before."""
        self._commit_gathered()
        while self._large:
            self._commit_first_large()
            self._commit_gathered()

    def _commit_gathered(self) -> None:
        group, self._pending, self._pending_changes = self._pending, [], 0
        group = [message for message in group if message.reply.set_running_or_notify_cancel()]
        if not group or self._catalog.failed is not None:
            self._answer()
        if not group:
            return
        if self._catalog.failed is not None:
            self._refuse(group, self._catalog.failed)
            return
        try:
            self._commit(group)
        except BaseException as error:
            if len(group) == 1 or isinstance(error, DirectoryLost) or _is_of_the_disk(error):
                self._refuse(group, self._judge(error))
                return
            self._metrics.count("groups_split")
            for message in group:  # the guilty one fails alone
                self._commit_alone(message)

    def _commit_alone(self, message: Append | Transact) -> None:
        if self._catalog.failed is not None:
            self._refuse([message], self._catalog.failed)
            return
        try:
            self._commit([message])
        except BaseException as error:
            self._refuse([message], self._judge(error))

    def _commit(self, group: Sequence[Operation]) -> None:
        begun = self._clock.monotonic()
        results: list[Any] = []

        def work(commit: Commit) -> None:
            for message in group:
                if isinstance(message, Append):
                    if message.fence is not None:
                        message.fence(commit)
                    results.append(commit.write(message.branch, message.batch))
                else:
                    commit.store_heads()
                    results.append(message.work(commit))
            self._check_directory()

        commit = Commit(self._catalog, self._counters)
        try:
            commit.run(work, self._answer)
        finally:
            self._answer()
        for message in group:
            if isinstance(message, CommitSwitch):
                failpoint("switch.committed")
                message.settle(results[-1])
        self._metrics.observe("commit", (self._clock.monotonic() - begun) * 1000)
        self._metrics.count("commits")
        self._metrics.count("changes", commit.changes)
        if commit.changes:
            self._catalog.short = None
        metadata = any(isinstance(message, Transact | CommitSwitch) for message in group)
        self._committed({branch: head for branch, (head, _) in commit.heads.items()}, metadata)
        self._unanswered = list(zip(group, results, strict=True))
        if metadata:
            self._answer()

    def _answer(self) -> None:
        """Tell the writers of the last group that it is on disk.

        When more has gathered meanwhile this happens just before the next commit waits for the disk. Otherwise they
        all wake up while this thread fills the next transaction, and each of its calls into LMDB, which lets go of the
        interpreter, starts a scramble for it; now they have it while the disk works.
        """
        answers, self._unanswered = self._unanswered, []
        for message, result in answers:
            message.reply.set_result(result)

    def _refuse(self, group: Sequence[Operation], error: BaseException) -> None:
        for message in group:
            message.reply.set_exception(error)

    def _judge(self, error: BaseException) -> BaseException:
        """The error for callers. After an I/O error (not a full disk) the environment is not written to again:
        the kernel may have dropped the dirty pages, and an fsync that succeeds later would prove nothing. Nor after
        DirectoryLost: what comes back to the path may have been written to meanwhile.
        A write that a full disk cut short is no I/O error: `disk.fell_short` has found that before.
        """
        if isinstance(error, DirectoryLost):
            self._catalog.failed = error
            self._crashed(self.name, error)
            return error
        if isinstance(error, ShadowSwitchError) and not _is_of_the_disk(error):
            self._note_short(error)
            return error
        if _is_of_the_disk(error):
            self._catalog.failed = CorruptData(
                f"the disk failed while the catalog was written: {error}",
                operation="commit",
                hint="nothing of this was acknowledged; check the disk, then close and open the engine again",
                cause=error,
            )
            self._crashed(self.name, error)
            return self._catalog.failed
        found = wrap(error, self.name)
        self._note_short(found)
        if isinstance(found, InternalFailure):
            self._crashed(self.name, error)
        return found

    def _note_short(self, error: BaseException) -> None:
        if isinstance(error, StorageFull | ResourceExhausted):
            self._catalog.short = error

    def on_stop(self) -> None:
        """Commit what has gathered: its `Flush` may stand behind the stop."""
        self._commit_pending()
        self._answer()
        super().on_stop()

    def recover(self, message: Any, error: BaseException) -> None:
        """Read the counters again from what is durable; refuse what had gathered."""
        pending, self._pending, self._pending_changes, self._large = self._pending + self._large, [], 0, []
        self._refuse([m for m in pending if m.reply.set_running_or_notify_cancel()], wrap(error, self.name))
        self._flush_sent = False
        self._answer()
        self._counters = Counters(self._catalog)


def _is_large(batch: Batch) -> bool:
    return batch.size_bytes >= LARGE_BYTES or len(batch) >= GROUP_CHANGES_MAX


def _is_behind(message: Append, waiting: list[Append]) -> bool:
    """Is a write of its branch among those that wait?"""
    return any(one.branch == message.branch for one in waiting)


def _is_of_the_disk(error: BaseException) -> bool:
    """Did the disk fail? Then nothing is written again, not even to find the cause."""
    return _is_io_error(error) or _is_io_error(error.__cause__)


def _is_io_error(error: BaseException | None) -> bool:
    """An error of the disk other than lack of space."""
    if isinstance(error, lmdb.PanicError):
        return True
    if isinstance(error, lmdb.DiskError | lmdb.Error):
        code = error.args[1] if len(error.args) > 1 else None
        text = str(error)
        return code == errno.EIO or "Input/output error" in text
    return isinstance(error, OSError) and error.errno == errno.EIO
