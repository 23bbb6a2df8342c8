"""WorkerAnswers: tasks that have one answer, each from a worker process that may die of the file that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model import errors
from shadowswitch.model.config import Config
from shadowswitch.model.errors import (
    BuildCancelled,
    CorruptData,
    InternalFailure,
    ShadowSwitchError,
    StorageFull,
    Timeout,
)
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage import data_directory, disk
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.worker import Answer, Failed, Task
from shadowswitch.storage.reading import Death
from shadowswitch.storage.shortages import shortages

A = TypeVar("A")
POLL_S = 0.05
DAMAGE_DEATHS_MAX = 2
"""After so many deaths at the same file, the file is the cause."""
FREE_BYTES_MIN = 1 << 20
"""With less room a SIGBUS may be that of a sparse file on a full disk."""


class WorkerAnswers:
    """Any thread; a call blocks until its answer."""

    def __init__(
        self, pool: WorkerPool, config: Config, clock: Clock, metrics: Metrics, closing: Callable[[], bool]
    ) -> None:
        """`closing` becomes true when the owner of the pool ends: no answer is waited for then."""
        self._pool = pool
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._closing = closing

    def ask(self, task: Task, expected: type[A], deadline: float, stop_asked: Callable[[], bool] = lambda: False) -> A:
        """The answer of a worker to a task. A process that dies is replaced, as often as that of a shard.

        Raises the error of the task, BuildCancelled, Timeout; CorruptData for a file that ends its readers;
        StorageFull, ResourceExhausted when the worker, or its start, lacked something.
        """
        deaths = damaged = 0
        retries = self._config.worker_retries
        while True:
            result = self._ask(task, deadline, stop_asked)
            if isinstance(result, expected):
                return result
            if isinstance(result, Failed):
                result.refuse_shortage()
            if not isinstance(result, Death):
                raise _error(result)
            deaths += 1
            damaged += result.is_by_damage
            self._metrics.count("worker_deaths")
            if damaged >= DAMAGE_DEATHS_MAX or (deaths > retries and result.is_by_damage):
                raise _damage(result)
            if deaths > retries:
                raise InternalFailure(
                    f"the worker of the validation died {deaths} times, at last: {result}", hint="try again"
                )

    def _ask(self, task: Task, deadline: float, stop_asked: Callable[[], bool]) -> Answer | Death:
        answer: Reply[Answer | Death] = Reply()

        def said(_: int, message: Answer) -> None:
            answer.set_result(message)

        def gone(_: int, how: Death) -> None:
            answer.set_result(how)

        number = self._pool.submit(task, said, gone)
        while True:
            try:
                return answer.result(POLL_S)
            except TimeoutError:
                if stop_asked() or self._closing():
                    self._pool.kill(number)
                    raise BuildCancelled("the validation was cancelled", operation="validate") from None
                if self._clock.monotonic() > deadline:
                    self._pool.kill(number)
                    raise Timeout(
                        f"the validation took longer than {self._config.validation_timeout_s:g} s",
                        operation="validate",
                        hint="raise Config.validation_timeout_s",
                    ) from None


def _error(answer: Answer) -> ShadowSwitchError:
    """The error of a task that failed: what a file, the disk or the directory is to blame for keeps its class."""
    if not isinstance(answer, Failed):
        return InternalFailure(f"the validation failed: {answer!r}", hint="see the log")
    if answer.kind in ("CorruptData", "DirectoryLost", "UnsupportedFormat", "InvalidConfig"):
        kind: type[ShadowSwitchError] = getattr(errors, answer.kind)
        return kind(answer.message, operation="validate", hint=answer.hint)
    return InternalFailure(f"the validation failed: {answer.kind}: {answer.message}", hint=answer.hint or "see the log")


def _damage(death: Death) -> ShadowSwitchError:
    """A resource that ran out is no damage."""
    path = Path(death.reading)
    at: dict[str, Any] = {"operation": "validate", "object": death.reading}
    with shortages("validate", death.reading):
        is_full = path.exists() and disk.free_bytes(path) < FREE_BYTES_MIN
    if is_full:
        return StorageFull(f"no room to read {path}: its reader ended by {death.cause}", hint="free disk space", **at)
    hint = "check the disk and rebuild the index; its records are safe in the catalog"
    if path.parent.name == data_directory.CATALOG:
        hint = "check the disk and restore the data directory from a backup"
    return CorruptData(
        f"{path} is damaged: its reader ended by {death.cause}, and so did the next one", hint=hint, **at
    )
