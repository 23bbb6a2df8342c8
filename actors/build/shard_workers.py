"""ShardWorkers: the worker processes of one build, one task for each shard, so many at a time as the build has.

A worker that dies is started again, up to `Config.worker_retries` times for each shard. It goes on from the rows that
its shard has stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.model.config import Config
from shadowswitch.model.shadow_state import Phase
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.seeding import REQUIRE, Seed
from shadowswitch.storage.generations.shard_build import BuildShard, Control, Progress
from shadowswitch.storage.generations.worker import Answer, Done, Failed
from shadowswitch.storage.reading import Death

logger = logging.getLogger("shadowswitch")


class WorkerSaid(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: a worker process reported about its task."""

    task: int
    answer: Answer


class WorkerGone(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: a worker process died before it finished its task."""

    task: int
    how: Death


class ShardWorkers:
    """On the thread of the ShadowBuilder; `send` takes messages to it from any thread."""

    def __init__(
        self,
        config: Config,
        root: Path,
        pool: WorkerPool,
        most: int,
        control: Control,
        send: Callable[[WorkerSaid | WorkerGone], None],
    ) -> None:
        """At most `most` workers run at a time; `control` is the pace of the build."""
        self._config = config
        self._root = root
        self._pool = pool
        self.most = most
        self._send = send
        self.control = control
        """The pace that the workers have."""
        self._shadow_id = ""
        self._tasks: list[BuildShard] = []
        self._waiting: list[int] = []
        self._running: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self.progress: dict[int, Progress] = {}
        """The last report of each shard."""
        self._stored_rows: dict[int, int] = {}
        """The rows of each shard that an earlier builder has copied."""

    @property
    def are_done(self) -> bool:
        """Has every shard been copied and replayed?"""
        return not self._running and not self._waiting

    @property
    def are_copying(self) -> bool:
        """Is a shard not copied yet?"""
        return sum(one.phase is not Phase.COPYING for one in self.progress.values()) < len(self._tasks)

    @property
    def rows(self) -> int:
        """The rows of all shards, as they were last reported."""
        return sum(one.rows for one in self.progress.values())

    @property
    def are_seeded(self) -> bool:
        """Did every shard begin with the rows of another generation?"""
        return all(one.seeded for one in self.progress.values())

    def applied_lsn(self, start_lsn: int) -> int:
        """The LSN that every shard has applied; `start_lsn` for one that is not loaded."""
        return min((one.applied_lsn or start_lsn for one in self.progress.values()), default=start_lsn)

    @property
    def stored_rows(self) -> int:
        """The rows that an earlier builder has copied, of the shards that have reported."""
        return sum(self._stored_rows.values())

    @property
    def change_rate(self) -> float:
        """Changes per second that a shard replays; 0 while unknown."""
        rates = [one.change_rate for one in self.progress.values() if one.change_rate]
        return sum(rates) / len(rates) if rates else 0.0

    def begin(self, row: ShadowRow, spec: GenerationRow, types: dict[int, str], seed: GenerationRow | None) -> None:
        """Start the tasks of all shards, as many as may run at a time. `seed` is where they begin from."""
        config, root = self._config, self._root
        self._shadow_id = row.id
        begins = Seed(seed.number, str(root / seed.path), seed.options, row.seed == REQUIRE) if seed else None
        self.progress.clear()
        self._stored_rows.clear()
        self._tasks = [
            BuildShard(
                data=str(self._root),
                path=str(path),
                branch=row.branch,
                types=types,
                shard=shard,
                shards=spec.shards,
                start_lsn=row.start_lsn,
                backend=spec.backend,
                options=spec.options,
                slice_rows=config.copy_slice_rows,
                flush_rows=config.copy_flush_rows,
                flush_bytes=config.copy_flush_bytes,
                residual_changes=config.catchup_residual_changes,
                seed=begins,
            )
            for shard, path in enumerate(shard_paths(root / spec.path, spec.shards))
        ]
        self._waiting = list(range(spec.shards))
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self.most:
            shard = self._waiting.pop(0)
            number = self._pool.submit(self._tasks[shard], self._said, self._gone, self.control)
            self._running[number] = shard

    def _said(self, task: int, answer: Answer) -> None:
        self._send(WorkerSaid(task, answer))

    def _gone(self, task: int, how: Death) -> None:
        self._send(WorkerGone(task, how))

    def has(self, task: int) -> bool:
        """Is the task running? A message about another task is late: its worker was replaced or killed."""
        return task in self._running

    def said(self, message: WorkerSaid) -> str:
        """A report of a running task came. Returns why the build fails, or an empty text.

        Raises ResourceExhausted, StorageFull when the worker lacked something.
        """
        shard, answer = self._running[message.task], message.answer
        if isinstance(answer, Failed):
            del self._running[message.task]
            answer.refuse_shortage()
            logger.error("shard %d of shadow %s failed: %s\n%s", shard, self._shadow_id, answer.message, answer.trace)
            return f"shard {shard}: {answer}"
        if isinstance(answer, Progress):
            self._note(shard, answer)
        elif isinstance(answer, Done):
            del self._running[message.task]
            self._note(shard, answer.progress)
            self._start()
        return ""

    def _note(self, shard: int, progress: Progress) -> None:
        self.progress[shard] = progress
        self._stored_rows.setdefault(shard, progress.stored_rows)  # a later worker finds also rows of this builder

    def gone(self, message: WorkerGone) -> str:
        """The worker of a running task died; it is started again. Returns why the build fails, or an empty text."""
        shard = self._running.pop(message.task)
        self._deaths[shard] = self._deaths.get(shard, 0) + 1
        if self._deaths[shard] > self._config.worker_retries:
            text = f"the worker of shard {shard} died {self._deaths[shard]} times, at last: {message.how}"
            return f"{text}; the file is damaged: start another build" if message.how.is_by_damage else text
        self._waiting.insert(0, shard)
        self._start()
        return ""

    def tune(self, control: Control) -> None:
        """A new pace for the running workers and the next ones."""
        self.control = control
        for task in self._running:
            self._pool.tune(task, control)

    def kill(self) -> None:
        """End every worker at once: it writes no file after this."""
        for task in list(self._running):
            self._pool.kill(task)
        self._running.clear()
        self._waiting.clear()
