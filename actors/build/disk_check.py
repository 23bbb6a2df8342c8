"""The check of everything on disk, part by part in worker processes: a file that ends its reader is a finding."""

from __future__ import annotations

from pathlib import Path

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.model.config import Config
from shadowswitch.model.errors import CorruptData, ResourceExhausted
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.disk_check import CheckCatalog, CheckGeneration, Found
from shadowswitch.storage.shortages import is_permission

PART_TIMEOUT_S = 24 * 3600.0
"""For the catalog, and for each generation."""


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


def check_closed(root: Path) -> list[Finding]:
    """As `check_disk`, without an engine: for a process that does not have the directory open."""
    config = Config()
    pool = WorkerPool(root, nice=0, idle_max=1, map_size_bytes=config.map_size_bytes)
    try:
        return check_disk(WorkerAnswers(pool, config, SYSTEM, Metrics(), lambda: False), root, SYSTEM)
    finally:
        pool.close()
