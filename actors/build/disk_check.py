"""What worker processes read first: a file that ends its reader is a finding, and never ends the host.

The check of everything on disk goes part by part. Shards are read before the host opens them.
"""

from __future__ import annotations

import logging
from pathlib import Path

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.model.config import Config
from shadowswitch.model.errors import (
    CorruptData,
    InternalFailure,
    InvalidConfig,
    ResourceExhausted,
    UnsupportedFilesystem,
)
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Probing
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.disk_check import CheckCatalog, CheckGeneration, Found
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.shard_reading import Checked, CheckShards
from shadowswitch.storage.repair.faults import Readable
from shadowswitch.storage.shortages import is_permission

logger = logging.getLogger("shadowswitch")

PART_TIMEOUT_S = 24 * 3600.0
"""For the catalog, and for each generation."""
NO_SOURCE = (CorruptData, InternalFailure, InvalidConfig, UnsupportedFilesystem)
"""What a generation that is damaged, or whose backend is missing, raises when it is read."""


def check_disk(answers: WorkerAnswers, root: Path, clock: Clock) -> list[Finding]:
    """Check everything: the findings, empty when sound.

    Raises StorageFull, ResourceExhausted, BuildCancelled, InternalFailure.
    """
    found = _part(answers, root, clock, CheckCatalog(str(root)))
    findings = list(found.findings)
    for number in found.generations:
        findings += _part(answers, root, clock, CheckGeneration(str(root), number)).findings
    return findings


def _part(answers: WorkerAnswers, root: Path, clock: Clock, task: CheckCatalog | CheckGeneration) -> Found:
    try:
        return answers.ask(task, Found, clock.monotonic() + PART_TIMEOUT_S)
    except ResourceExhausted as error:
        if not isinstance(task, CheckGeneration) or not is_permission(error):
            raise
        return Found([Finding("IX-4", f"generation {task.number}", str(error))])
    except CorruptData as error:
        if isinstance(task, CheckGeneration):
            return Found([Finding("IX-4", f"generation {task.number}", str(error))])
        where = f"{data_directory.CATALOG}/data.mdb"
        return Found([Finding("ST-4", where, f"{error}. The indexes were not checked.")])


def read_first(answers: WorkerAnswers, root: Path, row: GenerationRow, deadline: float, probe: bool = True) -> str:
    """What a worker process finds in the shards of a generation; "" when they are sound.

    Raises as `WorkerAnswers.ask`: CorruptData for a file that ends its readers.
    """
    paths = shard_paths(data_directory.inside(root, row.path), row.shards)
    task = CheckShards([str(path) for path in paths], row.backend, row.options, probe)
    return "; ".join(answers.ask(task, Checked, deadline).problems)


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
                    problems = read_first(answers, root, row, clock.monotonic() + PART_TIMEOUT_S)
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


def check_closed(root: Path) -> list[Finding]:
    """As `check_disk`, without an engine: for a process that does not have the directory open."""
    config = Config(worker_nice=0, idle_workers=1)
    pool = WorkerPool(root, config, SYSTEM)
    try:
        return check_disk(WorkerAnswers(pool, config, SYSTEM, Metrics(), lambda: False), root, SYSTEM)
    finally:
        pool.close()
