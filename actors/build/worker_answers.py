"""WorkerAnswers: tasks that have one answer, each from a worker process that may die of the file that it reads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import InvalidStateError
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.kit.attention import Attention
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
from shadowswitch.storage.reading import Death, Looked
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
        self,
        pool: WorkerPool,
        config: Config,
        clock: Clock,
        attention: Attention,
        metrics: Metrics,
        closing: Callable[[], bool],
    ) -> None:
        """`closing` becomes true when the owner of the pool ends: no answer is waited for then."""
        self._pool = pool
        self._config = config
        self._clock = clock
        self._attention = attention
        self._metrics = metrics
        self._closing = closing

    def ask(
        self,
        task: Task,
        expected: type[A],
        deadline: float = math.inf,
        stop_asked: Callable[[], bool] = lambda: False,
        patience_s: float | None = None,
    ) -> A:
        """The answer of a worker to a task. A process that dies is replaced, as often as that of a shard.

        Raises the error of the task, BuildCancelled; Timeout at the (monotonic) deadline, or when the worker has made
        no progress for `patience_s`, None: `Config.validation_timeout_s`; CorruptData for a file that ends its readers;
        StorageFull, ResourceExhausted when the worker, or its start, lacked something.
        """
        coming = self.as_they_come([task], expected, deadline, stop_asked, patience_s=patience_s)
        return _each(coming, 1)[0]

    def ask_each(
        self,
        tasks: Sequence[Task],
        expected: type[A],
        deadline: float = math.inf,
        stop_asked: Callable[[], bool] = lambda: False,
        at_once: int = 1,
    ) -> list[A]:
        """The answers to tasks, of which `at_once` are worked on at a time; the first error ends all. See `ask`.

        The progress of one worker is the progress of all.
        """
        return _each(self.as_they_come(tasks, expected, deadline, stop_asked, at_once), len(tasks))

    def as_they_come(
        self,
        tasks: Sequence[Task],
        expected: type[A],
        deadline: float = math.inf,
        stop_asked: Callable[[], bool] = lambda: False,
        at_once: int = 1,
        heard: Callable[[int, int], None] = lambda place, rows: None,
        patience_s: float | None = None,
    ) -> Generator[tuple[int, A | ShadowSwitchError], None, None]:
        """As `ask_each`: the place of each task with its answer or its error, in the order of the answers.

        `heard` gets the place of a part of the check, and the rows that it has read since the last call, on the thread
        of a listener. Raises BuildCancelled, Timeout, and what the start of a worker lacked.
        """
        waiting, asked, bell = deque(enumerate(tasks)), list[_Asked](), _Bell()
        limit_s = self._config.validation_timeout_s if patience_s is None else patience_s
        patience = _Patience(self._clock, self._attention, deadline, limit_s)

        def goes_on(place: int, rows: int) -> None:
            patience.begin()
            heard(place, rows)

        try:
            while waiting or asked:
                while waiting and len(asked) < at_once:
                    asked.append(_Asked(*waiting.popleft()))
                    self._submit(asked[-1], bell, goes_on)
                self._wait(bell, patience, stop_asked)
                for one in [one for one in asked if one.answer.done()]:
                    result = one.answer.result(0)
                    answer: A | ShadowSwitchError | None = result if isinstance(result, expected) else None
                    try:
                        if answer is None:
                            self._count(one, result)
                    except ShadowSwitchError as error:
                        answer = error
                    if answer is None:
                        self._submit(one, bell, goes_on)
                    else:
                        asked.remove(one)
                        yield one.place, answer
        finally:
            for one in asked:
                self._pool.kill(one.number)

    def _submit(self, asked: _Asked, bell: _Bell, heard: Callable[[int, int], None]) -> None:
        answer = asked.answer = Reply()

        def said(_: int, message: Answer) -> None:
            if isinstance(message, Looked):
                heard(asked.place, message.rows)
                return
            answer.set_result(message)
            bell.ring()

        def gone(_: int, how: Death) -> None:
            answer.set_result(how)
            bell.ring()

        asked.number = self._pool.submit(asked.task, said, gone)

    def _wait(self, bell: _Bell, patience: _Patience, stop_asked: Callable[[], bool]) -> None:
        """Until the next look at the answers."""
        if bell.wait(POLL_S):
            patience.begin()
            return
        if stop_asked() or self._closing():
            raise BuildCancelled("the validation was cancelled", operation="validate")
        patience.check()

    def _count(self, asked: _Asked, result: Answer | Death) -> None:
        """Raise for a failure, and after too many deaths."""
        if isinstance(result, Failed):
            result.refuse_shortage()
        if not isinstance(result, Death):
            raise _error(result)
        asked.deaths += 1
        asked.damaged += result.is_by_damage
        retries = self._config.worker_retries
        self._metrics.count("worker_deaths")
        if asked.damaged >= DAMAGE_DEATHS_MAX or (asked.deaths > retries and result.is_by_damage):
            raise _damage(result)
        if asked.deaths > retries:
            raise InternalFailure(
                f"the worker of the validation died {asked.deaths} times, at last: {result}", hint="try again"
            )


class _Patience:
    """The limits of a wait for workers. Time in which this process did not run does not count."""

    def __init__(self, clock: Clock, attention: Attention, deadline: float, limit_s: float) -> None:
        self._clock = clock
        self._attention = attention
        self._limit_s = limit_s
        self._deadline = deadline - attention.away_s()
        self.begin()

    def begin(self) -> None:
        """A worker made progress. Any thread."""
        self._ends = self._now() + self._limit_s

    def _now(self) -> float:
        return self._clock.monotonic() - self._attention.away_s()

    def check(self) -> None:
        """Raises Timeout at the deadline, and after the limit without progress."""
        if self._now() > self._ends:
            raise Timeout(
                f"the validation has made no progress for {self._limit_s:g} s",
                operation="validate",
                hint="if the disk is so slow, raise Config.validation_timeout_s",
            )
        if self._now() > self._deadline:
            raise Timeout(
                "the validation did not end in the time of its call",
                operation="validate",
                hint="give the call more time (switch_timeout_seconds)",
            )


class _Bell:
    """Wakes the thread that waits for any of several answers."""

    def __init__(self) -> None:
        self._rung: Reply[None] = Reply()

    def ring(self) -> None:
        """There is an answer to look at."""
        with suppress(InvalidStateError):  # it was rung before
            self._rung.set_result(None)

    def wait(self, timeout_s: float) -> bool:
        """True if it was rung since the last wait."""
        if not self._rung.wait(timeout_s):
            return False
        self._rung = Reply()  # before the look: an answer after this rings again
        return True


class _Asked:
    """A task that a worker has."""

    def __init__(self, place: int, task: Task) -> None:
        self.place = place
        self.task = task
        self.number = 0
        self.answer: Reply[Answer | Death] = Reply()
        self.deaths = 0
        self.damaged = 0


def _each(coming: Generator[tuple[int, A | ShadowSwitchError], None, None], count: int) -> list[A]:
    """The answers in the order of their tasks; raises the first error."""
    answers: dict[int, A] = {}
    with closing(coming):
        for place, answer in coming:
            if isinstance(answer, ShadowSwitchError):
                raise answer
            answers[place] = answer
    return [answers[place] for place in range(count)]


def _error(answer: Answer) -> ShadowSwitchError:
    """The error of a task that failed: what a file, the disk or the directory is to blame for keeps its class."""
    if not isinstance(answer, Failed):
        return InternalFailure(f"the validation failed: {answer!r}", hint="see the log")
    if answer.kind in ("CorruptData", "DirectoryLost", "UnsupportedFormat", "InvalidConfig", "StoreUnavailable"):
        kind: type[ShadowSwitchError] = getattr(errors, answer.kind)
        return kind(answer.message, operation="validate", object=answer.object, hint=answer.hint)
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
