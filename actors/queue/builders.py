"""The Builders: the running ShadowBuilders, and which build gets one.

A build without a place in the BuildQueue, and a paused one, has no builder and no worker process: it goes on from what
its shards have stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pykka

from shadowswitch.actors.build.builder import BeginBuild, StopBuild
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import Address, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.queue.build_queue import held_place
from shadowswitch.model.errors import InvalidTransition, ResourceExhausted
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

STOP_TIMEOUT_S = 30.0
UNDER_BUILD = (ShadowState.PREPARING, ShadowState.BUILDING)
StartBuilder = Callable[[ShadowRow, int], pykka.ActorRef[Any]]
"""Starts a ShadowBuilder for a shadow, with at most so many parallel workers."""


class Builders:
    """The builders of an engine. Any thread; external builds have none."""

    def __init__(self, context: EngineContext, builds: RunningBuilds, start_builder: StartBuilder) -> None:
        self._context = context
        self._builds = builds
        self._queue = builds.queue
        self._start_builder = start_builder
        self._lock = threading.Lock()
        self._running: dict[str, Address] = {}
        self._dead: set[str] = set()
        """Shadows whose builder ended, of which `mend` has not looked whether they need another."""
        self._closed = False

    def start(self, row: ShadowRow) -> None:
        """Start, or go on with, a build that is PREPARING or BUILDING, once it has a place. Again: no effect."""
        with self._lock:
            self._forget_ended()
            self._enter(row)
            self._fill_places()

    def start_all(self, rows: Iterable[ShadowRow]) -> None:
        """At an open: builds that had a place when the engine stopped come first, then the others in their order."""
        rows = list(rows)
        with self._lock:
            for row in rows:
                self._enter(row, held_place(row))
            behind = set(self._queue.waiting()[self._queue.places :])
        for row in rows:
            if row.id in behind and held_place(row):  # there are fewer places than before
                self._context.transact(partial(transitions.note_queued, shadow_id=row.id), "queue build")
        with self._lock:
            self._fill_places()

    def leave_place(self, shadow_id: str) -> None:
        """A build does not work any more, or does not wait any more: the next one has its place. Again: no effect."""
        with self._lock:
            self._queue.leave(shadow_id)
            self._fill_places()

    def set_priority(self, shadow_id: str, priority: int) -> None:
        """Another place in the queue, for a build that waits."""
        with self._lock:
            self._queue.set_priority(shadow_id, priority)

    def tell(self, shadow_id: str, message: Any) -> None:
        """Send a message to the builder of a shadow, if one runs."""
        with self._lock:
            address = self._running.get(shadow_id)
        if address is not None:
            address.tell(message)

    def stop(
        self, shadow_id: str, work: Callable[[Commit], Any], what: str, is_so: Callable[[ShadowRow], bool]
    ) -> bool:
        """Make the transition that ends the work of a build, in its builder or, where none runs, here.

        When this returns, the build writes no file any more, and its place is free. `is_so` looks whether the
        transition was made although the answer was lost. True if it was made in the builder.
        """
        with self._lock:
            address = self._running.get(shadow_id)
            if address is None or not address.ref.is_alive():
                self._queue.leave(shadow_id)  # from now on no builder is started for it
                address = None
        if address is not None and self._stopped(shadow_id, address, StopBuild(work, what, Reply()), is_so):
            return True
        try:
            self._context.transact(work, what)
        except BaseException:
            self.start(self._context.catalog.shadow(shadow_id))
            raise
        self.leave_place(shadow_id)
        return False

    def _stopped(
        self, shadow_id: str, address: Address, message: StopBuild, is_so: Callable[[ShadowRow], bool]
    ) -> bool:
        """Has the builder made the transition? False when it had ended before."""
        address.tell(message)
        try:
            result_of(message.reply, STOP_TIMEOUT_S, message.what)
        except InvalidTransition:
            return False
        except Exception:
            if is_so(self._context.catalog.shadow(shadow_id)):
                return True
            if address.ref.is_alive():
                raise
            return False
        with self._lock:  # all that is left of it is its end, and another builder may begin
            if self._running.get(shadow_id) is address:
                del self._running[shadow_id]
                self._builds.meters.pop(shadow_id, None)
        return True

    def count(self) -> int:
        """How many builders run."""
        with self._lock:
            self._forget_ended()
            return len(self._running)

    def queued(self) -> int:
        """How many builds wait for a place."""
        return len(self._queue.waiting())

    def share_given(self) -> float:
        """1, or less while builds give way to writers."""
        return self._builds.way.share

    def mend(self) -> list[str]:
        """Start a builder in the place of each that died. Returns the ids of their shadows."""
        with self._lock:
            self._forget_ended()
            dead, self._dead = self._dead - set(self._running), set()
        rows = [row for row in map(self._context.catalog.find_shadow, dead) if row is not None]
        rows = [row for row in rows if row.state in UNDER_BUILD and not row.paused_by]
        for row in rows:
            self.start(row)
        return [row.id for row in rows]

    def close(self, timeout_s: float) -> None:
        """Stop all builders; their builds go on at the next start."""
        with self._lock:
            self._closed = True
            builders, self._running = list(self._running.values()), {}
        for address in builders:
            if address.ref.is_alive():
                address.stop(timeout_s)

    # -- under the lock ------------------------------------------------------------------------------------------------

    def _enter(self, row: ShadowRow, held: bool = False) -> None:
        """Into the queue. An external build needs no place."""
        if not (self._closed or row.external or row.paused_by) and row.state in UNDER_BUILD:
            self._queue.join(row, held)

    def _fill_places(self) -> None:
        self._forget_ended()
        while not self._closed and (shadow_id := self._queue.next()) is not None:
            row = self._context.catalog.find_shadow(shadow_id)
            if row is None or row.paused_by or row.state not in UNDER_BUILD:
                self._queue.leave(shadow_id)
            else:
                self._begin(row)

    def _begin(self, row: ShadowRow) -> None:
        if row.id in self._running:
            return
        workers = make_spec(row.index_type, row.resource_types, row.build_config).parallel_workers
        try:
            address = Address(partial(self._start_builder, row, workers))
        except ResourceExhausted as error:  # the claim is durable: `mend` starts the builder once there is a thread
            logger.warning("shadow %s waits for its builder: %s", row.id, error)
            self._builds.stuck[row.id] = str(error)
            self._dead.add(row.id)
            self._queue.leave(row.id)
            return
        self._running[row.id] = address
        address.tell(BeginBuild())

    def _forget_ended(self) -> None:
        for shadow_id, address in list(self._running.items()):
            if not address.ref.is_alive():
                del self._running[shadow_id]
                self._dead.add(shadow_id)
                self._queue.leave(shadow_id)
                self._builds.meters.pop(shadow_id, None)
