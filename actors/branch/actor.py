"""The BranchActor: admits the writes of one branch and serialises its switches. One for each branch in use.

Its mailbox is the line in which writes and switches of a branch stand. It handles one message at a time and passes
writes and switches on to the JournalWriter in that order. There the transaction of a switch is behind every write
admitted before it, and before every other. So a switch needs no lock and keeps no writer out, and no crash can leave a
branch closed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.actors.branch.dropping import DROP_TIMEOUT_S, DropBranch, uses_of
from shadowswitch.actors.branch.lifecycle import BranchLife
from shadowswitch.actors.branch.lock_queries import LockQueries
from shadowswitch.actors.branch.lock_requests import LockRequests
from shadowswitch.actors.branch.locks import BranchLocks, Write, answer
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import Append, CommitSwitch
from shadowswitch.actors.kit.actor import EngineActor, fail_reply, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.model.errors import no_branch
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint


class Load:
    """How many messages a BranchActor was sent and has handled. Equal numbers: it is idle."""

    def __init__(self) -> None:
        self.sent = 0
        self.handled = 0


class BranchActor(EngineActor):
    """Owns one branch: its locks, the admission of writes, and the order in which writes and switches are committed."""

    def __init__(self, context: EngineContext, locks: BranchLocks, switches: RunningSwitches, load: Load) -> None:
        super().__init__(f"shadowswitch-branch-{locks.row.number}", context.crashed)
        self._journal = context.journal
        self._row = locks.row
        self._load = load
        self._locks = locks
        self._catalog = context.catalog
        self._switches = switches
        self._fence: Callable[[Commit], object] | None = None
        """Asked in the transaction of each write, once a drop has begun: its outcome may be unknown."""
        self.handles(Write, self._write)
        self.handles(CommitSwitch, self._commit_switch)
        self.handles(DropBranch, partial(answer, self._drop))
        life = BranchLife(context.catalog, switches, locks)
        for part in (locks, LockRequests(context.metrics, locks), LockQueries(locks), life):
            for kind, handler in part.handlers().items():
                self.handles(kind, handler)

    def on_receive(self, message: Any) -> None:
        """Handle one message, and count it."""
        try:
            super().on_receive(message)
        finally:
            self._load.handled += 1

    def _write(self, message: Write) -> None:
        self._locks.admit(message)
        failpoint("write.admitted")
        fence = partial(self._locks.fence, message.owner, message.tokens) if message.tokens else self._fence
        if message.check is not None:
            fence = partial(_both, fence, message.check)
        self._journal.tell(Append(self._row.number, message.batch, message.reply, fence))

    def _commit_switch(self, message: CommitSwitch) -> None:
        """The switch takes its place in the line: every write that this branch admitted before is committed before it
        (SW-3), every later one behind it. This actor does not wait."""
        failpoint("switch.sealed")
        self._journal.tell(message)

    def _drop(self, message: DropBranch) -> None:
        """Behind every write that was admitted before. From then on every message is refused."""
        uses = uses_of(self._catalog, self._locks, self._switches, message.own)
        self._fence = partial(Commit.branch, number=self._row.number)
        reply: Reply[Any] = Reply()
        self._journal.tell(CommitSwitch(lambda: None, message.work(uses), message.settle, reply))
        result_of(reply, DROP_TIMEOUT_S, "the drop of the branch")
        for kind in list(self._handlers):
            self.handles(kind, self._refuse)

    def _refuse(self, message: Any) -> None:
        fail_reply(message, no_branch(self._row.name))


def _both(fence: Callable[[Commit], object] | None, check: Callable[[Commit], object], commit: Commit) -> None:
    if fence is not None:
        fence(commit)
    check(commit)
