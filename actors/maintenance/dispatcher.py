"""The Dispatcher: delivers events from the durable outbox, in order, to the subscribers of this process.

An event is in the outbox if and only if the transition that it tells of was committed, because both are in one
transaction.
A subscriber that raises keeps its place and gets the same event again, with growing pauses: at least once, in order.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.maintenance.subscribers import Subscriber
from shadowswitch.actors.messages import Kick, Tick
from shadowswitch.model.views import Event
from shadowswitch.storage.catalog.rows import EventRow

logger = logging.getLogger("shadowswitch")

BATCH = 100


def event_of(row: EventRow, uuid: str) -> Event:
    """An outbox row as a CloudEvent."""
    time_ = datetime.fromtimestamp(row.time, UTC)
    return Event(row.sequence, row.id, row.type, f"/shadowswitch/{uuid}", row.subject, time_, row.data)


class Dispatcher(EngineActor):
    """Calls subscribers on its own thread; a slow one delays the others, a failing one does not."""

    def __init__(self, house: House) -> None:
        super().__init__("shadowswitch-dispatcher", house.crashed)
        self._house = house
        self.handles(Kick, lambda _: self._deliver())
        self.handles(Tick, lambda _: self._deliver())

    def _deliver(self) -> None:
        for subscriber in self._house.subscribers.present():
            if time.monotonic() >= subscriber.not_before:
                self._deliver_to(subscriber)

    def _deliver_to(self, subscriber: Subscriber) -> None:
        while rows := self._house.catalog.events(subscriber.after, BATCH):
            if rows[0].sequence > subscriber.after + 1:
                logger.warning("events %d to %d were removed undelivered", subscriber.after + 1, rows[0].sequence - 1)
                self._house.metrics.count("events_missed", rows[0].sequence - subscriber.after - 1)
            for row in rows:
                if subscriber.left:
                    return
                try:
                    subscriber.callback(event_of(row, self._house.catalog.uuid))
                except Exception:
                    logger.exception("a subscriber failed on event %d; it will get it again", row.sequence)
                    subscriber.failed(time.monotonic())
                    return
                subscriber.took(row.sequence)
