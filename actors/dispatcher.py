"""The Dispatcher: delivers events from the durable outbox, in order, to the subscribers of this process.

An event is in the outbox if and only if the transition that it tells of was committed, because both are in one
transaction.
A subscriber that raises keeps its place and gets the same event again, with growing pauses: at least once, in order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from shadowswitch.actors.base import EngineActor
from shadowswitch.actors.house import House
from shadowswitch.actors.messages import Kick, Subscribe, Tick, Unsubscribe
from shadowswitch.model.views import Event
from shadowswitch.storage.rows import EventRow

logger = logging.getLogger("shadowswitch")

BATCH = 100
PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 30.0


def event_of(row: EventRow, uuid: str) -> Event:
    """An outbox row as a CloudEvent."""
    time_ = datetime.fromtimestamp(row.time, UTC)
    return Event(row.sequence, row.id, row.type, f"/shadowswitch/{uuid}", row.subject, time_, row.data)


class _Subscriber:
    def __init__(self, callback: Callable[[Event], None], after: int) -> None:
        self.callback = callback
        self.after = after
        self.pause_s = PAUSE_FIRST_S
        self.not_before = 0.0


class Dispatcher(EngineActor):
    """Calls subscribers on its own thread; a slow one delays the others, a failing one does not."""

    def __init__(self, house: House) -> None:
        super().__init__("shadowswitch-dispatcher", house.crashed)
        self._house = house
        self._subscribers: list[_Subscriber] = []
        self.handles(Subscribe, self._subscribe)
        self.handles(Unsubscribe, self._unsubscribe)
        self.handles(Kick, lambda _: self._deliver())
        self.handles(Tick, lambda _: self._deliver())

    def _subscribe(self, message: Subscribe) -> None:
        self._subscribers.append(_Subscriber(message.callback, message.after))
        self._deliver()

    def _unsubscribe(self, message: Unsubscribe) -> None:
        self._subscribers = [s for s in self._subscribers if s.callback is not message.callback]

    def _deliver(self) -> None:
        for subscriber in self._subscribers:
            if time.monotonic() >= subscriber.not_before:
                self._deliver_to(subscriber)

    def _deliver_to(self, subscriber: _Subscriber) -> None:
        while rows := self._house.catalog.events(subscriber.after, BATCH):
            for row in rows:
                try:
                    subscriber.callback(event_of(row, self._house.catalog.uuid))
                except Exception:
                    logger.exception("a subscriber failed on event %d; it will get it again", row.sequence)
                    subscriber.not_before = time.monotonic() + subscriber.pause_s
                    subscriber.pause_s = min(2 * subscriber.pause_s, PAUSE_MAX_S)
                    return
                subscriber.after, subscriber.pause_s = row.sequence, PAUSE_FIRST_S
