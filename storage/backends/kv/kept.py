"""Which environments of this process stay open: those that were used last.

LMDB gives each open environment 2 MiB for a write that may come, two descriptors, and one of the 1,024 keys for values
of threads that a process has. So a host with a thousand indexes keeps few of them open, and opens one again for its
next transaction, in 0.2 ms.
"""

from __future__ import annotations

import ctypes
import threading
from itertools import islice
from typing import Protocol

from shadowswitch.storage.clock import SYSTEM

KEPT = 4
"""So many stay open, however long they are not used."""
KEPT_MAX = 16
RECENT_S = 0.5
"""Of more than KEPT, up to KEPT_MAX, those stay open that were used since."""


class Closable(Protocol):
    """An environment that can close between two transactions."""

    def close_unused(self) -> bool:
        """Close it; False while it has a transaction."""


_lock = threading.Lock()
_used: dict[Closable, float] = {}
"""The open ones with their last use, the last one behind the others."""
_closed = 0
"""Environments that were closed since memory was given back."""
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU C library; others give memory back by themselves."""


def used(environment: Closable) -> None:
    """A transaction begins. Close the environments that were not used for longer. Any thread."""
    global _closed
    now = SYSTEM.monotonic()
    with _lock:
        _used.pop(environment, None)
        _used[environment] = now
        surplus = _surplus(now) if len(_used) > KEPT else []
        for one in surplus:
            del _used[one]
    for one in surplus:  # outside the lock: it waits for the thread that begins a transaction of it
        is_closed = one.close_unused()
        with _lock:
            _closed += is_closed
            if not is_closed:
                _used.setdefault(one, now)


def _surplus(now: float) -> list[Closable]:
    """Those to close, under the lock."""
    most = len(_used) - KEPT_MAX
    unused = islice(_used.items(), len(_used) - KEPT)
    return [one for place, (one, at) in enumerate(unused) if place < most or now - at > RECENT_S]


def forget(environment: Closable) -> None:
    """It is closed for good. Any thread."""
    with _lock:
        _used.pop(environment, None)


def give_back() -> None:
    """Give the memory of closed environments back to the system, if it is much. It takes some milliseconds.

    The allocator keeps it for the thread that closed them, and another thread that opens one gets other memory.
    """
    global _closed
    with _lock:
        is_much = _closed >= KEPT
        _closed = 0 if is_much else _closed
    if is_much and _malloc_trim is not None:
        _malloc_trim(0)
