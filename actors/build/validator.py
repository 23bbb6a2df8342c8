"""ShadowValidator: validation and repair of a standby generation. A worker process reads it while it stands still at a
common LSN with its source."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import msgspec

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.host_answer import Reasons, reasons_of
from shadowswitch.actors.switch.live_index import LIVE_S, LiveIndexes
from shadowswitch.model.digest import buckets_of_shard, shard_of
from shadowswitch.model.errors import CorruptData, InvalidConfig
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import manifest
from shadowswitch.storage.generations.external_manifest import CheckDelivery, Delivered
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.manifest import ClosedFile
from shadowswitch.storage.generations.validation import Inspect, Inspected, compare_sizes
from shadowswitch.storage.shortages import shortage

logger = logging.getLogger("shadowswitch")

REPAIR_SLICE = 1000
TURN_CHANGES = 5_000
"""The changes that it catches up with under one hold of the switch lock."""
BUILD_CHECKS = ["DIGEST", "INTEGRITY_CHECK", "RECORD_COUNT_VALIDATION", "SAMPLE_READ_BACK"]
"""A shadow must pass these to be BUILT, and again after a repair."""
MUST_BE_READ = frozenset({"DIGEST", "SAMPLE_READ_BACK", "QUERY_COMPARISON"})
"""These have to read the index, so an index in an unknown format cannot be checked with them."""


class Validation(msgspec.Struct, frozen=True):
    """The findings of a validation: errors by check, one line each in `errors`."""

    findings: dict[str, list[str]]
    errors: list[str]
    differing_buckets: list[int]
    rows: int
    size_bytes: int
    closed_files: dict[str, ClosedFile] = {}
    unchecked: str = ""
    """The checks that were asked for and could not be done, with the reason. Not a finding; the caller gets it."""


HostCheck = Callable[[IndexReader], Reasons]
"""A check that the host registered. It returns the problems of a shadow, one line each."""


def _summary(found: Inspected) -> Validation:
    errors = [f"{check}: {finding}" for check, findings in found.findings.items() for finding in findings]
    return Validation(found.findings, errors, found.differing_buckets, found.rows, found.size_bytes, found.closed_files)


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
        stop_asked: Callable[[], bool] = lambda: False,
        queries: tuple[str, ...] = (),
    ) -> Validation:
        """Hold the generation at the head of its branch and check it in a worker process, outside any lock.

        Raises BuildCancelled when `stop_asked` becomes true, Timeout after `Config.validation_timeout_s`. The
        generation must not be live.
        """
        writer = generation.writer
        deadline = self._context.clock.monotonic() + self._context.config.validation_timeout_s
        if generation.row.opaque:
            return self._validate_opaque(generation, checks, deadline, stop_asked)
        with writer.pause_apply(deadline - self._context.clock.monotonic()):
            lsn, source = self._context.catalog.source_digest(generation.row.branch, set(writer.types))
            self._catch_up(generation, lsn, deadline)
            live = self._indexes.live(generation.row.branch, generation.row.index_type)
            compared = live if live is not None and live is not generation else None
            asked = list(queries or (compared.asked if compared is not None else ()))
            if compared is None or compared.row.opaque:
                asked = []
            task = Inspect(
                data=str(self._context.root),
                path=str(generation.path),
                branch=generation.row.branch,
                types=writer.types,
                shards=generation.row.shards,
                backend=generation.row.backend,
                options=generation.row.options,
                checks=checks,
                lsn=lsn,
                digest=source.encode(),
                samples=self._context.config.validation_samples,
                seed=random.getrandbits(32),
                live_path=str(compared.path) if compared is not None else "",
                live_backend=compared.row.backend if compared is not None else "",
                live_options=compared.row.options if compared is not None else {},
                live_shards=compared.row.shards if compared is not None else 0,
                queries=asked,
                query_overlap_min=self._context.config.query_overlap_min,
                query_latency_ratio_max=self._context.config.query_latency_ratio_max,
                size_ratio_max=self._context.config.size_ratio_max,
                manifest_hash=self._manifest_hash(generation),
            )
            unchecked = "QUERY_COMPARISON, for there is nothing to compare with" if not asked else ""
            try:
                found = self.answers.ask(task, Inspected, deadline, stop_asked)
            except CorruptData as error:
                if not task.live_path or error.object != task.live_path:
                    raise
                logger.error("the live index cannot be compared with generation %d: %s", generation.row.number, error)
                unchecked = f"QUERY_COMPARISON, for the live index cannot be read ({error.message})"
                task = msgspec.structs.replace(task, queries=[])
                found = self.answers.ask(task, Inspected, deadline, stop_asked)
            return msgspec.structs.replace(_summary(found), unchecked=unchecked if "QUERY_COMPARISON" in checks else "")

    def _catch_up(self, generation: Generation, upto: int, deadline: float) -> None:
        """Apply up to an LSN. An exposed generation holds the switch lock for short turns: a switch waits for one."""
        index, live_until = self._indexes.of_generation(generation), self._context.clock.monotonic() + LIVE_S
        while index.is_exposed(generation) and generation.applied_lsn < upto:
            with index.switch_lock(deadline - self._context.clock.monotonic()):
                index.catch_up(generation, min(upto, generation.applied_lsn + TURN_CHANGES), deadline, live_until)
        generation.writer.apply_until(upto, deadline)

    def _validate_opaque(
        self, generation: Generation, checks: list[str], deadline: float, stop_asked: Callable[[], bool]
    ) -> Validation:
        """An index in an unknown format: compare its files, its count and its size, and prove that no change is newer.

        A check that has to read the index is reported as unchecked. Raises InvalidTransition when a change is newer:
        no check can make the index fit for a switch then.
        """
        lsn, source = self._context.catalog.source_digest(generation.row.branch, set(generation.writer.types))
        generation.writer.apply_until(lsn, deadline)
        delivered = self.answers.ask(
            CheckDelivery(str(generation.path), generation.row.shadow_id), Delivered, deadline, stop_asked
        )
        findings: dict[str, list[str]] = {check: [] for check in checks}
        if "INTEGRITY_CHECK" in checks:
            findings["INTEGRITY_CHECK"] = delivered.problems
        if delivered.record_count != source.count:
            text = f"the shadow holds {delivered.record_count} records, its source {source.count} at LSN {lsn}"
            findings["RECORD_COUNT_VALIDATION"] = [text]
        live = self._indexes.live(generation.row.branch, generation.row.index_type)
        if "SIZE_COMPARISON" in checks and live is not None and live is not generation:
            findings["SIZE_COMPARISON"] = compare_sizes(generation.path, live.path, self._context.config.size_ratio_max)
        unread = [check for check in checks if check in MUST_BE_READ]
        found = _summary(Inspected(findings, [], delivered.record_count, delivered.size_bytes))
        text = f"{', '.join(unread)}, for only its builder can read it" if unread else ""
        return msgspec.structs.replace(found, unchecked=text)

    def _manifest_hash(self, generation: Generation) -> str:
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

    def repair(self, generation: Generation, buckets: list[int]) -> None:
        """Replace whole buckets of a standby generation by the records of the source. The journal brings later changes.

        A record that is written during the repair may be read with an LSN above the `applied_lsn` of the shard; its
        later replay changes nothing (BK-2).
        """
        writer = generation.writer
        shards = generation.row.shards
        with writer.pause_apply():
            for bucket in buckets:
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

    def run_host_check(self, generation: Generation, name: str, found: Validation) -> Validation:
        """Run a check of the host on a standby generation. Its problems, or its exception, become findings.

        The check runs on the calling thread, in the process of the host, and gets an `IndexReader`.
        """
        reader = generation.take_reader()
        try:
            problems = reasons_of("the validator", self.host_checks[name](reader))
        except InvalidConfig as error:  # the answer, or a call that the validator made
            problems = [str(error)]
        except Exception as error:
            lack = shortage(error, "validate")
            if lack is not None:
                raise lack from error
            logger.exception("validator %s failed", name)
            problems = [f"it failed: {error!r}"]
        finally:
            generation.give_reader(reader)
        errors = [*found.errors, *(f"{name}: {problem}" for problem in problems)]
        return msgspec.structs.replace(found, findings={**found.findings, name: problems}, errors=errors)
