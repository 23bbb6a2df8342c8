"""What worker processes read first: a file that ends its reader is a finding, and never ends the host.

The check of everything on disk goes part by part. Shards are read before the host opens them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.kit.attention import Attention
from shadowswitch.model.config import Config
from shadowswitch.model.errors import (
    CorruptData,
    InternalFailure,
    InvalidConfig,
    ResourceExhausted,
    ShadowSwitchError,
    UnsupportedFilesystem,
)
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.views import CheckProgress, Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Probing
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.fsck.plan import PART_ROWS, CheckGeneration, Part
from shadowswitch.storage.fsck.tasks import CheckTask, Found, Plan, PlanCheck
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.shard_reading import Checked, CheckShards
from shadowswitch.storage.repair.faults import Readable
from shadowswitch.storage.shortages import is_permission

logger = logging.getLogger("shadowswitch")

PART_TIMEOUT_S = 24 * 3600.0
"""For the catalog, and for the generations."""
WORKERS_MAX = 8
NO_SOURCE = (CorruptData, InternalFailure, InvalidConfig, UnsupportedFilesystem)
"""What a generation that is damaged, or whose backend is missing, raises when it is read."""
OnProgress = Callable[[CheckProgress], None]

TELL_S = 0.1
"""A caller is called this often at most."""
MEASURED = 0.02
"""The share of the check after which its rate is measured: there is no ETA before."""


def no_progress(progress: CheckProgress) -> None:
    """For a check that shows nothing."""


class CheckMeter:
    """Workers report on any thread; `tell` calls the caller of the check on the caller's own."""

    def __init__(self, clock: Clock, lengths: Sequence[int], on_progress: OnProgress) -> None:
        self._clock = clock
        self._lengths = [max(1, length) for length in lengths]
        self._read = [0] * len(lengths)
        self._ended = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._begun = clock.monotonic()
        self._last = self._begun - TELL_S
        self._percent = 0.0

    def read(self, part: int, rows: int) -> None:
        """A worker has read some rows more of a part; more than its length do not count."""
        with self._lock:
            self._read[part] = min(self._lengths[part], self._read[part] + rows)

    def ended(self, part: int) -> None:
        """A part is done."""
        with self._lock:
            self._read[part] = self._lengths[part]
            self._ended += 1

    def tell(self) -> None:
        """Call the caller, unless it was called just now. Raises what it raises."""
        now = self._clock.monotonic()
        is_done = self._ended == len(self._lengths)
        if now - self._last < TELL_S and not is_done:
            return
        self._last = now
        with self._lock:
            share = sum(self._read) / sum(self._lengths) if self._lengths else 1.0
        self._percent = max(self._percent, 100.0 if is_done else min(99.9, 100 * share))
        eta_s = (now - self._begun) * (1 - share) / share if share >= MEASURED else None
        self._on_progress(CheckProgress(self._percent, eta_s, self._ended, len(self._lengths)))


def check_disk(
    answers: WorkerAnswers, root: Path, clock: Clock, on_progress: OnProgress = no_progress
) -> list[Finding]:
    """Check everything, part by part, in as many workers as there are cores: the findings, empty when sound.

    `on_progress` is called on this thread; what it raises ends the check. Raises StorageFull, ResourceExhausted,
    BuildCancelled, InternalFailure.
    """
    try:
        plan = answers.ask(PlanCheck(str(root)), Plan, patience_s=PART_TIMEOUT_S)
        parts = [*plan.catalog, *plan.generations]
        meter = CheckMeter(clock, [part.rows for part in parts], on_progress)
        findings = plan.findings + _found(answers, clock, parts, range(len(plan.catalog)), meter)
    except CorruptData as error:
        where = f"{data_directory.CATALOG}/{data_directory.DATA_FILE}"
        return [Finding("ST-4", where, f"{error}. The indexes were not checked.")]
    return findings + _found(answers, clock, parts, range(len(plan.catalog), len(parts)), meter)


def _found(answers: WorkerAnswers, clock: Clock, parts: list[Part], places: range, meter: CheckMeter) -> list[Finding]:
    """The findings of some parts, in the order of the parts."""

    def tell() -> bool:
        meter.tell()
        return False

    def heard(place: int, rows: int) -> None:
        meter.read(places[place], rows)

    found: dict[int, list[Finding]] = {}
    tasks = [parts[place].task for place in places]
    asked = answers.as_they_come(
        tasks, Found, stop_asked=tell, at_once=_workers(parts), heard=heard, patience_s=PART_TIMEOUT_S
    )
    with closing(asked) as coming:
        for place, answer in coming:
            found[place] = answer.findings if isinstance(answer, Found) else [_finding(tasks[place], answer)]
            meter.ended(places[place])
            meter.tell()
    return list(dict.fromkeys(finding for place in sorted(found) for finding in found[place]))


def _finding(task: CheckTask, error: ShadowSwitchError) -> Finding:
    """What the error of a worker says of a generation; raises every other error."""
    if isinstance(task, CheckGeneration) and (isinstance(error, CorruptData) or is_permission(error)):
        return Finding("IX-4", f"generation {task.number}", str(error))
    raise error


def _workers(parts: list[Part]) -> int:
    """One for each core, as each copies the shard that it checks; fewer where the start of a worker takes longer."""
    worth = 1 + sum(part.rows for part in parts) // PART_ROWS
    return min(worth, WORKERS_MAX, len(os.sched_getaffinity(0)))


def read_first(
    answers: WorkerAnswers, root: Path, row: GenerationRow, patience_s: float | None = None, probe: bool = True
) -> str:
    """What a worker process finds in the shards of a generation; "" when they are sound.

    Raises as `WorkerAnswers.ask`: CorruptData for a file that ends its readers.
    """
    paths = shard_paths(data_directory.inside(root, row.path), row.shards)
    task = CheckShards([str(path) for path in paths], row.backend, row.options, probe)
    return "; ".join(answers.ask(task, Checked, patience_s=patience_s).problems)


def readable_in_workers(answers: WorkerAnswers, root: Path, clock: Clock) -> Readable:
    """Whether this process may open a generation: a worker has read it. It answers once for each, and raises as `ask`.

    A generation that is damaged, or that this process may not read, is not readable.
    """
    known: dict[int, bool] = {}

    def is_readable(row: GenerationRow) -> bool:
        if row.number not in known:
            problems = ""
            try:
                if isinstance(registry.backend(row.backend), Probing):
                    problems = read_first(answers, root, row, PART_TIMEOUT_S)
            except NO_SOURCE as error:
                problems = error.message
            except ResourceExhausted as error:
                if not is_permission(error):
                    raise
                problems = error.message
            if problems:
                logger.warning("generation %d is no source of a repair: %s", row.number, problems)
            known[row.number] = not problems
        return known[row.number]

    return is_readable


def check_closed(root: Path, on_progress: OnProgress = no_progress) -> list[Finding]:
    """As `check_disk`, without an engine: for a process that does not have the directory open."""
    config = Config(worker_nice=0, idle_workers=WORKERS_MAX)
    pool = WorkerPool(root, config, SYSTEM)
    try:
        return check_disk(
            WorkerAnswers(pool, config, SYSTEM, Attention(SYSTEM), Metrics(), lambda: False), root, SYSTEM, on_progress
        )
    finally:
        pool.close()
