"""The base of the daemon's parts: one thread that works in rounds until it is stopped."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError
from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")

AUTHOR = "settings"
"""The author, in the audit history, of what a settings file brings about."""
CHANGED = "the settings changed"

ROUND_RETRY_S = 5.0


class Part(ABC):
    """Start a part once, and stop it before the engine closes. A closed engine ends the thread as well."""

    first_wait_s: float | None = 0.0
    """Seconds from the start to the first round; None: the first round waits for a wake-up."""
    stop_timeout_s = 30.0
    """`stop` waits this long for the round at hand."""

    def __init__(self, engine: Engine, kind: str, subject: str = "") -> None:
        self.name = f"{kind} {subject}".rstrip()
        self._engine = engine
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=f"shadowswitch-{kind}", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises ResourceExhausted when the system gives none."""
        with shortages("start a thread", self.name):
            self._thread.start()

    def stop(self) -> None:
        """End the thread after the round at hand. Idempotent."""
        self._stopping.set()
        self._wake.set()
        self._unsubscribe()
        if self._thread.is_alive():
            self._thread.join(self.stop_timeout_s)

    def _run(self) -> None:
        wait_s = self.first_wait_s
        while True:
            self._wake.wait(wait_s)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                wait_s = self._round()
            except EngineClosed:
                return
            except Exception as error:
                wait_s = self._failed(error)

    @abstractmethod
    def _round(self) -> float | None:
        """One round of work. Returns the seconds until the next round; None: the next round waits for a wake-up."""

    def _failed(self, error: Exception) -> float:
        """A round raised `error`. Returns the seconds until the next round."""
        foreseen = isinstance(error, ShadowSwitchError | OSError)
        logger.error("%s failed, and is tried again: %s", self.name, error, exc_info=None if foreseen else error)
        return ROUND_RETRY_S
