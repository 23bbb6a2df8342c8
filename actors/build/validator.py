"""ShadowValidator: validation and repair of a standby generation. A worker process reads it while it stands still at a
common LSN with its source."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.host_answer import Reasons
from shadowswitch.actors.switch.live_index import LIVE_S, LiveIndexes
from shadowswitch.model.digest import Digest, buckets_of_shard, shard_of
from shadowswitch.model.errors import CorruptData, Timeout
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.protocol import IndexReader, Probing
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import manifest
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.external_manifest import CheckDelivery, Delivered
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.manifest import ClosedFile
from shadowswitch.storage.generations.shard_reading import Checked, CheckShards, ReadShard, ShardRead
from shadowswitch.storage.generations.validation import Inspect, Inspected

logger = logging.getLogger("shadowswitch")

REPAIR_SLICE = 1000
BESIDE_S = 0.02
TURN_CHANGES = 5_000
"""The changes that it catches up with under one hold of the switch lock."""
BUILD_CHECKS = ["DIGEST", "INTEGRITY_CHECK", "RECORD_COUNT_VALIDATION", "SAMPLE_READ_BACK"]
"""A shadow must pass these to be BUILT, and again after a repair. They read its rows; a switch does not do it again."""
CLONE_CHECKS = ["DIGEST", "RECORD_COUNT_VALIDATION", "SAMPLE_READ_BACK"]
COMPARISONS = ("SIZE_COMPARISON", "QUERY_COMPARISON")
"""These compare with the live index."""
MUST_BE_READ = frozenset({"DIGEST", "SAMPLE_READ_BACK", "QUERY_COMPARISON"})
"""These have to read the index, so an index in an unknown format cannot be checked with them."""


ONLY_ITS_BUILDER = "for only its builder can read it"


class Validation(msgspec.Struct, frozen=True):
    """The findings of a validation: errors by check, one line each in `errors`."""

    findings: dict[str, list[str]]
    errors: list[str]
    differing_buckets: list[int]
    rows: int
    size_bytes: int
    closed_files: dict[str, ClosedFile] = {}
    improvement: float | None = None
    """The time of a query of the live index by that of this one, where queries were compared."""
    allowed: list[str] = []
    """What the gate would have refused, and the request allows."""
    unchecked: str = ""
    """The checks that were asked for and could not be done, with the reason. Not a finding; the caller gets it."""
    note: str = ""
    """What a check that passed says all the same; the caller gets it."""

    def joined(self, other: Validation) -> Validation:
        """Both, with what the other one measured."""
        return msgspec.structs.replace(
            self,
            findings={**self.findings, **other.findings},
            errors=[*self.errors, *other.errors],
            size_bytes=other.size_bytes or self.size_bytes,
            improvement=self.improvement if other.improvement is None else other.improvement,
            unchecked="; ".join(filter(None, [self.unchecked, other.unchecked])),
            note="; ".join(filter(None, [self.note, other.note])),
        )

    @property
    def remarks(self) -> str:
        """What the message of a switch that went on adds to its first words."""
        text = f"; not checked: {self.unchecked}" if self.unchecked else ""
        return text + (f"; {self.note}" if self.note else "")


HostCheck = Callable[[IndexReader], Reasons]
"""A check that the host registered. It returns the problems of a shadow, one line each."""


NOTHING = Validation({}, [], [], 0, 0)


def _summary(found: Inspected) -> Validation:
    errors = [f"{check}: {finding}" for check, findings in found.findings.items() for finding in findings]
    return Validation(found.findings, errors, found.differing_buckets, found.rows, found.size_bytes)


def _joined(shards: list[ShardRead]) -> tuple[Digest, dict[str, list[str]], dict[str, ClosedFile]]:
    """The digest of all rows, what the readings found, by check, and the closed files."""
    rows, closed = Digest(), dict[str, ClosedFile]()
    problems: dict[str, list[str]] = {"DIGEST": [], "INTEGRITY_CHECK": []}
    for number, shard in enumerate(shards):
        own, counters = Digest.decode(shard.rows), Digest.decode(shard.counters)
        rows.merge(own)
        if shard.damage:
            problems["INTEGRITY_CHECK"].append(f"the shadow cannot be read: {shard.damage}")
        elif own != counters:
            problems["DIGEST"].append(f"shard {number}: counters say {counters!r}, rows say {own!r} (IX-2)")
        problems["INTEGRITY_CHECK"] += shard.problems
        closed.update(shard.closed_files)
    return rows, problems, closed


class ShadowValidator:
    """Validates and repairs generations that are not live. Any thread; it blocks for as long as that takes."""

    def __init__(self, context: EngineContext, answers: WorkerAnswers, indexes: LiveIndexes) -> None:
        self._context = context
        self.answers = answers
        self._indexes = indexes
        self.host_checks: dict[str, HostCheck] = {}
        """By the name that a SwitchRequest uses."""

    def validate(
        self,
        generation: Generation,
        checks: list[str],
        deadline: float,
        stop_asked: Callable[[], bool] = lambda: False,
        workers: int = 1,
    ) -> Validation:
        """Hold the generation at the head of its branch and check it in worker processes, outside any lock.

        `checks` are of BUILD_CHECKS. SAMPLE_READ_BACK alone visits no other row. `deadline` is monotonic.
        Raises BuildCancelled when `stop_asked` becomes true, Timeout at the deadline and after
        `Config.validation_timeout_s` without progress. The generation must not be live.
        """
        if generation.row.opaque:
            return self._validate_opaque(generation, checks, deadline, stop_asked)
        row, writer = generation.row, generation.writer
        with self._held(generation, deadline) as (lsn, source):
            rows, problems, closed = source, dict[str, list[str]](), dict[str, ClosedFile]()
            if checks != ["SAMPLE_READ_BACK"]:
                paths = shard_paths(generation.path, row.shards)
                tasks = [ReadShard(str(path), row.backend, row.options, "INTEGRITY_CHECK" in checks) for path in paths]
                rows, problems, closed = _joined(self.answers.ask_each(tasks, ShardRead, deadline, stop_asked, workers))
            task = Inspect(
                path=str(generation.path),
                branch=row.branch,
                types=writer.types,
                shards=row.shards,
                backend=row.backend,
                options=row.options,
                checks=checks,
                lsn=lsn,
                digest=source.encode(),
                rows=rows.encode(),
                problems=problems,
                samples=self._context.config.validation_samples,
                seed=random.getrandbits(32),
                manifest_hash=self.manifest_hash(generation),
            )
            found = _summary(self.answers.ask(task, Inspected, deadline, stop_asked))
            return msgspec.structs.replace(found, closed_files=closed)

    def validate_build(
        self, generation: Generation, stop_asked: Callable[[], bool], workers: int, is_clone: bool = False
    ) -> Validation:
        """What a shadow must pass to be BUILT, in as many workers as its build has.

        The backend checks a clone without closed files once it is live (`actors.build.scrubber`).
        """
        paths, options = shard_paths(generation.path, generation.row.shards), generation.row.options
        is_clone = is_clone and not any(generation.backend.closed_files(path, options) for path in paths)
        return self.validate(generation, CLONE_CHECKS if is_clone else BUILD_CHECKS, math.inf, stop_asked, workers)

    def until(self, deadline: float = math.inf) -> float:
        """The deadline of a step that begins now: by `Config.validation_timeout_s`, or an earlier one."""
        return min(deadline, self._context.clock.monotonic() + self._context.config.validation_timeout_s)

    def probe(self, generation: Generation, deadline: float) -> list[str]:
        """The problems of closed files by their sizes. It reads no row.

        Raises Timeout, and CorruptData for files that may end their reader.
        """
        row = generation.row
        found = manifest.check_closed_files(generation.path, self.manifest_hash(generation), contents=False)
        if isinstance(generation.backend, Probing):
            paths = [str(path) for path in shard_paths(generation.path, row.shards)]
            task = CheckShards(paths, row.backend, row.options, probe=True)
            problems = self.answers.ask(task, Checked, deadline).problems
            if problems:
                hint = "cancel the shadow and build another"
                raise CorruptData("; ".join(problems), operation="validate", object=str(generation.path), hint=hint)
        return found

    def differing(self, generation: Generation, deadline: float) -> list[int]:
        """The buckets in which the counters of a generation differ from its source at a common LSN. It reads no row.

        That proves a generation whose rows were validated once, and to which the engine has applied every change since:
        counters and rows change together (IX-2). Raises Timeout.
        """
        with self._held(generation, deadline) as (_, source):
            return generation.writer.differing(source)

    def differing_beside_readers(self, generation: Generation, deadline: float) -> list[int]:
        """As `differing`, of a live generation. Neither its readers nor a switch wait for it. Raises Timeout."""
        branch, index, writer = generation.row.branch, self._indexes.of_generation(generation), generation.writer
        source = partial(self._context.catalog.source_digest, branch, set(writer.types))
        while self._context.clock.monotonic() < deadline:
            found = writer.differing_beside_readers(source, partial(index.follow_limit, generation))
            if found is not None:
                generation.advanced()
                return found
            self._context.clock.sleep(BESIDE_S)
        raise Timeout(f"generation {generation.row.number} was not at the head of its branch", operation="validate")

    @contextlib.contextmanager
    def _held(self, generation: Generation, deadline: float) -> Iterator[tuple[int, Digest]]:
        """Meanwhile the generation stands still at an LSN, the head of its branch a moment ago; the digest of its
        source there."""
        writer = generation.writer
        with writer.pause_apply(self.until(deadline) - self._context.clock.monotonic()):
            lsn, source = self._context.catalog.source_digest(generation.row.branch, set(writer.types))
            self._catch_up(generation, lsn, deadline)
            yield lsn, source

    def live_beside(self, generation: Generation) -> Generation | None:
        """The live generation of the same index, if it is another one."""
        live = self._indexes.live(generation.row.branch, generation.row.index_type)
        return live if live is not generation else None

    def _catch_up(self, generation: Generation, upto: int, deadline: float) -> None:
        """Apply up to an LSN. An exposed generation holds the switch lock for short turns: a switch waits for one.

        Raises Timeout at the deadline, and for a turn that takes `Config.validation_timeout_s`.
        """
        index, live_until = self._indexes.of_generation(generation), self._context.clock.monotonic() + LIVE_S
        while index.is_exposed(generation) and generation.applied_lsn < upto:
            until = self.until(deadline)
            with index.switch_lock(until - self._context.clock.monotonic()):
                index.catch_up(generation, min(upto, generation.applied_lsn + TURN_CHANGES), until, live_until)
        while generation.applied_lsn < upto:
            generation.writer.apply_until(min(upto, generation.applied_lsn + TURN_CHANGES), self.until(deadline))

    def _validate_opaque(
        self, generation: Generation, checks: list[str], deadline: float, stop_asked: Callable[[], bool]
    ) -> Validation:
        """An index in an unknown format: compare its files, its count and its size, and prove that no change is newer.

        A check that has to read the index is reported as unchecked. Raises InvalidTransition when a change is newer:
        no check can make the index fit for a switch then.
        """
        lsn, source = self._context.catalog.source_digest(generation.row.branch, set(generation.writer.types))
        generation.writer.apply_until(lsn, self.until(deadline))
        delivered = self.answers.ask(
            CheckDelivery(str(generation.path), generation.row.shadow_id), Delivered, deadline, stop_asked
        )
        findings: dict[str, list[str]] = {check: [] for check in checks if check not in COMPARISONS}
        if "INTEGRITY_CHECK" in checks:
            findings["INTEGRITY_CHECK"] = delivered.problems
        if delivered.record_count != source.count:
            text = f"the shadow holds {delivered.record_count} records, its source {source.count} at LSN {lsn}"
            findings["RECORD_COUNT_VALIDATION"] = [text]
        unread = [check for check in checks if check in MUST_BE_READ]
        found = _summary(Inspected(findings, [], delivered.record_count, delivered.size_bytes))
        text = f"{', '.join(unread)}, {ONLY_ITS_BUILDER}" if unread else ""
        return msgspec.structs.replace(found, unchecked=text)

    def manifest_hash(self, generation: Generation) -> str:
        """The checksum of the manifest of a build that has ended, or ""."""
        row = self._context.catalog.generation(generation.row.number)
        return row.manifest_hash if row is not None else ""

    def finish_manifest(self, generation: Generation, branch_name: str, lsn: int, found: Validation) -> str:
        """Write the end of the build and the checksums of the validation into the manifest; returns its checksum.

        Raises DirectoryLost: the validation before it took long, and the manifest is written by its path.
        """
        self._context.hold.check()
        digest = manifest.short(generation.writer.digest())
        built = manifest.Built(lsn, found.rows, digest, found.closed_files)
        return manifest.write_manifest(generation.path, generation.row, branch_name, self._context.catalog.uuid, built)

    def repair(self, generation: Generation, buckets: list[int], deadline: float = math.inf) -> None:
        """Replace whole buckets of a standby generation by the records of the source. The journal brings later changes.

        Raises Timeout when the (monotonic) deadline has come before a bucket: those before it are repaired.

        A record that is written during the repair may be read with an LSN above the `applied_lsn` of the shard; its
        later replay changes nothing (BK-2).
        """
        writer = generation.writer
        shards = generation.row.shards
        with writer.pause_apply():
            for bucket in buckets:
                if self._context.clock.monotonic() >= deadline:
                    raise Timeout(f"bucket {bucket} was not repaired in time", operation="validate", hint="try again")
                items: list[Item] = []
                for number, name in sorted(writer.types.items()):
                    cursor = b""
                    done = False
                    while not done:
                        chunk = read_records(
                            self._context.catalog,
                            generation.row.branch,
                            number,
                            name,
                            range(bucket, bucket + 1),
                            cursor,
                            REPAIR_SLICE,
                        )
                        items += chunk.items
                        cursor, done = chunk.cursor, chunk.done
                shard = shard_of(bucket, shards)
                assert bucket in buckets_of_shard(shard, shards)
                writer.repair(shard, bucket, items)
                failpoint("repair.bucket")
