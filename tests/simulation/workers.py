"""Worker processes as tasks: the same work on the same files, by the code that the processes run."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.storage.fsck.tasks import CheckTask, perform
from shadowswitch.storage.generations.shard_build import BuildShard, Control, ShardBuild
from shadowswitch.storage.generations.shard_reading import CheckShards, ReadShard, check_shards, read_shard
from shadowswitch.storage.generations.validation import Inspect, inspect
from shadowswitch.storage.generations.worker import Done, Failed
from shadowswitch.storage.reading import Death
from tests.simulation.world import Task, present


class VirtualWorkers:
    """Replaces `actors.build.worker_pool.WorkerPool` in the library; a worker may die at any failpoint of its work."""

    def __init__(self, *_: Any) -> None:
        self._numbers = itertools.count(1)
        self._controls: dict[int, Control] = {}
        self._busy: dict[int, tuple[Task, Callable[[int, Death], None]]] = {}
        present().workers = self

    def submit(self, task: Any, said: Any, gone: Callable[[int, Death], None], control: Control | None = None) -> int:
        number = next(self._numbers)
        self._controls[number] = control or Control()
        worker = present().spawn("worker", partial(self._work, number, task, said))
        if worker is not None:
            self._busy[number] = (worker, gone)
        return number

    def _work(self, number: int, task: Any, said: Any) -> None:
        try:
            answer = self._perform(number, task, said)
        except ShadowSwitchError as error:
            answer = Failed(type(error).__name__, str(error), "")
        except Exception as error:
            answer = Failed(type(error).__name__, str(error) or repr(error), "")
        if self._busy.pop(number, None) is not None:
            said(number, answer)

    def _perform(self, number: int, task: Any, said: Any) -> Any:
        if isinstance(task, BuildShard):
            report = partial(said, number)
            return Done(ShardBuild(present().catalog, task, report, lambda: self._controls[number]).run())
        if isinstance(task, CheckTask):
            return perform(present().catalog, task)
        if isinstance(task, ReadShard):
            return read_shard(task)
        if isinstance(task, CheckShards):
            return check_shards(task)
        assert isinstance(task, Inspect), f"{task} is not simulated"
        return inspect(present().catalog, task)

    def die(self, task: Task) -> None:
        """If this task is a worker, kill it at once; the pool notices."""
        for number, (worker, gone) in list(self._busy.items()):
            if worker is task:
                del self._busy[number]
                present().note("worker %d dies", number)
                present().at(present().now, partial(gone, number, Death(number, -signal.SIGKILL)))
                present().end(task)
                present().current()

    def tune(self, number: int, control: Control) -> None:
        if number in self._controls:
            self._controls[number] = control

    def kill(self, number: int) -> None:
        if number in self._busy:
            present().end(self._busy.pop(number)[0])

    def pids(self) -> list[int]:
        return list(self._busy)

    def close(self) -> None:
        for number in list(self._busy):
            self.kill(number)
