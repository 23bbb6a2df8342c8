"""Validation of a shadow against its source, in a worker process.

It compares at a common LSN, while the shadow is paused. It trusts no counter. Before it, each shard is read
in a worker of its own (`shard_reading`): every row for `DIGEST` and `RECORD_COUNT_VALIDATION`, and the check of the
backend for `INTEGRITY_CHECK`. Here are the comparisons of the whole: with the digest of the source, with the checksums
of closed files, and `SAMPLE_READ_BACK`, which reads random records of the source through the ordinary reader, compares
them field by field, and looks for deleted records.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.errors import JournalTrimmed, ShadowSwitchError
from shadowswitch.storage import disk
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records, read_slice
from shadowswitch.storage.catalog.journal_format import Entry
from shadowswitch.storage.catalog.keys import REPAIR
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.manifest import check_closed_files
from shadowswitch.storage.reading import Count, Note, no_look, no_note
from shadowswitch.storage.repair.digests import measure_gaps

DELETES_CHECKED = 1000


class Inspect(msgspec.Struct, frozen=True, tag=True):
    """To a worker: run these checks. `digest` is the encoded digest of the source at `lsn`; the shadow is at `lsn`."""

    path: str
    branch: int
    types: dict[int, str]
    shards: int
    backend: str
    options: dict[str, Any]
    checks: list[str]
    lsn: int
    digest: bytes
    rows: bytes
    """The encoded digest of every row."""
    problems: dict[str, list[str]]
    """What the readings of the shards found, by check."""
    samples: int
    seed: int
    manifest_hash: str = ""
    """"" while the build is under way: there is nothing yet to compare closed files with."""


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """The findings of each check, empty when it passed, and the buckets in which rows and source differ."""

    findings: dict[str, list[str]]
    differing_buckets: list[int]
    rows: int
    size_bytes: int


def inspect(catalog: Catalog, task: Inspect, reading: Note = no_note, looked: Count = no_look) -> Inspected:
    """Run the checks. An error of the disk or of the index is a finding of its check; one that may pass is raised."""
    findings = {check: found for check, found in task.problems.items() if found}
    path, rows, source = Path(task.path), Digest.decode(task.rows), Digest.decode(task.digest)
    reading(path)
    for check in task.checks:
        try:
            found = _run(check, catalog, task, source, rows, looked)
        except ShadowSwitchError as error:
            if error.recoverable:
                raise
            found = [str(error)]
        findings[check] = findings.get(check, []) + found
    return Inspected(findings, rows.differing(source), rows.count, disk.directory_size_bytes(path))


def _run(check: str, catalog: Catalog, task: Inspect, source: Digest, rows: Digest, looked: Count) -> list[str]:
    if check == "DIGEST":
        differing = rows.differing(source)
        note = f"{len(differing)} of {BUCKETS} buckets differ from the source at LSN {task.lsn}: {differing}"
        if differing and _is_source_wrong(catalog, task, source, rows, differing):
            note += f"; the rows equal the records, and the digest of the catalog is wrong: {REPAIR}"
        return [note] if differing else []
    if check == "RECORD_COUNT_VALIDATION":
        if rows.count == source.count:
            return []
        return [f"the shadow holds {rows.count} records, its source {source.count} at LSN {task.lsn}"]
    if check == "INTEGRITY_CHECK":
        return check_closed_files(Path(task.path), task.manifest_hash)
    if check == "SAMPLE_READ_BACK":
        paths = shard_paths(Path(task.path), task.shards)
        with contextlib.closing(registry.backend(task.backend).open_reader(paths, task.options)) as reader:
            return _read_back(catalog, task, reader, looked)
    raise AssertionError(f"check {check} passed SwitchRequest but is not known here")


def _is_source_wrong(catalog: Catalog, task: Inspect, source: Digest, rows: Digest, differing: list[int]) -> bool:
    """Do the rows have the digest that the records give, as of the same LSN?"""
    gaps, left_out = measure_gaps(catalog, task.branch, task.types, differing)
    right = source.copy()
    for gap in gaps.values():
        right.merge(gap)
    return not left_out and not rows.differing(right, differing)


def _read_back(catalog: Catalog, task: Inspect, reader: IndexReader, looked: Count) -> list[str]:
    chance = random.Random(task.seed)
    backend = registry.backend(task.backend)
    problems = []
    for _ in range(task.samples):
        number, name = chance.choice(sorted(task.types.items()))
        bucket = chance.randrange(BUCKETS)
        start = keys.RECORD_PREFIX.pack(task.branch, number, bucket) + chance.randbytes(2)
        part = read_records(catalog, task.branch, number, name, range(bucket, bucket + 1), start, 1)
        looked(1)
        for item in part.items:
            if item.lsn > task.lsn:
                continue  # a later change; the replay brings it
            held = reader.get(item.resource_type, item.id)
            if held is None:
                problems.append(f"{item.resource_type} {item.id!r} of LSN {item.lsn} is not in the shadow")
            elif held.lsn != item.lsn or held.fields != backend.project(task.options, item.fields or {}):
                problems.append(f"{item.resource_type} {item.id!r} differs from its source at LSN {item.lsn}")
    return problems + _deleted_are_absent(catalog, task, reader)


def _deleted_are_absent(catalog: Catalog, task: Inspect, reader: IndexReader) -> list[str]:
    last: dict[tuple[str, str], Entry] = {}
    after = max(0, task.lsn - DELETES_CHECKED)
    try:
        while after < task.lsn:
            entries, after = read_slice(catalog, task.branch, after, task.lsn, DELETES_CHECKED)
            last.update({(entry.resource_type, entry.id): entry for entry in entries})
    except JournalTrimmed:
        return []
    problems = []
    for entry in last.values():
        name, id = entry.resource_type, entry.id
        if entry.fields is None and name in task.types.values() and reader.get(name, id) is not None:
            problems.append(f"{name} {id!r} was deleted at LSN {entry.lsn} and is in the shadow")
    return problems
