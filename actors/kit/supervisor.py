"""The Supervisor: a list of crashes, and the restart of dead actors.

An actor of this engine recovers when a handler fails (see `actors.kit.actor`). So an actor dies only when code outside
the engine stops it, for example a host that calls `ActorRegistry.stop_all()`. The timers call `mend` once a second.
`mend` starts dead actors again, each with growing pauses. After `RESTARTS_MAX` restarts an actor stays dead, and every
call that needs it fails with that reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from shadowswitch.actors.kit.actor import Address
from shadowswitch.model.errors import ResourceExhausted
from shadowswitch.storage.clock import Clock

logger = logging.getLogger("shadowswitch")

RESTARTS_MAX = 20
PAUSE_MAX_S = 30.0
CRASHES_KEPT = 50


class Supervisor:
    """One for each engine. `crashed`: any thread. `mend`: the thread of the timers."""

    def __init__(self, clock: Clock) -> None:
        self.crashes: list[dict[str, Any]] = []
        self._clock = clock
        self._restarts: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def crashed(self, name: str, error: BaseException) -> None:
        """A handler of an actor failed in an unforeseen way; the actor has recovered."""
        del self.crashes[: max(0, len(self.crashes) - CRASHES_KEPT + 1)]
        self.crashes.append({"actor": name, "error": repr(error), "at": self._clock.wall()})

    def mend(self, core: dict[str, Address], mend_builds: Callable[[], list[str]]) -> None:
        """Start dead actors again. `mend_builds` starts dead builders again and returns the ids of their shadows."""
        for name, address in core.items():
            if address.ref.is_alive():
                continue
            count = self._restarts.get(name, 0)
            if count >= RESTARTS_MAX or self._clock.monotonic() < self._not_before.get(name, 0.0):
                continue
            self._not_before[name] = self._clock.monotonic() + min(PAUSE_MAX_S, 2.0**count)
            logger.error("%s is gone; starting it again (%d)", name, count + 1)
            try:
                address.restart_if_dead()
            except ResourceExhausted as error:  # this is no restart that failed: it is tried for ever
                logger.error("%s cannot be started now: %s", name, error)
            else:
                self._restarts[name] = count + 1
        for shadow_id in mend_builds():
            logger.error("shadow %s had no builder; its build goes on", shadow_id)
