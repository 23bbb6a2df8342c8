"""The BranchRouter: starts the actor of a branch for its first message, stops actors that have been idle.

A message enters a mailbox only under the lock under which an idle actor leaves the map. So no message reaches an actor
that is about to stop. An actor is idle when it has handled every message that it was sent, and no waiter is in line for
a lock. So no message, no lock and no waiter is lost, and a branch never has two actors at once.

When as many actors run as may, a write to a branch without an actor starts none, if no lock and no state of the branch
stands against it: the lock of the router is then the line of that branch, and the sender's thread passes the write on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.actors.branch.actor import BranchActor, Load
from shadowswitch.actors.branch.lock_progress import BuildProgress
from shadowswitch.actors.branch.lock_queries import CheckWrite
from shadowswitch.actors.branch.lock_registry import LockRegistry
from shadowswitch.actors.branch.locks import Write
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import Append
from shadowswitch.actors.kit.actor import Address, fail_reply
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.model.errors import EngineClosed, ResourceExhausted, no_branch
from shadowswitch.model.locks.refusal import ALLOWED
from shadowswitch.storage.catalog.rows import BranchRow

STOPPED_AT_ONCE = 16
"""When there are too many actors, so many stop: the next starts find room without a search."""
DEFERRED_S = 0.02
"""The pause before the next look for room for deferred messages."""
NO_THREADS_S = 1.0
"""The pause after the system gave no more threads."""


class BranchRouter:
    """Sends messages to branches, and owns their locks. Any thread."""

    def __init__(
        self, context: EngineContext, timers: Timers, progress: BuildProgress, switches: RunningSwitches
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._timers = timers
        self._switches = switches
        self.locks = LockRegistry(context, timers, self.tell_soon, progress)
        """The locks of all branches. They outlive the actors."""
        self._lock = threading.Lock()
        self._actors: dict[int, Address] = {}
        self._loads: dict[int, Load] = {}
        self._used: dict[int, float] = {}
        self._closed = False
        self.dropped = context.shadows.dropped
        """The branches that were dropped since the start, or before and are not removed yet. Only ever grows."""
        self._deferred: deque[tuple[BranchRow, Any]] = deque()

    def tell(self, row: BranchRow, message: Any) -> None:
        """Send to the actor of a branch, which is started if none runs."""
        with self._lock:
            self._tell(row, message)

    def _tell(self, row: BranchRow, message: Any) -> None:
        """Under the lock."""
        if self._closed:
            fail_reply(message, EngineClosed("the engine is closed", hint="open it again"))
            return
        if row.number in self.dropped:  # a caller has its row from before the drop
            fail_reply(message, no_branch(row.name))
            return
        address = self._actors.get(row.number)
        if address is None and self._is_full() and self._passed_on(row, message):
            return
        if address is None or not address.ref.is_alive():
            self._make_room()
            load = self._loads[row.number] = Load()
            address = Address(partial(self._start, row, load))
            self._actors[row.number] = address
        self._loads[row.number].sent += 1
        self._used.pop(row.number, None)  # so that the map is in the order of use
        self._used[row.number] = self._clock.monotonic()
        address.tell(message)

    def _passed_on(self, row: BranchRow, message: Any) -> bool:
        """Do at once what the actor of a branch at rest would do. Under the lock; False if an actor has to look."""
        locks = self.locks.find(row.number)
        if locks is not None and not locks.quiet:
            return False
        if isinstance(message, Write) and not message.tokens:
            self._context.journal.tell(Append(row.number, message.batch, message.reply, message.check))
            return True
        if isinstance(message, CheckWrite) and message.is_plain:
            message.reply.set_result(ALLOWED)
            return True
        return False

    def _is_full(self) -> bool:
        """Do as many actors run as may?"""
        return len(self._actors) >= self._context.config.branch_actors_max

    def _start(self, row: BranchRow, load: Load) -> Any:
        return BranchActor.start(self._context, self.locks.of(row), self._switches, load)

    def tell_soon(self, row: BranchRow, message: Any) -> None:
        """Send a message without a reply, such as `LocksDue`: later, if too many branch actors run.

        When ten thousand locks expire at one moment, a hundred branches at a time are swept. No caller waits for that:
        a question about an expired lock is answered at once, and the actor of a branch with a waiter runs anyway.
        """
        with self._lock:
            if row.number not in self._actors:
                self._deferred.append((row, message))
                if len(self._deferred) > 1:
                    return
            else:
                self._tell(row, message)
                return
        self._send_deferred()

    def _send_deferred(self) -> None:
        with self._lock:
            while self._deferred and not self._closed:
                self._make_room()
                if self._is_full():
                    self._timers.after(DEFERRED_S, self._send_deferred)
                    return
                try:
                    self._tell(*self._deferred[0])
                except ResourceExhausted:  # the system gives no more threads just now
                    self._timers.after(NO_THREADS_S, self._send_deferred)
                    raise
                self._deferred.popleft()

    def stop_idle(self, idle_s: float) -> int:
        """Stop the actors that have been idle for `idle_s` seconds; returns how many."""
        with self._lock:
            long_ago = self._clock.monotonic() - idle_s
            return self._stop_unused(lambda used: used < long_ago, len(self._actors))

    def _make_room(self) -> None:
        """Before one more actor starts: when there are too many, the idle actors with the oldest use stop early."""
        if self._is_full():
            self._stop_unused(lambda _: True, STOPPED_AT_ONCE)

    def _stop_unused(self, long_enough: Callable[[float], bool], most: int) -> int:
        """Stop up to `most` idle actors, the oldest use first. Under the lock."""
        stopped: list[int] = []
        for number, used in self._used.items():
            if len(stopped) == most or not long_enough(used):
                break
            if self._is_idle(number):
                stopped.append(number)
        for number in stopped:
            del self._used[number], self._loads[number]
            self._actors.pop(number).ref.stop(block=False)  # its mailbox is empty
            if self.locks.get(number).forgettable:
                self.locks.forget(number)
        return len(stopped)

    def _is_idle(self, number: int) -> bool:
        load = self._loads[number]
        return load.sent == load.handled and not self.locks.get(number).waiters

    def drop(self, number: int) -> None:
        """The branch was dropped, durably: from now on no message reaches it. Its actor refuses what it has, and stops.

        On the thread of the JournalWriter, behind the commit; for branches of an earlier engine at the start.
        """
        with self._lock:
            self.dropped.add(number)
            self._used.pop(number, None), self._loads.pop(number, None)
            address = self._actors.pop(number, None)
            if address is not None:
                address.ref.stop(block=False)
            self.locks.discard(number)

    def running(self) -> int:
        """How many branch actors run."""
        return len(self._actors)

    def close(self, timeout_s: float) -> None:
        """Admit no more messages; let the admitted ones end; answer the waiters."""
        with self._lock:
            self._closed = True
            actors, self._actors, self._used = list(self._actors.values()), {}, {}
        deadline = self._clock.monotonic() + timeout_s
        for address in actors:
            address.stop(max(0.1, deadline - self._clock.monotonic()))
        for locks in self.locks.all():
            locks.waiters.close()
