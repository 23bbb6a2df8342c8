"""The steps of a story: what is shown while one runs, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from shadowswitch.service.cli.progress import Show

PROBLEMS_MAX = 20
TIMEOUT_S = 120.0
"""For a build, or a write."""


class Step(msgspec.Struct, frozen=True):
    """A step of the story, and how long it took."""

    title: str
    seconds: float
    details: str = ""


@contextmanager
def timed(title: str, show: Show, steps: list[Step]) -> Iterator[Callable[[str], None]]:
    """Times a step; the function that it yields takes the details."""
    show(title, 0.0, "")
    said: list[str] = []
    begun = time.perf_counter()
    yield said.append
    steps.append(Step(title, time.perf_counter() - begun, "; ".join(said)))
