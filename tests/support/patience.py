"""Waiting for a process as long as it makes progress: a process on a busy machine is slow, and that is no failure."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shadowswitch import InUse

STILL_S = 240.0
"""A process without visible progress for so long hangs. A step of a test alone takes less than a hundredth."""
LOOK_S = 0.2


class StandsStill(AssertionError):
    """A process made no progress for too long."""


@contextmanager
def running(command: Sequence[str], output: Path, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes all output into a file; it does not outlive the block."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **how)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait(process: subprocess.Popen[bytes], progress: Callable[[], object], still_s: float = STILL_S) -> int:
    """Wait for the end of a process while `progress` keeps changing; returns its status. Raises StandsStill."""
    seen, since = progress(), time.monotonic()
    while True:
        try:
            return process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() > since + still_s:
            raise StandsStill(f"{process.args!r:.300} did nothing for {still_s:g} s; last seen: {seen!r:.300}")


def size_of(file: Path) -> int:
    """The size of a file; 0 while it is not there."""
    return file.stat().st_size if file.exists() else 0


def unless_in_use(call: Callable[..., object], *args: object) -> Callable[[], bool]:
    """A condition to wait for: the call was made. It is made again while a build or a switch is in its way."""

    def was_made() -> bool:
        try:
            call(*args)
        except InUse:
            return False
        return True

    return was_made
