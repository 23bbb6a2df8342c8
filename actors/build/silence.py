"""Silence: for how long a worker process with a task has given no sign of life.

    heard      an answer, or a beat: a thread of the worker beats while a task is under way, also while the task waits
               for a slow disk, for its pace or for a lock
    works      it used the processor, or wants it: code that holds the interpreter for long lets no beat out
    waits      for a disk, uninterruptibly: a kill would wait for the disk, too

A process that was stopped (SIGSTOP, a frozen cgroup) does none of these. The time in which this process did not listen
does not count: it may have been stopped itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from shadowswitch.actors.journal_writer import Transact
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.reading import Death

LISTEN_S = 5.0
"""The longest time between two looks."""
_STATE, _USER, _SYSTEM = 0, 11, 12
"""Fields of `stat` behind the name of the program: state, ticks of the processor as user and in the kernel."""
_AT_WORK = {"R", "D"}
"""States of a thread: it has or wants a processor; it waits for a disk."""


class Silence:
    """Of one process. On the thread that listens to it."""

    def __init__(self, pid: int, limit_s: float, clock: Clock) -> None:
        self._threads = Path(f"/proc/{pid}/task")
        self._clock = clock
        self._limit_s = limit_s
        self.look_s = min(LISTEN_S, limit_s / 4)
        """The time to listen until the next `goes_on`."""
        self._looked_at = clock.monotonic()
        self._ticks = 0
        self.silent_s = 0.0

    def ends(self) -> None:
        """It was heard, or it has no task."""
        self._looked_at = self._clock.monotonic()
        self.silent_s = 0.0

    def goes_on(self) -> bool:
        """It was not heard since the last look. Is it silent for longer than the limit?"""
        before, self._looked_at = self._looked_at, self._clock.monotonic()
        self.silent_s += min(self._looked_at - before, 2 * self.look_s)
        if self._works():
            self.silent_s = 0.0
        return self.silent_s >= self._limit_s

    def _works(self) -> bool:
        """Did it use the processor since the last look, or does a thread of it want a processor or wait for a disk?

        False where no system says so.
        """
        ticks, states = 0, set()
        try:
            for stat in self._threads.glob("*/stat"):
                fields = stat.read_text("ascii", "replace").rpartition(")")[2].split()
                ticks += int(fields[_USER]) + int(fields[_SYSTEM])
                states.add(fields[_STATE])
        except (OSError, ValueError, IndexError):
            return False
        before, self._ticks = self._ticks, ticks
        return ticks > before or bool(states & _AT_WORK)


def note_killed(journal: Address, root: Path, task: str, how: Death) -> None:
    """Have the event of a worker process that was killed for its silence stored. Any thread."""
    what = {"task": task, "silent_s": round(how.silent_s, 3), "reason": str(how)}
    subject = os.path.relpath(how.reading, root) if how.reading else ""
    journal.tell(Transact(lambda commit: commit.emit("worker.killed", subject, what), Reply()))
