"""The BranchActor: admits the writes of one branch and serialises its switches. One for each branch in use.

Its mailbox is the line in which writes and switches of a branch stand: it handles one message at a time and passes them
on to the JournalWriter in that order, where the transaction of a switch is behind every write admitted before it, and
before every other. So a switch needs no lock and keeps no writer out, and no crash can leave a branch closed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from shadowswitch.actors.branch.lifecycle import BranchLife
from shadowswitch.actors.branch.lock_queries import LockQueries
from shadowswitch.actors.house import House
from shadowswitch.actors.journal_writer import CommitSwitch
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.messages import Append, Write
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.failpoints import failpoint


class Load:
    """What a BranchActor was sent and has handled; when they are equal it has nothing to do."""

    def __init__(self) -> None:
        self.sent = 0
        self.handled = 0


class BranchActor(EngineActor):
    """Owns one branch: its locks, what may be written, and in which order writes and switches are committed."""

    def __init__(self, house: House, row: BranchRow, load: Load) -> None:
        super().__init__(f"shadowswitch-branch-{row.number}", house.crashed)
        self._house = house
        self._row = row
        self._load = load
        self._locks = house.locks.of(row)
        self.handles(Write, self._write)
        self.handles(CommitSwitch, self._commit_switch)
        for part in (self._locks, LockQueries(self._locks), BranchLife(house, self._locks)):
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
        fence = partial(self._locks.fence, message.owner, message.tokens) if message.tokens else None
        self._house.journal.tell(Append(self._row.number, message.batch, message.reply, fence))

    def _commit_switch(self, message: CommitSwitch) -> None:
        """The switch takes its place in the line: every write that this branch admitted before is committed before it
        (SW-3), every later one behind it. Nobody waits here."""
        failpoint("switch.sealed")
        self._house.journal.tell(message)
