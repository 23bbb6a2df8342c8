"""Which BranchActors run. They start when somebody sends to their branch and stop when they have been idle.

A message is put into a mailbox only under the lock under which an idle actor is taken out of the map, so that none is
ever sent to an actor that is about to stop. An actor is idle when it has handled all that it was sent, and nobody waits
for a lock: so no message, no lock and no waiter is lost, and a branch never has two actors at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shadowswitch.actors.branch.actor import BranchActor, Load
from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import Address, fail_reply
from shadowswitch.model.errors import EngineClosed
from shadowswitch.storage.catalog.rows import BranchRow

STOPPED_AT_ONCE = 16
"""When there are too many actors: so many stop, so that the next ones need not look again."""
DEFERRED_S = 0.02
"""When to look again whether there is room for what can wait."""


class BranchRouter:
    """Sends messages to branches, whose actors come and go."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._lock = threading.Lock()
        self._actors: dict[int, Address] = {}
        self._loads: dict[int, Load] = {}
        self._used: dict[int, float] = {}
        self._closed = False
        self._deferred: deque[tuple[BranchRow, Any]] = deque()

    def tell(self, row: BranchRow, message: Any) -> None:
        """Send to a branch's actor, starting it if need be."""
        with self._lock:
            self._tell(row, message)

    def _tell(self, row: BranchRow, message: Any) -> None:
        """Under the lock."""
        if self._closed:
            fail_reply(message, EngineClosed("the engine is closed", hint="open it again"))
            return
        address = self._actors.get(row.number)
        if address is None or not address.ref.is_alive():
            self._make_room()
            load = self._loads[row.number] = Load()
            address = Address(lambda: BranchActor.start(self._house, row, load))
            self._actors[row.number] = address
        self._loads[row.number].sent += 1
        self._used.pop(row.number, None)  # so that the map is in the order of use
        self._used[row.number] = time.monotonic()
        address.tell(message)

    def tell_soon(self, row: BranchRow, message: Any) -> None:
        """Send what nobody waits for, such as a sweep of expired locks: later, if too many branches are awake.

        When ten thousand locks expire at one moment their branches are swept a hundred at a time. Nobody feels that:
        whoever asks about an expired lock is told so at once, and a branch with a waiter is awake.
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
                if len(self._actors) >= self._house.config.branch_actors_max:
                    self._house.timers.after(DEFERRED_S, self._send_deferred)
                    return
                try:
                    self._tell(*self._deferred[0])
                except RuntimeError:  # the system gives no more threads just now
                    self._house.timers.after(1.0, self._send_deferred)
                    raise
                self._deferred.popleft()

    def stop_idle(self, idle_s: float) -> int:
        """Stop the actors that have had nothing to do for `idle_s` seconds; returns how many."""
        with self._lock:
            long_ago = time.monotonic() - idle_s
            return self._stop_unused(lambda used: used < long_ago, len(self._actors))

    def _make_room(self) -> None:
        """Before one more is started: the threads of those that were used longest ago go to sleep early."""
        if len(self._actors) >= self._house.config.branch_actors_max:
            self._stop_unused(lambda _: True, STOPPED_AT_ONCE)

    def _stop_unused(self, long_enough: Callable[[float], bool], most: int) -> int:
        """Stop up to `most` idle actors, those first that were used longest ago. Under the lock."""
        stopped: list[int] = []
        for number, used in self._used.items():
            if len(stopped) == most or not long_enough(used):
                break
            if self._is_idle(number):
                stopped.append(number)
        for number in stopped:
            del self._used[number], self._loads[number]
            self._actors.pop(number).ref.stop(block=False)  # it has nothing left to handle
            if self._house.locks.get(number).forgettable:
                self._house.locks.forget(number)
        return len(stopped)

    def _is_idle(self, number: int) -> bool:
        load = self._loads[number]
        return load.sent == load.handled and not self._house.locks.get(number).waiting

    def running(self) -> int:
        """How many branch actors run."""
        return len(self._actors)

    def close(self, timeout_s: float) -> None:
        """Admit nothing more; let what was admitted end."""
        with self._lock:
            self._closed = True
            actors, self._actors, self._used = list(self._actors.values()), {}, {}
        deadline = time.monotonic() + timeout_s
        for address in actors:
            address.stop(max(0.1, deadline - time.monotonic()))
        for keeper in self._house.locks.all():
            keeper.close()
