"""The parts of fsck as tasks of a worker process, so that a file that ends its reader is a finding."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.fsck import plan
from shadowswitch.storage.fsck.found import readable
from shadowswitch.storage.fsck.generation import check_generation
from shadowswitch.storage.fsck.journal import check_journals
from shadowswitch.storage.fsck.plan import CheckGeneration, CheckJournals, CheckRecords, CheckRows, Part
from shadowswitch.storage.fsck.records import BEGIN, END, check_records
from shadowswitch.storage.fsck.rows import check_rows
from shadowswitch.storage.reading import Count, Note, no_look, no_note

ALL_BRANCHES = 1 << 32


class PlanCheck(msgspec.Struct, frozen=True, tag=True):
    """To a worker: cut the check of its data directory into parts."""

    root: str


class Plan(msgspec.Struct, frozen=True, tag=True):
    """The parts of the catalog, then those of the generations, and what did not decode."""

    catalog: list[Part]
    generations: list[Part]
    findings: list[Finding]


class Found(msgspec.Struct, frozen=True, tag=True):
    """The findings of a part."""

    findings: list[Finding]


CheckTask = PlanCheck | CheckRows | CheckJournals | CheckRecords | CheckGeneration


def perform(catalog: Catalog, task: CheckTask, reading: Note = no_note, looked: Count = no_look) -> Plan | Found:
    """What a worker does for a part of the check."""
    if isinstance(task, PlanCheck):
        return _plan(catalog, task.root)
    if isinstance(task, CheckRows):
        return Found(check_rows(catalog, Path(task.root)))
    if isinstance(task, CheckJournals):
        return Found(check_journals(catalog, task.begin, task.end, looked))
    if isinstance(task, CheckRecords):
        return Found(check_records(catalog, task.begin, task.end, looked))
    row = catalog.generation(task.number)
    if row is None or task.shard >= row.shards:
        return Found([])
    return Found(check_generation(catalog, Path(task.root), row, task.shard, reading, looked))


def _plan(catalog: Catalog, root: str) -> Plan:
    """What does not decode cannot be cut into parts."""
    findings: list[Finding] = []
    whole_records, whole_journal = Part(CheckRecords(BEGIN, END), 0), Part(CheckJournals(0, ALL_BRANCHES), 0)
    journals = readable(lambda: list(plan.journal_parts(catalog)), findings) or [whole_journal]
    records = readable(lambda: list(plan.record_parts(catalog)), findings) or [whole_records]
    by_length = sorted(journals, key=lambda part: -part.rows)  # the longest first, as it is one
    generations = list(plan.generation_parts(catalog, Path(root), findings))
    return Plan([plan.rows_part(catalog, root), *by_length, *records], generations, findings)


def check_all(catalog: Catalog, root: Path) -> list[Finding]:
    """Every finding of a check in this process."""
    parts = _plan(catalog, str(root))
    findings = list(parts.findings)
    for part in [*parts.catalog, *parts.generations]:
        found = perform(catalog, part.task)
        assert isinstance(found, Found)
        findings += found.findings
    return findings
