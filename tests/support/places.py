"""Where the tests intervene in the product: the names of limits and steps, and how to change them for a test.

Tests use all of it through `tests.support.inside`. `tests/test_inside.py` checks that every place is there.
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

    BUILT_WAIT_S = "shadowswitch.engine.receiving.BUILT_WAIT_S"
    CANCEL_TIMEOUT_S = "shadowswitch.actors.builds.CANCEL_TIMEOUT_S"
    COMMIT_GRACE_S = "shadowswitch.actors.base.COMMIT_GRACE_S"
    COMMIT_TIMEOUT_S = "shadowswitch.actors.attempt.COMMIT_TIMEOUT_S"
    DRAIN_S = "shadowswitch.actors.attempt.DRAIN_S"
    FOLLOWER_REST_S = "shadowswitch.actors.house.REST_S"
    FREE_BYTES_MIN = "shadowswitch.storage.backends.fts5_store.FREE_BYTES_MIN"
    FSCK_SLICE_CHUNKS = "shadowswitch.storage.fsck.SLICE_PIECES"
    HOLDS_MAX = "shadowswitch.storage.holds.HOLDS_MAX"
    IMPORT_BATCH_BYTES = "shadowswitch.service.importer.BATCH_BYTES"
    IMPORT_BATCH_CHANGES = "shadowswitch.service.importer.BATCH_CHANGES"
    LOCKS_MAX = "shadowswitch.model.locks.LOCKS_MAX"
    PUBLISH_AGAIN_S = "shadowswitch.actors.janitor.PUBLISH_AGAIN_S"
    VALIDATION_POLL_S = "shadowswitch.actors.validator.POLL_S"
    WATCHED_PATHS_MAX = "shadowswitch.actors.watches.PATHS_MAX"
    WEBHOOK_ATTEMPT_TIMEOUT_S = "shadowswitch.service.sending.ATTEMPT_TIMEOUT_S"
    WORKLOAD_JOIN_TIMEOUT_S = "shadowswitch.service.workload.JOIN_TIMEOUT_S"


class Step(Enum):
    """The functions of the product that a test may replace, wrap, or precede by something of its own."""

    # a switch
    SWITCH = "shadowswitch.actors.switcher.Switcher._switch"
    VALIDATE_SHADOW = "shadowswitch.actors.switcher.validate"
    PROVE = "shadowswitch.actors.attempt.Attempt._prove"
    COMMIT = "shadowswitch.actors.attempt.Attempt._commit"
    COMMIT_SWITCH = "shadowswitch.storage.transitions.commit_switch"
    SET_LIVE = "shadowswitch.actors.shelf.Shelf.point"
    VERIFY = "shadowswitch.actors.switcher.verify"
    VERIFY_READ = "shadowswitch.actors.verifier._read"
    VERIFY_READ_SOURCE = "shadowswitch.actors.verifier.read_records"
    RETIRE_PREVIOUS = "shadowswitch.actors.switcher.Switcher._retire_old"
    SETTLE_TRACKED_BUILD = "shadowswitch.actors.switcher.Switcher._settle"
    REPOINT = "shadowswitch.actors.house.House.lead_over"
    REPOINT_CATCH_UP = "shadowswitch.actors.house.House._bring_to_head"
    # generations
    APPLY = "shadowswitch.storage.generation.GenerationWriter._apply"
    APPLY_UNTIL = "shadowswitch.storage.generation.GenerationWriter.apply_until"
    FOLLOW = "shadowswitch.storage.generation.GenerationWriter.follow_slice"
    COMPACT = "shadowswitch.storage.generation.GenerationWriter.tend"
    DIFFERING_BUCKETS = "shadowswitch.storage.generation.GenerationWriter.differing"
    DIGEST = "shadowswitch.storage.generation.GenerationWriter.digest"
    REPAIR = "shadowswitch.storage.generation.GenerationWriter.repair"
    TAKE_READER = "shadowswitch.storage.generation.Generation.take_reader"
    # writes and the catalog
    BRANCH_WRITE = "shadowswitch.actors.branch.BranchActor._write"
    BRANCH_FAILPOINT = "shadowswitch.actors.branch.point"
    BRANCH_START = "shadowswitch.actors.branch.BranchActor.on_start"
    BRANCH_STOP = "shadowswitch.actors.branch.BranchActor.on_stop"
    BRANCH_MESSAGE = "shadowswitch.actors.branch.BranchActor.on_receive"
    JOURNAL_APPEND = "shadowswitch.actors.journal_writer.JournalWriter._append"
    TRANSACTION = "shadowswitch.storage.commit.Commit.run"
    TRANSACTION_WRITE = "shadowswitch.storage.commit.Commit.write"
    STORED_HEAD = "shadowswitch.storage.catalog.Catalog.head"
    SOURCE_DIGEST = "shadowswitch.storage.catalog.Catalog.source_digest"
    LIST_BRANCHES = "shadowswitch.storage.catalog.Catalog.branches"
    LIST_GENERATIONS = "shadowswitch.storage.catalog.Catalog.generations"
    LIST_SHADOWS = "shadowswitch.storage.catalog.Catalog.shadows"
    BRANCH_HEAD = "shadowswitch.actors.house.House.head"
    FSCK_READ_JOURNAL = "shadowswitch.storage.fsck.pieces"
    # locks
    LOAD_LOCKS = "shadowswitch.model.locks.LockTable.load"
    STORE_LOCKS = "shadowswitch.actors.lock_keeper.LockKeeper.store"
    LOCK_WALL_CLOCK = "shadowswitch.actors.lock_keeper.datetime"
    # builds
    BUILD_FAILPOINT = "shadowswitch.actors.builder.point"
    BUILD_NOTE_PHASE = "shadowswitch.actors.builder.ShadowBuilder._note"
    BUILD_VALIDATE = "shadowswitch.actors.builder.validate"
    INSPECT_DELIVERY = "shadowswitch.actors.external_builds.ExternalBuilds._inspected"
    PACING_CLOCK = "shadowswitch.actors.pacing.time.monotonic"
    WORKER_SUBMIT = "shadowswitch.actors.worker_pool.WorkerPool.submit"
    WORKER_TUNE = "shadowswitch.actors.worker_pool._Process.tune"
    # the rest of the engine
    ACTOR_MESSAGE = "shadowswitch.actors.base.EngineActor.on_receive"
    REMOVE_GENERATION = "shadowswitch.actors.janitor.remove_directory"
    RECOVERY_ASK_WORKER = "shadowswitch.engine.recovery.ask_worker"
    # disks, machines, backends
    BOOT_ID = "shadowswitch.storage.layout.boot_id"
    FREE_BYTES = "shadowswitch.storage.layout.free_bytes"
    FILESYSTEM_TYPE = "shadowswitch.storage.layout.filesystem_type"
    LOCK_DIRECTORY = "shadowswitch.storage.layout.DirectoryLock"
    REGISTERED_BACKENDS = "shadowswitch.storage.backends.registry._registered"
    FTS5_CHECK_TERMS = "shadowswitch.storage.backends.fts5_check._check_terms"
    # services
    CLI_STATUS = "shadowswitch.service.reading.status_of"
    DEMO_AUDIT = "shadowswitch.service.demo.audit"
    IMPORT_LIST_FILES = "shadowswitch.service.importer.list_files"
    WORKLOAD_SEARCH = "shadowswitch.service.workload.Searcher.step"
    WORKLOAD_WRITE = "shadowswitch.service.workload.Writer.step"


def patch_limit(patch: Patch, limit: Limit, value: float) -> None:
    """Change a limit of the product."""
    patch.setattr(limit.value, value)


def replace(patch: Patch, step: Step, replacement: Any) -> None:
    """Put something else in the place of a step."""
    patch.setattr(step.value, replacement)


def wrap(patch: Patch, step: Step, wrapper: Callable[..., Any]) -> None:
    """Call `wrapper(ordinary, *given)` instead of `ordinary(*given)`."""
    ordinary = pkgutil.resolve_name(step.value)

    def wrapped(*given: Any, **how: Any) -> Any:
        return wrapper(ordinary, *given, **how)

    patch.setattr(step.value, wrapped)


def before(patch: Patch, step: Step, then: Callable[[], object]) -> None:
    """Call `then` each time before a step; what it raises takes the place of the step."""

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
