"""The WorkerPool: worker processes, started on demand and kept for the next task.

The end of its socket shows that a process died. Then the `gone` callback of its task decides on a replacement. A
process that gives no sign of life for `Config.worker_timeout_s` (see `silence`) is killed, and so dies like any other.
A cancelled build has its processes killed at once.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from shadowswitch.actors.build.silence import Silence
from shadowswitch.actors.kit.service_thread import ServiceThread
from shadowswitch.model.config import Config
from shadowswitch.model.errors import EngineClosed
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.data_directory import catalog_file
from shadowswitch.storage.disk import identity
from shadowswitch.storage.generations.shard_build import Control, Progress
from shadowswitch.storage.generations.worker import Answer, Beat, Failed, Task, decode_answer
from shadowswitch.storage.interpreter import start_python
from shadowswitch.storage.reading import Death, Looked, Reading
from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")

_MAIN = "from shadowswitch.storage.generations.worker import main; main()"
RECEIVED_MAX = 1 << 16
"""Bytes of one look into the socket."""
BEATS = 10
"""In the time after which a process counts as silent."""

Said = Callable[[int, Answer], None]
Gone = Callable[[int, Death], None]
Silent = Callable[[str, Death], None]
"""Gets the kind of the task, and the end, of a process that was killed for its silence."""


class _Process(ServiceThread):
    """One worker process, and the thread that reads its answers."""

    def __init__(self, data: Path, arguments: Sequence[int], pool: WorkerPool, limit_s: float, clock: Clock) -> None:
        ours, theirs = socket.socketpair()
        try:
            self.process = start_python(
                _MAIN,
                str(theirs.fileno()),
                str(data),
                *map(str, arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        super().__init__(f"worker-{self.process.pid}")
        self.channel = ours
        self.pool = pool
        self.task: tuple[Task, int, Said, Gone] | None = None
        self.reading = ""
        self._silence = Silence(self.process.pid, limit_s, clock)
        try:
            self.start()
        except BaseException:
            self.kill()
            self.process.wait()
            ours.close()
            raise

    def give(self, task: Task) -> None:
        with contextlib.suppress(OSError):  # the listener notices a dead process
            self.channel.sendall(msgspec.json.encode(task) + b"\n")

    def tune(self, control: Control) -> None:
        with contextlib.suppress(OSError):
            self.channel.sendall(msgspec.json.encode(control) + b"\n")

    def run(self) -> None:
        """Read answers until the socket ends, which is the end of the process, or the process is silent for too long.

        A process without a task owes no sign.
        """
        silent_s = 0.0
        with contextlib.suppress(OSError, msgspec.DecodeError):  # the last line of a killed worker may be cut off
            poll, line = select.poll(), b""
            poll.register(self.channel, select.POLLIN)
            while True:
                if poll.poll(self._silence.look_s * 1000):
                    received = self.channel.recv(RECEIVED_MAX)
                    if not received:
                        break
                    *lines, line = (line + received).split(b"\n")
                    for text in lines:
                        self._heard(decode_answer(text))
                    self._silence.ends()
                elif self.task is None:
                    self._silence.ends()
                elif self._silence.goes_on():
                    silent_s = self._silence.silent_s
                    break
        self.kill()
        status = self.process.wait()
        self.channel.close()
        self.pool.lost(self, Death(self.process.pid, status, self.reading, silent_s))

    def _heard(self, answer: Answer) -> None:
        if isinstance(answer, Beat):
            return
        if isinstance(answer, Reading):
            self.reading = answer.path
            return
        task = self.task
        if task is None:
            return
        _, number, said, _ = task
        if not isinstance(answer, Progress | Looked):
            self.task, self.reading = None, ""
            self.pool.finished(self, again=not (isinstance(answer, Failed) and answer.is_shortage))
        said(number, answer)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()


class WorkerPool:
    """Gives tasks to worker processes. Any thread; callbacks come on the thread of the listener and must be quick."""

    def __init__(self, data: Path, config: Config, clock: Clock, silent: Silent = lambda task, how: None) -> None:
        """A worker gets the size of the host's catalog map: one that maps less cannot read all of it.

        The host has the catalog open: its workers refuse another one at the same path. Raises OSError without one.
        `silent` must be quick.
        """
        self._data = data
        self._config = config
        self._clock = clock
        self._identity = identity(str(catalog_file(data)))
        self._silent = silent
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._idle: list[_Process] = []
        self._busy: dict[int, _Process] = {}
        self._closed = False

    def submit(self, task: Task, said: Said, gone: Gone, control: Control | None = None) -> int:
        """Start a task; returns its number. `said` gets its progress and its end, `gone` the death of its process.

        Raises ResourceExhausted when no process, thread or descriptor can be had.
        """
        with self._lock:
            if self._closed:
                raise EngineClosed("the engine is closed", operation="start a worker", hint="open it again")
            number = next(self._numbers)
            while self._idle and self._idle[-1].process.poll() is not None:
                self._idle.pop()
            process = self._idle.pop() if self._idle else self._new_process()
            self._busy[number] = process
            process.task = (
                task,
                number,
                said,
                gone,
            )  # from now on `gone` gets its death, also before it has read the task
        process.tune(control or Control())
        process.give(task)
        return number

    def _new_process(self) -> _Process:
        config, limit_s = self._config, self._config.worker_timeout_s
        beat_ms = max(1, int(limit_s * 1000 / BEATS))
        arguments = (config.worker_nice, config.map_size_bytes, *self._identity, beat_ms)
        with shortages("start a worker process"):
            return _Process(self._data, arguments, self, limit_s, self._clock)

    def tune(self, number: int, control: Control) -> None:
        """Throttle, pause or continue a running task; no effect on a task that has ended."""
        with self._lock:
            process = self._busy.get(number)
        if process is not None:
            process.tune(control)

    def kill(self, number: int) -> None:
        """End the process of a task at once; its `gone` is not called."""
        with self._lock:
            process = self._busy.pop(number, None)
            if process is not None:
                process.task = None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(timeout=5)

    def pids(self) -> list[int]:
        """The process ids of busy workers."""
        with self._lock:
            return [process.process.pid for process in self._busy.values()]

    def finished(self, process: _Process, again: bool) -> None:
        """A process has done its task. One that lacked a resource gets no other task: a new one may have it."""
        with self._lock:
            for number in [n for n, p in self._busy.items() if p is process]:
                del self._busy[number]
            if again and not self._closed and len(self._idle) < self._config.idle_workers:
                self._idle.append(process)
                return
        process.kill()

    def lost(self, process: _Process, how: Death) -> None:
        """A process ended, on purpose or not."""
        with self._lock:
            task, process.task = process.task, None
            if process in self._idle:
                self._idle.remove(process)
            for number in [n for n, p in self._busy.items() if p is process]:
                del self._busy[number]
        if task is not None:
            work, number, _, gone = task
            logger.warning("%s during task %d, %s", how, number, type(work).__name__)
            if how.silent_s:
                self._silent(type(work).__name__, how)
            gone(number, how)

    def close(self) -> None:
        """Kill all. Idempotent."""
        with self._lock:
            self._closed = True
            processes = [*self._idle, *self._busy.values()]
            self._idle.clear()
            self._busy.clear()
            for process in processes:
                process.task = None
        for process in processes:
            process.kill()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(timeout=5)
