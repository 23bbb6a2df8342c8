"""Places where the tests intervene in the product: names of limits and steps, and functions to change them for a test.

Tests use all of it through `tests.support.inside`. `tests/repository/test_inside.py` checks that every place exists.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

Patch = pytest.MonkeyPatch


class Limit(Enum):
    """The limits of the product that a test may change."""

    ATTEMPT_BACKOFF_FIRST_S = "shadowswitch.actors.switch.attempt.BACKOFF_FIRST_S"
    BUILD_STOP_S = "shadowswitch.actors.queue.builders.STOP_TIMEOUT_S"
    BUILT_WAIT_S = "shadowswitch.engine.calls.inbound.BUILT_WAIT_S"
    CHANGED_SHADOWS = "shadowswitch.storage.catalog.dirty.SHADOWS_MAX"
    COMMIT_GRACE_S = "shadowswitch.actors.kit.actor.COMMIT_GRACE_S"
    COMMIT_TIMEOUT_S = "shadowswitch.actors.switch.attempt.COMMIT_TIMEOUT_S"
    DRAIN_FIRST_S = "shadowswitch.actors.switch.attempt.DRAIN_FIRST_S"
    ENDED_GROUPS_MAX = "shadowswitch.storage.catalog.transitions.groups.ENDED_MAX"
    FORK_INDEX_AGAIN_S = "shadowswitch.engine.forks.indexes.AGAIN_S"
    FOLLOWER_REST_S = "shadowswitch.actors.maintenance.follower_pool.REST_S"
    FOLLOWER_TURN_S = "shadowswitch.actors.maintenance.follower.TURN_S"
    FREE_BYTES_MIN = "shadowswitch.storage.backends.fts5.store.FREE_BYTES_MIN"
    FTS5_COPY_PAGES = "shadowswitch.storage.backends.fts5.copy.PACE_PAGES"
    FSCK_PART_ROWS = "shadowswitch.storage.fsck.plan.PART_ROWS"
    FSCK_SLICE = "shadowswitch.storage.fsck.records.SLICE"
    FSCK_SLICE_CHUNKS = "shadowswitch.storage.fsck.journal.SLICE_CHUNKS"
    HOLDS_MAX = "shadowswitch.storage.catalog.retention.HOLDS_MAX"
    IMPORT_BATCH_BYTES = "shadowswitch.service.daemon.importer.BATCH_BYTES"
    IMPORT_BATCH_CHANGES = "shadowswitch.service.daemon.importer.BATCH_CHANGES"
    JOURNALS_MAX = "shadowswitch.engine.inspection.JOURNALS_MAX"
    KV_KEPT = "shadowswitch.storage.backends.kv.kept.KEPT"
    KV_KEPT_MAX = "shadowswitch.storage.backends.kv.kept.KEPT_MAX"
    LOCKS_MAX = "shadowswitch.model.locks.table.LOCKS_MAX"
    PAST_BYTES = "shadowswitch.storage.catalog.transitions.past.BYTES_MAX"
    PAST_CHANGES = "shadowswitch.storage.catalog.transitions.past.CHANGES_MAX"
    PUBLISH_AGAIN_S = "shadowswitch.actors.maintenance.janitor.PUBLISH_AGAIN_S"
    COMPARISON_S = "shadowswitch.actors.switch.comparison.BUDGET_S_MAX"
    SEED_ROWS_MIN = "shadowswitch.storage.generations.seeding.ROWS_MIN"
    SHARD_LOCK_TIMEOUT_S = "shadowswitch.storage.generations.worker.SHARD_LOCK_TIMEOUT_S"
    SHORTAGES_MAX = "shadowswitch.actors.build.running_builds.SHORTAGES_MAX"
    VALIDATION_POLL_S = "shadowswitch.actors.build.worker_answers.POLL_S"
    SWITCH_GIVE_UP_S = "shadowswitch.engine.calls.switches.GIVE_UP_S"
    SWITCH_GRACE_S = "shadowswitch.engine.calls.switches.SWITCH_GRACE_S"
    WATCHED_PATHS_MAX = "shadowswitch.actors.maintenance.watches.PATHS_MAX"
    WEBHOOK_ATTEMPT_TIMEOUT_S = "shadowswitch.service.daemon.delivery.ATTEMPT_TIMEOUT_S"
    VECTORS_PROPOSED = "shadowswitch.storage.backends.vector.reader.PROPOSED_MAX"
    NOUNS_S = "shadowswitch.storage.backends.fts5.nouns.WAIT_S"
    WORDS_CARRY_ROWS = "shadowswitch.storage.backends.tantivy.writer.CARRY_ROWS"
    WORDS_CARRY_S = "shadowswitch.storage.backends.tantivy.writer.CARRY_S"
    WORDS_TERMS_SCORED = "shadowswitch.storage.backends.tantivy.matching.TERMS_SCORED"
    WORKLOAD_JOIN_TIMEOUT_S = "shadowswitch.service.demo.workload.JOIN_TIMEOUT_S"


class Step(Enum):
    """The functions of the product that a test may replace, wrap, or precede by a call of its own."""

    # a switch
    WARM = "shadowswitch.storage.generations.generation.Generation.warm"
    SWITCH = "shadowswitch.actors.switch.switcher.Switcher._switch"
    VALIDATE_SHADOW = "shadowswitch.actors.build.validator.ShadowValidator.validate"
    COME_NEAR = "shadowswitch.actors.switch.attempt.Attempt._come_near"
    TAKE_TURN = "shadowswitch.actors.switch.attempt.Attempt._take_turn"
    PREPARE = "shadowswitch.actors.switch.attempt.Attempt.prepare"
    COMMIT_SWITCH = "shadowswitch.storage.catalog.transitions.commit_switch"
    AGREE = "shadowswitch.actors.switch.live_index.LiveIndex.agree"
    SET_LIVE = "shadowswitch.actors.switch.live_index.LiveIndex.set_live"
    VERIFY = "shadowswitch.actors.switch.switcher.verify"
    VERIFY_GROUP = "shadowswitch.actors.group.group_switcher.verify"
    VERIFY_READ = "shadowswitch.actors.switch.verifier._read"
    VERIFY_READ_SOURCE = "shadowswitch.actors.switch.verifier.read_records"
    COMPARE_SIDES = "shadowswitch.engine.quality.comparing.compare_sides"
    FIND_HOLDER = "shadowswitch.engine.calls.switches.holder"
    FREEZE_VIEW = "shadowswitch.engine.groups.reading.GroupReading._freeze"
    RETIRE_PREVIOUS = "shadowswitch.actors.switch.switcher.Switcher._retire_old"
    SETTLE_TRACKED_BUILD = "shadowswitch.actors.switch.switcher.Switcher._settle"
    # generations
    APPLY = "shadowswitch.storage.generations.writer.GenerationWriter._apply"
    APPLY_UNTIL = "shadowswitch.storage.generations.writer.GenerationWriter.apply_until"
    FOLLOW = "shadowswitch.storage.generations.writer.GenerationWriter.follow_slice"
    COMPACT = "shadowswitch.storage.generations.writer.GenerationWriter.compact"
    DIFFERING_BUCKETS = "shadowswitch.storage.generations.writer.GenerationWriter.differing"
    DIGEST = "shadowswitch.storage.generations.writer.GenerationWriter.digest"
    REPAIR = "shadowswitch.storage.generations.writer.GenerationWriter.repair"
    TAKE_READER = "shadowswitch.storage.generations.generation.Generation.take_reader"
    # writes and the catalog
    BRANCH_WRITE = "shadowswitch.actors.branch.actor.BranchActor._write"
    BRANCH_FAILPOINT = "shadowswitch.actors.branch.actor.failpoint"
    BRANCH_START = "shadowswitch.actors.branch.actor.BranchActor.on_start"
    BRANCH_STOP = "shadowswitch.actors.branch.actor.BranchActor.on_stop"
    BRANCH_MESSAGE = "shadowswitch.actors.branch.actor.BranchActor.on_receive"
    JOURNAL_APPEND = "shadowswitch.actors.journal_writer.JournalWriter._append"
    TRANSACTION = "shadowswitch.storage.catalog.transaction.Commit.run"
    TRANSACTION_WRITE = "shadowswitch.storage.catalog.transaction.Commit.write"
    CATALOG_READ = "shadowswitch.storage.catalog.environment.Catalog.read"
    DECODE_GENERATION = "shadowswitch.storage.catalog.source.type_lists.TypeLists.generation"
    DECODE_SHADOW = "shadowswitch.storage.catalog.source.type_lists.TypeLists.shadow"
    STORED_HEAD = "shadowswitch.storage.catalog.environment.Catalog.head"
    SOURCE_DIGEST = "shadowswitch.storage.catalog.environment.Catalog.source_digest"
    LIST_BRANCHES = "shadowswitch.storage.catalog.environment.Catalog.branches"
    LIST_GENERATIONS = "shadowswitch.storage.catalog.environment.Catalog.generations"
    LIST_SHADOWS = "shadowswitch.storage.catalog.source.shadow_table.shadow_heads"
    BRANCH_HEAD = "shadowswitch.actors.kit.heads.Heads.of"
    FSCK_READ_JOURNAL = "shadowswitch.storage.fsck.journal.chunks"
    REPAIR_MEASURE = "shadowswitch.storage.repair.repair.measure_gaps"
    # forks
    SAVE_OLD_IMAGE = "shadowswitch.storage.catalog.source.overlay._save"
    READ_LINEAGE = "shadowswitch.storage.catalog.source.fork_table.read_lineage"
    LOOK_FOR_OLD_IMAGE = "shadowswitch.storage.catalog.source.overlay.old_image"
    KEEP_BASE = "shadowswitch.storage.catalog.source.overlay.put_base"
    IS_OWN = "shadowswitch.storage.catalog.source.followed._is_own"
    NEEDS_OF_FORK = "shadowswitch.storage.catalog.transitions.forks.needs_of"
    TRIM_RECORD = "shadowswitch.storage.catalog.transitions.forks._trim_record"
    BRING = "shadowswitch.engine.forks.bringing.Bringing._write"
    CHECK_UNMOVED = "shadowswitch.engine.forks.bringing.check_unmoved"
    # locks
    LOAD_LOCKS = "shadowswitch.model.locks.table.LockTable.load"
    STORE_LOCKS = "shadowswitch.actors.branch.locks.BranchLocks.store"
    MONOTONIC_CLOCK = "shadowswitch.storage.clock.Clock.monotonic"
    WALL_CLOCK = "shadowswitch.storage.clock.Clock.wall"
    # builds
    PACE_OF_WORKER = "shadowswitch.actors.build.worker_pool.WorkerPool.tune"
    BUILD_FAILPOINT = "shadowswitch.actors.build.builder.failpoint"
    BUILD_NOTE_PHASE = "shadowswitch.actors.build.builder.ShadowBuilder._note"
    INSPECT_DELIVERY = "shadowswitch.actors.build.external.ExternalBuilds._inspected"
    MAKE_GENERATION = "shadowswitch.storage.generations.generation.create"
    RECHECK = "shadowswitch.actors.build.scrubber.Scrubber._read_live"
    WORKER_START = "shadowswitch.actors.build.worker_pool._Process.__init__"
    WORKER_SUBMIT = "shadowswitch.actors.build.worker_pool.WorkerPool.submit"
    WORKER_TUNE = "shadowswitch.actors.build.worker_pool._Process.tune"
    # the rest of the engine
    WAIT_FOR_STATE = "shadowswitch.actors.kit.changes.StateChanges.wait"
    ACTOR_MESSAGE = "shadowswitch.actors.kit.actor.EngineActor.on_receive"
    FOLLOWER_TURN = "shadowswitch.actors.maintenance.follower.Follower._take_turn"
    LET_GO = "shadowswitch.actors.maintenance.janitor.Janitor._let_go"
    REMOVE_GENERATION = "shadowswitch.actors.maintenance.janitor.remove_directory"
    READ_INDEX_ROW = "shadowswitch.storage.catalog.environment.Catalog.index"
    READ_INDEX_ROWS = "shadowswitch.storage.catalog.environment.Catalog.indexes"
    RECOVERY_ASK_WORKER = "shadowswitch.actors.build.worker_answers.WorkerAnswers.ask"
    # disks, machines, backends
    BOOT_ID = "shadowswitch.storage.disk.boot_id"
    FREE_BYTES = "shadowswitch.storage.disk.free_bytes"
    FILESYSTEM_TYPE = "shadowswitch.storage.disk.filesystem_type"
    LOCK_DIRECTORY = "shadowswitch.storage.data_directory.DirectoryLock"
    REGISTERED_BACKENDS = "shadowswitch.storage.backends.registry._registered"
    FTS5_CHECK_TERMS = "shadowswitch.storage.backends.fts5.check._check_terms"
    # services
    CLI_STATUS = "shadowswitch.service.cli.read_commands.status_of"
    DEMO_AUDIT = "shadowswitch.service.demo.demo.audit"
    MIRROR_READ_FIELDS = "shadowswitch.service.daemon.mirror.read_fields"
    IMPORT_LIST_FILES = "shadowswitch.service.daemon.importer.list_files"
    HNSW_INSTALLED = "shadowswitch.storage.backends.vector.hnsw.is_installed"
    HNSW_SEARCH = "shadowswitch.storage.backends.vector.hnsw.Hnsw.nearest"
    WORKLOAD_SEARCH = "shadowswitch.service.demo.workload.Searcher.step"
    WORKLOAD_WRITE = "shadowswitch.service.demo.workload.Writer.step"


def patch_limit(patch: Patch, limit: Limit, value: float) -> None:
    """Change a limit of the product."""
    patch.setattr(limit.value, value)


def replace(patch: Patch, step: Step, replacement: Any) -> None:
    """Replace a step."""
    patch.setattr(step.value, replacement)


def wrap(patch: Patch, step: Step, wrapper: Callable[..., Any]) -> None:
    """Call `wrapper(ordinary, *given)` instead of `ordinary(*given)`."""
    ordinary = pkgutil.resolve_name(step.value)

    def wrapped(*given: Any, **how: Any) -> Any:
        return wrapper(ordinary, *given, **how)

    patch.setattr(step.value, wrapped)


def before(patch: Patch, step: Step, then: Callable[[], object]) -> None:
    """Call `then` each time before a step; if it raises, the step is not called."""

    def wrapper(ordinary: Callable[..., Any], *given: Any, **how: Any) -> Any:
        then()
        return ordinary(*given, **how)

    wrap(patch, step, wrapper)


def after(patch: Patch, step: Step, then: Callable[[], object]) -> None:
    """Call `then` each time after a step that raised nothing."""

    def wrapper(ordinary: Callable[..., Any], *given: Any, **how: Any) -> Any:
        result = ordinary(*given, **how)
        then()
        return result

    wrap(patch, step, wrapper)
