"""The Dispatcher: delivers events from the durable outbox, in order, to the subscribers of this process.

An event is in the outbox if and only if its transition was committed: one transaction holds both. A subscriber that
raises keeps its place and gets the same event again, with growing pauses. So delivery is at least once, in order.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.signals import Kick, Tick
from shadowswitch.actors.maintenance.subscribers import Subscriber, Subscribers
from shadowswitch.model.views import Event
from shadowswitch.storage.catalog.rows import EventRow

logger = logging.getLogger("shadowswitch")

BATCH = 100


def event_of(row: EventRow, uuid: str) -> Event:
    """An outbox row as a CloudEvent."""
    time = datetime.fromtimestamp(row.time, UTC)
    return Event(row.sequence, row.id, row.type, f"/shadowswitch/{uuid}", row.subject, time, row.data)


class Dispatcher(EngineActor):
    """Calls subscribers on its own thread; a slow one delays the others, a failing one does not."""

    def __init__(self, context: EngineContext, subscribers: Subscribers) -> None:
        super().__init__("shadowswitch-dispatcher", context.crashed)
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._clock = context.clock
        self._subscribers = subscribers
        self.handles(Kick, lambda _: self._deliver())
        self.handles(Tick, lambda _: self._deliver())

    def _deliver(self) -> None:
        for subscriber in self._subscribers.present():
            if self._clock.monotonic() >= subscriber.not_before:
                self._deliver_to(subscriber)

    def _deliver_to(self, subscriber: Subscriber) -> None:
        while rows := self._catalog.events(subscriber.after, BATCH):
            if rows[0].sequence > subscriber.after + 1:
                logger.warning("events %d to %d were removed undelivered", subscriber.after + 1, rows[0].sequence - 1)
                self._metrics.count("events_missed", rows[0].sequence - subscriber.after - 1)
            for row in rows:
                if subscriber.left:
                    return
                try:
                    subscriber.callback(event_of(row, self._catalog.uuid))
                except Exception:
                    logger.exception("a subscriber failed on event %d; it will get it again", row.sequence)
                    subscriber.failed(self._clock.monotonic())
                    return
                subscriber.took(row.sequence)
