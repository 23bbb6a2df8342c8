"""What a worker process is reading, noted before it reads: the cause if a signal ends the process.

A damaged file may end its reader by SIGBUS (the file is shorter than its map), SIGABRT (an assertion of LMDB) or
another signal that no Python code can catch. So a process that may die reads first, and its death is a finding about
the file.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

DAMAGE_SIGNALS = frozenset({signal.SIGBUS, signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL})
"""The signals by which a damaged file ends its reader."""

Note = Callable[[Path], None]
"""Called with the file or shard that is read from now on."""


Count = Callable[[int], None]
"""Called with the number of rows that were read since the last call; 0 where what was read has no rows."""


class Reading(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it reads this file or shard from now on."""

    path: str


class Looked(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it has read so many rows since the last message. 0: it has read on in what has no rows."""

    rows: int


class Death(msgspec.Struct, frozen=True):
    """The end of a worker process before its task was done."""

    pid: int
    status: int
    """As `Popen.returncode` has it: below 0 the signal."""
    reading: str = ""
    silent_s: float = 0.0
    """It was killed after it had given no sign of life for so long; 0: it ended otherwise."""

    @property
    def is_by_damage(self) -> bool:
        """Is the file that it was reading the cause, as far as the signal shows?"""
        return bool(self.reading) and -self.status in DAMAGE_SIGNALS

    @property
    def cause(self) -> str:
        """The signal by its name, or the exit status."""
        return signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"

    def __str__(self) -> str:
        place = f" while it read {self.reading}" if self.reading else ""
        if self.silent_s:
            why = f"it gave no sign of life for {self.silent_s:.3g} s (Config.worker_timeout_s)"
            return f"worker process {self.pid} was killed{place}: {why}"
        return f"worker process {self.pid} ended by {self.cause}{place}"


def no_note(path: Path) -> None:
    """For a reader in the process of its caller."""


def no_look(rows: int) -> None:
    """For a reading without progress."""
