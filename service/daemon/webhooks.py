"""Webhooks: events of the durable log are sent to endpoints, each event at least once and in order for each endpoint.

    POST <url>
    Content-Type: application/cloudevents+json; charset=utf-8
    webhook-id: <event id>                  the same each time it is sent: forget what was seen before
    webhook-timestamp: 1795467600           seconds since the epoch
    webhook-signature: v1,<base64>          HMAC-SHA256 over "<id>.<timestamp>.<body>", see standardwebhooks.com

Any 2xx is a delivery. Everything else is tried again with growing pauses, and nothing later is sent before; 410 Gone
ends the sending until the next start. The position is durable, so a restart goes on where it was, and repeats at most
what was not noted. Events that were removed meanwhile (`Config.events_keep`) are skipped, and counted.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError
from shadowswitch.model.views import Event
from shadowswitch.service.daemon.delivery import Endpoint, Refused, send, signature

logger = logging.getLogger("shadowswitch")

PAGE = 100
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 300.0
STOP_TIMEOUT_S = 3.0
"""Longer nobody waits for an attempt at hand; it ends by itself, and is repeated at the next start."""


class WebhookStatus(msgspec.Struct, frozen=True):
    """How an endpoint stands: `behind` events are yet to be looked at, `missed` ones were removed before."""

    name: str
    position: int
    behind: int
    delivered: int
    failures: int
    missed: int
    error: str | None
    gone: bool


class Webhook:
    """Sends to one endpoint, on a thread of its own. Start it once; stop it before the engine closes."""

    def __init__(
        self,
        engine: Engine,
        endpoint: Endpoint,
        *,
        context: ssl.SSLContext | None = None,
        retry_s: float = RETRY_FIRST_S,
    ) -> None:
        self.endpoint = endpoint
        self._engine = engine
        self._context = context
        self._retry_s = retry_s
        self._wake = threading.Event()
        self._stopping = False
        self._leave: Callable[[], None] = lambda: None
        self._position = 0
        self._noted = 0
        self._delivered = self._failures = self._missed = 0
        self._error: str | None = None
        self._gone = False
        self._thread = threading.Thread(target=self._run, name="shadowswitch-webhook", daemon=True)

    def start(self) -> None:
        """Go on after the event that was noted last; a new endpoint begins with the next event."""
        if self.endpoint.secret:
            signature(self.endpoint.secret, "", 0, b"")
        noted = self._engine.event_position(self.endpoint.key)
        if noted is None:
            noted = self._engine.event_span()[1]
            self._engine.note_event_position(self.endpoint.key, noted)
        self._position = self._noted = noted
        self._leave = self._engine.subscribe(lambda _: self._wake.set())
        self._thread.start()

    def stop(self) -> None:
        """End; an attempt at hand is not waited for long. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._leave()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def status(self) -> WebhookStatus:
        """As of now. Any thread."""
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

    def _run(self) -> None:
        try:
            while not self._stopping and not self._gone:
                self._wake.clear()
                try:
                    while self._page():
                        pass
                except EngineClosed:
                    raise
                except ShadowSwitchError as error:
                    logger.error("webhook %s: %s", self.endpoint.label, error)
                    self._error = str(error)
                    self._wait(self._retry_s)
                if not self._stopping:
                    self._wake.wait(1.0)
        except EngineClosed:
            return

    def _page(self) -> bool:
        """Send one page of the log; False when there is no more, or it is to end."""
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
        return bool(events) and not self._stopping

    def _deliver(self, event: Event) -> bool:
        """Try until it is taken; False when it is to end first."""
        pause_s = self._retry_s
        while not self._stopping:
            try:
                send(self.endpoint, event, self._context)
            except Refused as error:
                self._failures += 1
                self._error = str(error)
                logger.warning("webhook %s, event %d: %s", self.endpoint.label, event.sequence, error)
                if error.gone:
                    self._gone = True
                    return False
                self._wait(max(pause_s * random.uniform(0.8, 1.2), error.retry_after_s))
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                self._delivered += 1
                self._error = None
                return True
        return False

    def _note(self, sequence: int) -> None:
        self._engine.note_event_position(self.endpoint.key, sequence)
        self._noted = sequence

    def _wait(self, pause_s: float) -> None:
        ends = time.monotonic() + pause_s
        while not self._stopping and (left := ends - time.monotonic()) > 0:
            self._wake.wait(min(left, 1.0))
            if not self._stopping:
                self._wake.clear()
