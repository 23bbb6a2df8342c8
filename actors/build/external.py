"""ExternalBuilds: another process builds, and the engine checks the files that it delivers.

    start      the builder gets the directory and S, the head of the branch. The journal after S is kept
    progress   a report also shows that the builder lives; after `external_timeout_s` without one the build fails
    complete   a worker process compares files, manifest, sizes and checksums with the claim of the builder. An index of
               a known backend is then adopted: a worker opens a private copy, which takes the place of the delivered
               files. It is caught up and validated like any other, and followed. An index in an
               unknown format is as good as the `applied_lsn` of its builder, which the switch compares
    refused    the shadow stays BUILDING, with the reasons: the builder mends it and completes again, or fails it

A claim alone never makes a shadow BUILT: a claim that differs from the files refuses the completion. The calls run on
the thread of the caller.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.maintenance.follower import Follow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import (
    BuildCancelled,
    CompletionRefused,
    CorruptData,
    InvalidTransition,
    ShadowSwitchError,
    UnsupportedFilesystem,
)
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow
from shadowswitch.storage.catalog.transaction import signed
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import adoption
from shadowswitch.storage.generations import generation as generations
from shadowswitch.storage.generations.adoption import Adopt
from shadowswitch.storage.generations.directory import MANIFEST
from shadowswitch.storage.generations.external_manifest import CheckDelivery, Delivered
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.shard_reading import Checked

logger = logging.getLogger("shadowswitch")

S = ShadowState


class Claim(msgspec.Struct, frozen=True):
    """The claim of a builder about its index; None: no claim."""

    index_size_bytes: int | None = None
    record_count: int | None = None
    applied_lsn: int | None = None
    build_summary: dict[str, Any] | None = None
    by: str = ""
    reason: str = ""


class ExternalBuilds:
    """The external builds of an engine. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        validator: ShadowValidator,
        generations: OpenGenerations,
        heads: Heads,
        followers: FollowerPool,
        builds: RunningBuilds,
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._validator = validator
        self._generations = generations
        self._heads = heads
        self._followers = followers
        self._heard_at = builds.heard_at
        self._pauses = context.attention.look()
        self._lock = threading.Lock()
        self._completing: dict[str, Claim] = {}

    # -- start, progress, failure ----------------------------------------------------------------------------------

    def prepare(self, row: ShadowRow) -> ShadowRow:
        """PREPARING to BUILDING: make the directory, or reuse that of a retried build. Idempotent."""
        spec = self._context.catalog.generation(row.generation)
        assert spec is not None, f"IX-6 shadow {row.id} is {row.state} and has no generation"
        failpoint("build.claimed")
        self._context.hold.check()
        if row.start_lsn and (self._context.root / spec.path / MANIFEST).exists():
            row = self._context.transact(lambda c: transitions.resume_building(c, row.id), "retry")
        else:
            uuid = self._context.catalog.uuid
            with disk_errors("build"):
                backend = registry.backend(spec.backend)
                generations.create(self._context.root, spec, row.branch_name, uuid, backend, self._context.hold.check)
            failpoint("build.prepared")
            row = self._context.transact(lambda c: transitions.begin_building(c, row.id), "start_build")
        self._hear(row.id)
        return row

    def progress(self, shadow_id: str, percent: float, eta_s: float | None, record_count: int | None) -> None:
        """The builder lives and reports its progress. Raises InvalidTransition when the shadow is not BUILDING."""
        self._building(shadow_id, "report progress")
        self._hear(shadow_id)
        self._context.transact(
            lambda c: transitions.note_external(c, shadow_id, percent, eta_s, record_count), "report progress"
        )

    def fail(self, shadow_id: str, error: str, by: str = "") -> None:
        """The builder gave up."""
        self._building(shadow_id, "fail build")
        work = partial(transitions.mark_failed, shadow_id=shadow_id, reason=error)
        self._context.transact(signed(work, by), "fail build")
        self._context.metrics.count("builds_failed")

    def fail_silent(self, shadow_ids: Iterable[str]) -> None:
        """For the Janitor: fail the builds that are silent for too long. A start of the engine begins the time anew,
        and so does a pause of its process."""
        pauses = self._context.attention.look()
        if pauses != self._pauses:
            self._pauses = pauses
            self._heard_at.clear()
        limit = self._context.config.external_timeout_s
        for row in map(self._context.catalog.shadow, shadow_ids):
            if not row.external or row.state not in (S.PREPARING, S.BUILDING) or row.id in self._completing:
                self._heard_at.pop(row.id, None)
                continue
            silent_s = self._clock.monotonic() - self._heard_at.setdefault(row.id, self._clock.monotonic())
            if silent_s > limit:
                reason = f"nothing was heard of its builder for {limit:g} s (Config.external_timeout_s)"
                self._context.transact(partial(transitions.mark_failed, shadow_id=row.id, reason=reason), "fail build")
                self._context.metrics.count("builds_failed")

    def _hear(self, shadow_id: str) -> None:
        self._heard_at[shadow_id] = self._clock.monotonic()

    def _building(self, shadow_id: str, operation: str) -> ShadowRow:
        row = self._context.catalog.shadow(shadow_id)
        if not row.external:
            raise InvalidTransition(
                f"shadow {shadow_id} is built by the engine itself",
                operation=operation,
                object=shadow_id,
                hint="only a build started with external=True is reported on; see cancel_build",
            )
        if row.state != S.BUILDING:
            raise InvalidTransition(
                f"shadow {shadow_id} is {row.state}, not BUILDING{f': {row.error}' if row.error else ''}",
                operation=operation,
                object=shadow_id,
                hint="stop building; a FAILED one goes on after retry_build",
            )
        return row

    # -- completion ------------------------------------------------------------------------------------------------

    def complete(self, shadow_id: str, claim: Claim) -> ShadowRow:
        """Check the delivered files; BUILT if they are sound. Raises CompletionRefused with every problem."""
        row = self._context.catalog.shadow(shadow_id)
        spec = self._context.catalog.generation(row.generation)
        again = row.external and row.state == S.BUILT and spec is not None and spec.opaque
        if not again:
            row = self._building(shadow_id, "complete build")
        with self._alone(shadow_id, claim):
            self._hear(shadow_id)
            try:
                assert spec is not None, f"IX-6 shadow {row.id} is {row.state} and has no generation"
                found = self._inspected(row, claim, spec.opaque)
                if spec.opaque:
                    return self._complete_opaque(row, spec, found, claim)
                return self._complete_known(row, spec, found, claim)
            finally:
                self._hear(shadow_id)

    @contextlib.contextmanager
    def _alone(self, shadow_id: str, claim: Claim) -> Iterator[None]:
        with self._lock:
            if shadow_id in self._completing:
                raise InvalidTransition(
                    f"shadow {shadow_id} is being completed by another call", hint="wait for its answer"
                )
            self._completing[shadow_id] = claim
        try:
            yield
        finally:
            with self._lock:
                self._completing.pop(shadow_id, None)

    def _inspected(self, row: ShadowRow, claim: Claim, opaque: bool) -> Delivered:
        path = self._context.root / row.path
        if not opaque:
            adoption.put_back(path)
        task = CheckDelivery(str(path), row.id, copied=not opaque)
        try:
            found = self._validator.answers.ask(task, Delivered)
        except BaseException:
            self._end_copy(path, opaque)
            raise
        problems = list(found.problems)
        if not problems:
            claims = (
                ("index_size_bytes", claim.index_size_bytes, found.size_bytes),
                ("record_count", claim.record_count, found.record_count),
                ("applied_lsn", claim.applied_lsn, found.applied_lsn),
            )
            for name, said, seen in claims:
                if said is not None and said != seen:
                    problems.append(f"{name} is claimed to be {said}, the files say {seen}")
            head = self._heads.of(row.branch)
            if not row.start_lsn <= found.applied_lsn <= head:
                problems.append(
                    f"applied_lsn {found.applied_lsn} is not from start_lsn {row.start_lsn} to the head, {head}"
                )
        if problems:
            self._end_copy(path, opaque)
        self._refuse_if(row, problems)
        return found

    def _end_copy(self, path: Path, opaque: bool) -> None:
        """Nothing was adopted: its private copy takes no room while the builder mends it."""
        if not opaque:
            adoption.end(path)

    def _refuse_if(self, row: ShadowRow, problems: list[str]) -> None:
        if not problems:
            return
        self._context.metrics.count("completions_refused")
        work = partial(transitions.note_refused, shadow_id=row.id, problems=problems)
        claim = self._completing[row.id]
        self._context.transact(signed(work, claim.by, claim.reason), "complete build")
        raise CompletionRefused(
            f"shadow {row.id} is not what it should be: {'; '.join(problems)}",
            problems=problems,
            operation="complete build",
            object=row.id,
            hint="mend it and complete it again, or fail_build",
        )

    def _complete_opaque(self, row: ShadowRow, spec: GenerationRow, found: Delivered, claim: Claim) -> ShadowRow:
        opened = self._generations.get(spec.number)
        if opened is None:
            opened = self._generations.open(spec)
        try:
            opened.writer.adopt()
            self._refuse_if(row, self._miscounted(opened, found))
            return self._mark_built(row, found.applied_lsn, found, claim)
        except BaseException:
            if row.state == S.BUILDING:
                self._close(opened)
            raise

    def _miscounted(self, generation: Generation, found: Delivered) -> list[str]:
        """Compare the number of records with that of the source, which is known only for its head: an index behind the
        head is not compared."""
        try:
            lsn, source = self._context.catalog.source_digest(generation.row.branch, set(generation.writer.types))
            generation.writer.apply_until(lsn, self._validator.until())
        except InvalidTransition:
            return []  # changes came since; the switch compares again
        if found.record_count == source.count:
            return []
        return [f"the index holds {found.record_count} records, its source {source.count} at LSN {lsn}"]

    def _complete_known(self, row: ShadowRow, spec: GenerationRow, found: Delivered, claim: Claim) -> ShadowRow:
        path = self._context.root / spec.path
        try:
            generation = self._adopted(spec, path)
        except (ShadowSwitchError, OSError) as error:
            adoption.put_back(path)
            if isinstance(error, CorruptData | UnsupportedFilesystem):
                self._refuse_if(row, [f"it cannot be opened as an index of {spec.backend}: {error.message}"])
            raise
        try:
            writer = generation.writer
            problems = [] if writer.loaded else ["a shard of it was not completed (finish_load)"]
            if writer.applied_lsn != found.applied_lsn:
                problems.append(f"its shards are at LSN {writer.applied_lsn}, its manifest says {found.applied_lsn}")
            self._refuse_if(row, problems)
            checked = self._validator.validate_build(generation, partial(self._cancelled, row.id), workers=1)
            self._refuse_if(row, checked.errors)
            lsn = writer.flush()
            with disk_errors("build"):
                written = self._validator.finish_manifest(generation, row.branch_name, lsn, checked)
            failpoint("build.manifest")
            seen = msgspec.structs.replace(found, record_count=checked.rows, size_bytes=checked.size_bytes)
            done = self._mark_built(row, lsn, seen, claim, written)
        except BaseException as error:
            self._close(generation)
            adoption.put_back(path)
            if self._cancelled(row.id) and not isinstance(error, CompletionRefused):
                raise BuildCancelled(f"shadow {row.id} was cancelled while it was completed", object=row.id) from error
            raise
        self._followers.of(spec.number).tell(Follow(generation))
        adoption.end(path)
        return done

    def _adopted(self, spec: GenerationRow, path: Path) -> Generation:
        """The delivered shards, opened. A worker is the first reader of their private copies."""
        task = Adopt(str(path), spec.shards, spec.backend, spec.options)
        problems = self._validator.answers.ask(task, Checked).problems
        if problems:
            raise CorruptData("; ".join(problems), object=str(path))
        return self._generations.open(spec)

    def _mark_built(
        self, row: ShadowRow, lsn: int, found: Delivered, claim: Claim, manifest_hash: str = ""
    ) -> ShadowRow:
        failpoint("build.validated")
        summary = claim.build_summary or {}
        done = self._context.transact(
            signed(
                lambda c: transitions.mark_delivered(
                    c, row.id, lsn, found.record_count, found.size_bytes, summary, manifest_hash
                ),
                claim.by,
                claim.reason,
            ),
            "build",
        )
        failpoint("build.built")
        self._context.metrics.count("builds")
        return done

    def _cancelled(self, shadow_id: str) -> bool:
        row = self._context.catalog.find_shadow(shadow_id)
        return self._context.changes.closing or row is None or row.state != S.BUILDING

    def _close(self, generation: Generation) -> None:
        self._generations.forget(generation.row.number)
        generation.close()
