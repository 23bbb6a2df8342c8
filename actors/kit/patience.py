"""Patience: a call that lacks a resource is made again, with growing pauses, until its time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shadowswitch.storage.clock import Clock
from shadowswitch.storage.shortages import shortage

T = TypeVar("T")
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 1.0
"""The pauses before the call is made again."""


def patiently(call: Callable[[], T], clock: Clock, timeout_s: float) -> T:
    """The result of a call, which is made again while it lacks a resource. Raises its shortage at the timeout."""
    ends, pause_s = clock.monotonic() + timeout_s, PAUSE_FIRST_S
    while True:
        try:
            return call()
        except Exception as error:
            lack = shortage(error)
            if lack is None:
                raise
            if clock.monotonic() + pause_s > ends:
                raise lack from (None if lack is error else error)
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
