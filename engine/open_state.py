"""Whether an engine is open. One object for each engine."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from shadowswitch.model.errors import CloseInCallback, EngineClosed

P = ParamSpec("P")
R = TypeVar("R")


class OpenState:
    """Open from the start of an engine to its `close`. Any thread."""

    def __init__(self) -> None:
        self.closed = False
        """`Engine.close` was called. From then on public calls raise EngineClosed."""
        self._close_lock = threading.Lock()
        self._close_event = threading.Event()
        self._thread = threading.local()
        """`in_callback`: this thread is inside a function of the host that this engine called."""

    def check(self) -> None:
        """Raise EngineClosed unless the engine is open."""
        if self.closed:
            raise EngineClosed("the engine is closed", hint="open it again with Engine.open")

    def callback(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function of the host, for a thread of the engine to call: `close` inside it is refused."""

        @functools.wraps(function, updated=())
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            outer = getattr(self._thread, "in_callback", False)
            self._thread.in_callback = True
            try:
                return function(*args, **kwargs)
            finally:
                self._thread.in_callback = outer

        return called

    def close(self) -> bool:
        """Refuse calls from now on. True for the first caller, which then stops the engine.

        Raises CloseInCallback on a thread of the engine: the close would wait for the end of this very thread.
        """
        if getattr(self._thread, "in_callback", False):
            raise CloseInCallback(
                "the engine cannot be closed from a function that it calls",
                operation="close",
                hint="let the function return, and close the engine on a thread of your own",
            )
        with self._close_lock:
            if self.closed:
                return False
            self.closed = True
        self._close_event.set()
        return True

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the engine closes; False if it is still open after `timeout_s`."""
        return self._close_event.wait(timeout_s)
