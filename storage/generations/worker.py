"""The worker process: `main` with the arguments FD DATA NICE MAP_SIZE_BYTES DEVICE INODE BEAT_MS.

The worker reads one task at a time as a line of JSON from the socket FD, answers with progress lines and one last line,
and exits when the host closes the socket. The host starts it with `subprocess`, not with `multiprocessing`: spawning
would run the host's `__main__` again, and forking would copy an open LMDB environment.

A worker does not outlive its host: a thread watches the socket and ends the process when the host closes it or dies.
A worker holds an exclusive lock on the directory of its shard, so that the worker of a dead host and a worker of the
next host never write the same files.

While a task is under way, a thread beats every BEAT_MS, whatever the task waits for: the host kills a worker that it
hears nothing of.

DEVICE and INODE are those of the catalog's file that the host opened. Before each task the worker compares them: it
goes by paths, and does nothing in a directory that took the place of the host's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shadowswitch.model.errors import InternalFailure, ResourceExhausted, ShadowSwitchError, StorageFull, Timeout
from shadowswitch.storage import data_directory
from shadowswitch.storage.backup.task import BackedUp, BackUp, back_up
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.fsck.tasks import CheckTask, Found, Plan, perform
from shadowswitch.storage.generations.adoption import Adopt, adopt
from shadowswitch.storage.generations.external_manifest import CheckDelivery, Delivered, check_delivery
from shadowswitch.storage.generations.shard_build import BuildShard, Control, Progress, ShardBuild
from shadowswitch.storage.generations.shard_reading import (
    Checked,
    CheckShards,
    ReadShard,
    ShardRead,
    check_shards,
    read_shard,
)
from shadowswitch.storage.generations.validation import Inspect, Inspected, inspect
from shadowswitch.storage.quality.comparing import CompareSides, SidesCompared, compare_sides
from shadowswitch.storage.quality.costing import CostCounted, CountCost, count_cost
from shadowswitch.storage.reading import Looked, Reading
from shadowswitch.storage.shortages import shortage

SHARD_LOCK_TIMEOUT_S = 10.0
PROGRESS_INTERVAL_S = 0.05


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The task ended with an error: its class name, message and traceback."""

    kind: str
    message: str
    trace: str
    hint: str = ""
    resource: str = ""
    object: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text

    @property
    def is_shortage(self) -> bool:
        """Did the worker lack a resource or room? That says nothing about an index."""
        return self.kind in (ResourceExhausted.__name__, StorageFull.__name__)

    def refuse_shortage(self) -> None:
        """Raise the error of the worker if it lacked a resource or room: that says nothing about an index."""
        if self.kind == ResourceExhausted.__name__:
            raise ResourceExhausted(f"in a worker: {self.message}", resource=self.resource, hint=self.hint)
        if self.kind == StorageFull.__name__:
            raise StorageFull(self.message, hint=self.hint)


def failure(error: Exception) -> Failed:
    """The answer of a worker for an error."""
    known = error if isinstance(error, ShadowSwitchError) else shortage(error)
    if known is None:
        return Failed(type(error).__name__, str(error) or repr(error), traceback.format_exc(limit=8))
    resource = known.resource if isinstance(known, ResourceExhausted) else ""
    return Failed(type(known).__name__, known.message, "", known.hint, resource, known.object)


class Done(msgspec.Struct, frozen=True, tag=True):
    """The task is done; for a shard, `progress` is its last."""

    progress: Progress


class Beat(msgspec.Struct, frozen=True, tag=True):
    """The process runs, and its task is under way."""


Task = (
    BuildShard
    | Inspect
    | CheckDelivery
    | Adopt
    | ReadShard
    | CheckShards
    | CheckTask
    | CompareSides
    | CountCost
    | BackUp
)
Line = Task | Control
UnderWay = Progress | Beat | Reading | Looked
ReadThrough = ShardRead | Checked | Plan | Found | SidesCompared | CostCounted | BackedUp
Ended = Done | Inspected | Delivered | ReadThrough | Failed
Answer = UnderWay | Ended

decode_line = msgspec.json.Decoder(Line).decode
decode_answer = msgspec.json.Decoder(Answer).decode


@contextlib.contextmanager
def shard_lock(path: Path, clock: Clock = SYSTEM) -> Iterator[None]:
    """The exclusive right to write a shard; waits until the worker of a dead host has exited.

    Held on the directory of the shard, and on a file beside it that older versions know.
    """
    deadline = clock.monotonic() + SHARD_LOCK_TIMEOUT_S
    with contextlib.ExitStack() as stack:
        for name, flags in ((path, os.O_DIRECTORY), (path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)):
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            _wait_for_flock(descriptor, path, deadline, clock)
        yield


