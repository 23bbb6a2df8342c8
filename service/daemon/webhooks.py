"""Webhooks: each endpoint receives the events of the log in order, each event at least once.

    POST <url>
    Content-Type: application/cloudevents+json; charset=utf-8
    webhook-id: <event id>                  equal for every attempt, so that the receiver can drop repeats
    webhook-timestamp: 1795467600           seconds since the epoch
    webhook-signature: v1,<base64>          HMAC-SHA256 over "<id>.<timestamp>.<body>", see standardwebhooks.com

A 2xx answer is a delivery. After any other answer the webhook tries the same event again, with growing pauses, before
it sends a later event. 410 Gone ends the webhook until the next start. The position is durable: after a restart the
webhook continues, and repeats at most the events after the noted position. It skips and counts the events that
retention removed (`Config.events_keep`).
"""

from __future__ import annotations

import logging
import random
import ssl

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.views import Event
from shadowswitch.service.daemon.delivery import DeliveryFailed, Endpoint, checked_url, send, signature
from shadowswitch.service.daemon.part import Part

logger = logging.getLogger("shadowswitch")

PAGE = 100
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 300.0
POLL_S = 1.0
"""The log is read this often even without a notice."""


class WebhookStatus(msgspec.Struct, frozen=True):
    """The progress of an endpoint: `behind` events are still to come, `missed` events were removed too early."""

    name: str
    position: int
    behind: int
    delivered: int
    failures: int
    missed: int
    error: str | None
    gone: bool


class Webhook(Part):
    """Sends to one endpoint, on its own thread."""

    stop_timeout_s = 3.0
    """An attempt at hand ends by itself; the next start repeats it."""

    def __init__(
        self,
        engine: Engine,
        endpoint: Endpoint,
        *,
        context: ssl.SSLContext | None = None,
        retry_s: float = RETRY_FIRST_S,
    ) -> None:
        """`retry_s` is the first pause after a failure, in seconds. Raises InvalidConfig for a URL that cannot be."""
        checked_url(endpoint.url)
        super().__init__(engine, "webhook", endpoint.label)
        self.endpoint = endpoint
        self._context = context
        self._retry_s = retry_s
        self._position = 0
        self._noted = 0
        self._delivered = self._failures = self._missed = 0
        self._error: str | None = None
        self._gone = False

    def start(self) -> None:
        """Continue after the noted position. A new endpoint starts with the next event. Raises InvalidConfig."""
        if self.endpoint.secret:
            signature(self.endpoint.secret, "", 0, b"")  # an invalid secret is refused here
        noted = self._engine.event_position(self.endpoint.key)
        if noted is None:
            noted = self._engine.event_span()[1]
            self._engine.note_event_position(self.endpoint.key, noted)
        self._position = self._noted = noted
        self._unsubscribe = self._engine.subscribe(lambda _: self._wake.set())
        super().start()

    def status(self) -> WebhookStatus:
        """The status now. Any thread."""
        newest = self._engine.event_span()[1]
        return WebhookStatus(
            self.endpoint.label,
            self._position,
            max(0, newest - self._position),
            self._delivered,
            self._failures,
            self._missed,
            self._error,
            self._gone,
        )

    def _round(self) -> float:
        """Send the rest of the log."""
        while self._send_page():
            pass
        return POLL_S

    def _failed(self, error: Exception) -> float:
        """A round raised `error`, whichever it is: count it, and try again."""
        super()._failed(error)
        self._failures += 1
        self._error = str(error) or type(error).__name__
        return self._retry_s

    def _send_page(self) -> bool:
        """Send one page of the log. Returns False at the end of the log, and at the end of the webhook."""
        events = self._engine.events(self._position, PAGE)
        for event in events:
            if event.sequence > self._position + 1:
                self._missed += event.sequence - self._position - 1
                logger.error("webhook %s misses %d events", self.endpoint.label, event.sequence - self._position - 1)
            if self.endpoint.wants(event.type):
                if not self._deliver(event):
                    return False
                self._note(event.sequence)
            self._position = event.sequence
        if self._position != self._noted:
            self._note(self._position)
        return bool(events) and not self._stopping.is_set()

    def _deliver(self, event: Event) -> bool:
        """Send until the endpoint takes the event. Returns False when the webhook ends first."""
        pause_s = self._retry_s
        while not self._stopping.is_set():
            try:
                send(self.endpoint, event, self._context)
            except DeliveryFailed as error:
                self._failures += 1
                self._error = str(error)
                logger.warning("webhook %s, event %d: %s", self.endpoint.label, event.sequence, error)
                if error.gone:
                    self._gone = True
                    self._stopping.set()
                self._stopping.wait(max(pause_s * random.uniform(0.8, 1.2), error.retry_after_s))
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                self._delivered += 1
                self._error = None
                return True
        return False

    def _note(self, sequence: int) -> None:
        self._engine.note_event_position(self.endpoint.key, sequence)
        self._noted = sequence
