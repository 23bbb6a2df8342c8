"""Supervision: who crashed, and starting again what is gone.

An actor of this engine mends itself when a handler fails (see `base`), so it dies only when somebody outside stops
it, for
example a host that calls `ActorRegistry.stop_all()`. The timers look once a second and start again what is gone,
with growing pauses; after too many restarts of one part it is left down, and what needs it fails with that reason.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from shadowswitch.actors.build.registry import BuildRegistry
from shadowswitch.actors.kit.actor import Address

logger = logging.getLogger("shadowswitch")

RESTARTS_MAX = 20
PAUSE_MAX_S = 30.0
CRASHES_KEPT = 50


class Supervisor:
    """Keeps a list of crashes; restarts parts. `crashed` may be called from any thread, `mend` by the timers."""

    def __init__(self) -> None:
        self.crashes: list[dict[str, Any]] = []
        self._restarts: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def crashed(self, name: str, error: BaseException) -> None:
        """An actor's handler failed in an unforeseen way; it has mended itself."""
        del self.crashes[: max(0, len(self.crashes) - CRASHES_KEPT + 1)]
        self.crashes.append({"actor": name, "error": repr(error), "at": time.time()})

    def mend(self, core: dict[str, Address], builds: BuildRegistry) -> None:
        """Start again what is gone."""
        for name, address in core.items():
            if address.ref.is_alive():
                continue
            count = self._restarts.get(name, 0)
            if count >= RESTARTS_MAX or time.monotonic() < self._not_before.get(name, 0.0):
                continue
            self._restarts[name] = count + 1
            self._not_before[name] = time.monotonic() + min(PAUSE_MAX_S, 2.0**count)
            logger.error("%s is gone; starting it again (%d)", name, count + 1)
            address.restart_if_dead()
        for shadow_id in builds.mend():
            logger.error("the builder of shadow %s is gone; it goes on", shadow_id)
