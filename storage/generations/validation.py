"""Validation of a shadow against its source at a common LSN. Runs in a worker process, while the shadow is paused.

Every check reads stored rows and trusts no counter: `DIGEST` recomputes the digest from the rows of each shard,
`RECORD_COUNT_VALIDATION` counts rows, `INTEGRITY_CHECK` runs the backend's own check and compares the checksums of
closed files, `SAMPLE_READ_BACK` reads random records of the source through the ordinary reader, compares them field by
field, and looks for deleted records.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.errors import CorruptData, JournalTrimmed, ShadowSwitchError
from shadowswitch.storage import disk
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records, read_slice
from shadowswitch.storage.catalog.journal_format import Entry
from shadowswitch.storage.catalog.keys import REPAIR
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.manifest import ClosedFile, check_closed_files, checksums
from shadowswitch.storage.generations.recount import probe
from shadowswitch.storage.reading import Note, no_note
from shadowswitch.storage.repair.digests import measure_gaps
from shadowswitch.storage.shortages import shortages

SIZE_RATIO_MAX = 10.0
SIZE_FLOOR_BYTES = 1 << 20
"""The fixed costs of a file dominate any smaller size."""
DELETES_CHECKED = 1000
QUERY_HITS = 10
LATENCY_FLOOR_S = 0.002
"""A ratio of shorter times would compare noise."""


class Inspect(msgspec.Struct, frozen=True, tag=True):
    """To a worker: run these checks. `digest` is the encoded digest of the source at `lsn`; the shadow is at `lsn`."""

    data: str
    path: str
    branch: int
    types: dict[int, str]
    shards: int
    backend: str
    options: dict[str, Any]
    checks: list[str]
    lsn: int
    digest: bytes
    samples: int
    seed: int
    live_path: str = ""
    live_backend: str = ""
    live_options: dict[str, Any] = {}
    live_shards: int = 0
    queries: list[str] = []
    query_overlap_min: float = 0.5
    query_latency_ratio_max: float = 5.0
    size_ratio_max: float = SIZE_RATIO_MAX
    manifest_hash: str = ""
    """"" while the build is under way: the worker then returns the closed files instead of comparing them."""


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """The findings of each check, empty when it passed, and the buckets in which rows and source differ."""

    findings: dict[str, list[str]]
    differing_buckets: list[int]
    rows: int
    size_bytes: int
    closed_files: dict[str, ClosedFile] = {}
    """The closed files of a build under way, if INTEGRITY_CHECK was among the checks."""


def inspect(catalog: Catalog, task: Inspect, reading: Note = no_note) -> Inspected:
    """Run the checks. An error of the disk or of the index is a finding of its check; one that may pass is raised.

    Raises CorruptData for damage that may end a reader: the host must not repair such a shadow either.
    """
    findings: dict[str, list[str]] = {}
    _probe(task, reading)
    reader = registry.backend(task.backend).open_reader(shard_paths(Path(task.path), task.shards), task.options)
    size = disk.directory_size_bytes(Path(task.path))
    recomputed = Digest()
    try:
        counters = _recompute(reader, shard_paths(Path(task.path), task.shards), recomputed, reading)
        reading(Path(task.path))
        source = Digest.decode(task.digest)
        for check in task.checks:
            try:
                findings[check] = _run(check, catalog, task, reader, source, recomputed, counters, reading)
            except ShadowSwitchError as error:
                if error.recoverable:
                    raise
                findings[check] = [str(error)]
    except ShadowSwitchError as error:
        if error.recoverable:
            raise
        findings.setdefault("INTEGRITY_CHECK", []).append(f"the shadow cannot be read: {error}")
    finally:
        reader.close()
    differing = recomputed.differing(Digest.decode(task.digest))
    closed: dict[str, ClosedFile] = {}
    if "INTEGRITY_CHECK" in task.checks and not task.manifest_hash:
        try:
            with shortages("validate", task.path):
                closed = checksums(Path(task.path), registry.backend(task.backend), task.shards, task.options)
        except OSError as error:
            findings.setdefault("INTEGRITY_CHECK", []).append(f"a closed file cannot be read: {error}")
    return Inspected(findings, differing, recomputed.count, size, closed)


def _probe(task: Inspect, reading: Note) -> None:
    backend = registry.backend(task.backend)
    for path in shard_paths(Path(task.path), task.shards):
        reading(path)
        found = probe(backend, path, task.options)
        if found:
            hint = "cancel the shadow and build another"
            raise CorruptData(f"{path.name}: {'; '.join(found)}", object=str(path), hint=hint)


def _recompute(reader: IndexReader, shards: list[Path], total: Digest, reading: Note) -> list[str]:
    problems = []
    for shard, path in enumerate(shards):
        reading(path)
        state, versions = reader.shard_versions(shard)
        own = Digest()
        own.add_versions(versions)
        if own != state.digest:
            problems.append(f"shard {shard}: counters say {state.digest!r}, rows say {own!r} (IX-2)")
        total.merge(own)
    return problems


def _run(
    check: str,
    catalog: Catalog,
    task: Inspect,
    reader: IndexReader,
    source: Digest,
    recomputed: Digest,
    counters: list[str],
    reading: Note,
) -> list[str]:
    if check == "DIGEST":
        differing = recomputed.differing(source)
        note = f"{len(differing)} of {BUCKETS} buckets differ from the source at LSN {task.lsn}: {differing}"
        if differing and _is_source_wrong(catalog, task, source, recomputed, differing):
            note += f"; the rows equal the records, and the digest of the catalog is wrong: {REPAIR}"
        return counters + ([note] if differing else [])
    if check == "RECORD_COUNT_VALIDATION":
        if recomputed.count == source.count:
            return []
        return [f"the shadow holds {recomputed.count} records, its source {source.count} at LSN {task.lsn}"]
    if check == "SIZE_COMPARISON":
        return compare_sizes(Path(task.path), Path(task.live_path), task.size_ratio_max) if task.live_path else []
    if check == "INTEGRITY_CHECK":
        backend = registry.backend(task.backend)
        paths = shard_paths(Path(task.path), task.shards)
        found = [f"{path.name}: {finding}" for path in paths for finding in backend.check(path, task.options)]
        return found + check_closed_files(Path(task.path), task.manifest_hash)
    if check == "QUERY_COMPARISON":
        return _compare_queries(task, reader, catalog.clock, reading)
    if check == "SAMPLE_READ_BACK":
        return _read_back(catalog, task, reader)
    raise AssertionError(f"check {check} passed SwitchRequest but is not known here")


def _is_source_wrong(catalog: Catalog, task: Inspect, source: Digest, rows: Digest, differing: list[int]) -> bool:
    """Do the rows have the digest that the records give, as of the same LSN?"""
    gaps, left_out = measure_gaps(catalog, task.branch, task.types, differing)
    right = source.copy()
    for gap in gaps.values():
        right.merge(gap)
    return not left_out and not rows.differing(right, differing)


def compare_sizes(shadow: Path, live_path: Path, ratio_max: float) -> list[str]:
    """SIZE_COMPARISON: the sizes of two indexes differ by at most the ratio."""
    size = disk.directory_size_bytes(shadow, logs=False)
    live = disk.directory_size_bytes(live_path, logs=False)
    small, large = sorted((max(size, SIZE_FLOOR_BYTES), max(live, SIZE_FLOOR_BYTES)))
    if large / small <= ratio_max:
        return []
    return [f"the shadow has {size} bytes, the live index {live}: more than {ratio_max} times apart"]


def _compare_queries(task: Inspect, reader: IndexReader, clock: Clock, reading: Note) -> list[str]:
    """QUERY_COMPARISON: both indexes have like hits and latencies on average. Single answers may differ."""
    if not task.live_path or not task.queries:
        return []
    backend = registry.backend(task.live_backend)
    reading(Path(task.live_path))
    live = backend.open_reader(shard_paths(Path(task.live_path), task.live_shards), task.live_options)
    try:
        old = [_answer(live, query, clock) for query in task.queries]
    finally:
        live.close()
    reading(Path(task.path))
    new = [_answer(reader, query, clock) for query in task.queries]
    shares = [len(before & after) / len(before) for (before, _), (after, _) in zip(old, new, strict=True) if before]
    problems = []
    overlap = statistics.mean(shares) if shares else 1.0
    if overlap < task.query_overlap_min:
        problems.append(
            f"the shadow gives {overlap:.0%} of the hits of the live index for {len(shares)} queries,"
            f" {task.query_overlap_min:.0%} were expected"
        )
    slow, fast = (max(LATENCY_FLOOR_S, statistics.median(s for _, s in side)) for side in (new, old))
    if slow / fast > task.query_latency_ratio_max:
        problems.append(f"the shadow takes {slow * 1000:.1f} ms for a query, the live index {fast * 1000:.1f} ms")
    return problems


def _answer(reader: IndexReader, query: str, clock: Clock) -> tuple[set[tuple[str, str]], float]:
    begun = clock.monotonic()
    hits = reader.search(query, QUERY_HITS)
    return {(hit.resource_type, hit.id) for hit in hits}, clock.monotonic() - begun


def _read_back(catalog: Catalog, task: Inspect, reader: IndexReader) -> list[str]:
    chance = random.Random(task.seed)
    backend = registry.backend(task.backend)
    problems = []
    for _ in range(task.samples):
        number, name = chance.choice(sorted(task.types.items()))
        bucket = chance.randrange(BUCKETS)
        start = keys.RECORD_PREFIX.pack(task.branch, number, bucket) + chance.randbytes(2)
        part = read_records(catalog, task.branch, number, name, range(bucket, bucket + 1), start, 1)
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
