"""Service threads: the threads of an engine that are no actors, because they block on a clock, a socket or a process.

name    begins with `shadowswitch-`, so that a stack dump says what the thread is for
daemon  an interpreter that exits does not wait for it
end     `run` returns. A service thread is never killed: its owner makes `run` return, then calls `join`
error   an exception that leaves `run` ends the thread and is logged; the owner is not informed
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")


class ServiceThread(ABC):
    """Base of all service threads. `start` and `join`: any thread."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._guarded, name=f"shadowswitch-{name}", daemon=True)

    def start(self) -> None:
        """Begin `run`. Raises ResourceExhausted when the system gives no thread, RuntimeError on a second call."""
        with shortages("start a thread", self._thread.name):
            self._thread.start()

    @abstractmethod
    def run(self) -> None:
        """The work of the thread, on the thread."""

    def join(self, timeout_s: float) -> bool:
        """Wait until `run` has ended; True if it has, or never began. On the thread itself: False at once."""
        if threading.current_thread() is self._thread:
            return False
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_alive(self) -> bool:
        """Does `run` run? Any thread."""
        return self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self.run()
        except Exception:
            logger.exception("the thread %s ended with an error", self._thread.name)
