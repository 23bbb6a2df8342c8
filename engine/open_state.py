"""Whether an engine is open. One object for each engine."""

from __future__ import annotations

import threading

from shadowswitch.model.errors import EngineClosed


class OpenState:
    """Open from the start of an engine to its `close`. Any thread."""

    def __init__(self) -> None:
        self.closed = False
        """`Engine.close` was called. From then on public calls raise EngineClosed."""
        self._close_lock = threading.Lock()
        self._close_event = threading.Event()

    def check(self) -> None:
        """Raise EngineClosed unless the engine is open."""
        if self.closed:
            raise EngineClosed("the engine is closed", hint="open it again with Engine.open")

    def close(self) -> bool:
        """Refuse calls from now on. True for the first caller, which then stops the engine."""
        with self._close_lock:
            if self.closed:
                return False
            self.closed = True
        self._close_event.set()
        return True

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the engine closes; False if it is still open after `timeout_s`."""
        return self._close_event.wait(timeout_s)