def _wait_for_flock(descriptor: int, path: Path, deadline: float, clock: Clock) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock.monotonic() > deadline:
                raise Timeout(f"another process is still writing {path}", operation="build") from None
            clock.sleep(0.02)


class Worker:
    """The worker's side of the socket."""

    def __init__(
        self,
        channel: socket.socket,
        data: Path,
        map_size_bytes: int,
        identity: tuple[int, int],
        beat_s: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._data = data
        self._identity = identity
        self._map_size_bytes = map_size_bytes
        self._catalog: Catalog | None = None
        self._tasks: queue.Queue[Task] = queue.Queue()
        self._control = Control()
        self._last_report = 0.0
        self._sending = threading.Lock()
        self._beat_s = beat_s
        self._is_at_work = threading.Event()
        self._rows = 0
        """Rows that a task has read since its last message."""
        threading.Thread(target=self._listen, name="host", daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def _listen(self) -> None:
        try:
            with self._channel.makefile("rb") as lines:
                for text in lines:
                    line = decode_line(text)
                    if isinstance(line, Control):
                        self._control = line
                    else:
                        self._tasks.put(line)
        finally:  # the host closed the socket, or died with answers unread (then the read raises): exit at once
            os._exit(0)

    def run(self) -> None:
        """Serve tasks for ever; the listening thread ends the process."""
        while True:
            task = self._tasks.get()
            self._is_at_work.set()
            try:
                answer: Answer = self._perform(task)
            except Exception as error:
                answer = failure(error)
            self._is_at_work.clear()
            self._send(answer)

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # the host is gone: `_listen` ends the process
            while self._is_at_work.wait():
                self._send(Beat())
                self._clock.sleep(self._beat_s)

    def _perform(self, task: Task) -> Answer:
        file = data_directory.catalog_file(self._data)
        self._rows = 0
        data_directory.refuse_another(file, self._identity, "build", first="nothing was written; ", missing=True)
        if isinstance(task, BuildShard):
            catalog = self._opened_catalog()
            with shard_lock(Path(task.path), self._clock):
                self._last_report = 0.0
                self._reading(Path(task.path))
                return Done(ShardBuild(catalog, task, self._report, lambda: self._control).run())
        if isinstance(task, Inspect):
            return inspect(self._opened_catalog(), task, self._reading, self._looked)
        if isinstance(task, CompareSides):
            return compare_sides(self._opened_catalog(), task, self._clock, self._reading, self._looked)
        if isinstance(task, CountCost):
            return count_cost(self._opened_catalog(), task, self._looked)
        if isinstance(task, BackUp):
            return back_up(self._opened_catalog(), task, self._looked)
        if isinstance(task, CheckDelivery):
            return check_delivery(task, self._looked)
        if isinstance(task, Adopt):
            return adopt(task, self._reading, self._looked)
        if isinstance(task, ReadShard):
            return read_shard(task, self._reading, self._looked)
        if isinstance(task, CheckShards):
            return check_shards(task, self._reading, self._looked)
        if isinstance(task, CheckTask):
            return perform(self._opened_catalog(), task, self._reading, self._looked)
        raise InternalFailure(f"unknown task {task!r}")

    def _opened_catalog(self) -> Catalog:
        """The catalog, opened by the first task that reads it: a damaged one may end the process."""
        self._reading(data_directory.catalog_file(self._data))
        if self._catalog is None:
            path = self._data / data_directory.CATALOG
            self._catalog = Catalog(path, readonly=True, map_size_bytes=self._map_size_bytes, clock=self._clock)
        return self._catalog

    def _reading(self, path: Path) -> None:
        self._send(Reading(str(path)))

    def _report(self, progress: Progress) -> None:
        now = self._clock.monotonic()
        if now - self._last_report >= PROGRESS_INTERVAL_S:
            self._last_report = now
            self._send(progress)

    def _looked(self, rows: int) -> None:
        self._rows += rows
        now = self._clock.monotonic()
        if now - self._last_report >= PROGRESS_INTERVAL_S:
            self._last_report = now
            self._send(Looked(self._rows))
            self._rows = 0

    def _send(self, answer: Answer) -> None:
        line = msgspec.json.encode(answer) + b"\n"
        with self._sending:
            self._channel.sendall(line)


def main() -> None:
    """Entry point of the process."""
    descriptor, data = int(sys.argv[1]), Path(sys.argv[2])
    nice, map_size_bytes, device, inode, beat_ms = map(int, sys.argv[3:])
    with contextlib.suppress(OSError):
        os.nice(nice)
    channel = socket.socket(fileno=descriptor)
    try:
        worker = Worker(channel, data, map_size_bytes, (device, inode), beat_ms / 1000)
    except Exception as error:
        if shortage(error) is None:
            raise
        channel.sendall(msgspec.json.encode(failure(error)) + b"\n")  # the answer to the task that is on its way
        return
    worker.run()
