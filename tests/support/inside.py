"""The only access of the tests to private parts of the product.

A test names its meaning: `inside.live(engine)`, `inside.patch_limit(monkeypatch, inside.Limit.BUILD_STOP_S, 1)`.
Only these four files have private names of the product; `tests/repository/test_tidy.py` checks that. When the product
is reorganised, these files change and the tests stay. The files:

    inside          parts of an engine: the catalog, open generations, queues, locks; and all names of the other three
    places          `Limit`, `Step`: names of constants and functions with the place of each; tools to patch them
    interventions   changes of the product for the time of a test, named by their meaning
    running         publishing, start and stop, supervision
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from shadowswitch import Engine, IndexInfo
from shadowswitch.actors.branch.locks import BranchLocks
from shadowswitch.actors.build.validator import Validation
from shadowswitch.actors.journal_writer import Barrier, Transact
from shadowswitch.actors.kit.changes import StateChanges
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Kick
from shadowswitch.actors.maintenance.follower import Follow
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.engine.calls.inbound import InboundCalls
from shadowswitch.engine.calls.soak import SoakCalls
from shadowswitch.model.progress import CATCH_UP_RATE, ProgressMeter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation
from tests.support.interventions import (
    HeldWrite,
    before_apply,
    before_apply_until,
    before_branch_write,
    before_build_phase,
    before_compact,
    before_removal,
    before_search,
    before_worker_task,
    count_decoded_shadows,
    count_heads_read,
    expire_first_commit_budget,
    fail_build_validation,
    fail_messages,
    fail_take_reader,
    fail_verification,
    hold_up_lock_store,
    is_in_turn,
    lose_a_record,
    map_in_workers,
    on_branch_message,
    on_follow,
    on_set_live,
    one_attempt,
    spoil_digest,
    spoil_source_digest,
    stale_token,
    unsound,
    verify_through,
    without_repair,
)
from tests.support.places import (
    Limit,
    Step,
    after,
    before,
    patch_limit,
    replace,
    wrap,
)
from tests.support.running import (
    are_actors_alive,
    counter,
    crash_notes,
    crashes,
    is_closed,
    is_closing,
    look_at_plans,
    mark_closed,
    publish,
    publish_lock,
    published_path,
    stop_janitor,
    sweep,
    tick_janitor,
)

__all__ = [
    "HeldWrite",
    "Limit",
    "Step",
    "after",
    "are_actors_alive",
    "before",
    "before_apply",
    "before_apply_until",
    "before_branch_write",
    "before_build_phase",
    "before_compact",
    "before_removal",
    "before_search",
    "before_worker_task",
    "count_decoded_shadows",
    "count_heads_read",
    "counter",
    "crash_notes",
    "crashes",
    "expire_first_commit_budget",
    "fail_build_validation",
    "fail_messages",
    "fail_take_reader",
    "fail_verification",
    "hold_up_lock_store",
    "is_closed",
    "is_closing",
    "is_in_turn",
    "look_at_plans",
    "lose_a_record",
    "map_in_workers",
    "mark_closed",
    "on_branch_message",
    "on_follow",
    "on_set_live",
    "one_attempt",
    "patch_limit",
    "publish",
    "publish_lock",
    "published_path",
    "replace",
    "shadow_table",
    "spoil_digest",
    "spoil_source_digest",
    "stale_token",
    "stop_janitor",
    "sweep",
    "tick_janitor",
    "unsound",
    "verify_through",
    "without_repair",
    "wrap",
]
"""Names that the other three files define."""

T = TypeVar("T")
SEARCH = "SEARCH_INDEX"
WAIT_S = 30.0


# -- the catalog and transactions -------------------------------------------------------------------------------


def catalog(engine: Engine) -> Catalog:
    """The catalog of an open engine."""
    return engine._lifecycle.context.catalog


def shadow_table(engine: Engine) -> ShadowTable:
    """The table of the shadows of an open engine."""
    return engine._lifecycle.context.shadows


def transact(engine: Engine, work: Callable[[Commit], T], what: str = "test", timeout_s: float = WAIT_S) -> T:
    """Run `work` in a write transaction of the JournalWriter and wait until it is durable."""
    return engine._lifecycle.context.transact(work, what, timeout_s)


def hold_journal_writer(engine: Engine, hold: Callable[[], object]) -> None:
    """Send the JournalWriter a transaction that calls `hold`, and do not wait for it."""
    engine._lifecycle.context.journal.tell(Transact(lambda _: hold(), Reply()))


def tell_journal_writer(engine: Engine, message: Any) -> None:
    """Send the JournalWriter a message, and do not wait."""
    engine._lifecycle.journal.tell(message)


def stop_journal_writer(engine: Engine, timeout_s: float) -> bool:
    """Stop the JournalWriter after its waiting messages; False if it did not stop in time."""
    return engine._lifecycle.journal.stop(timeout_s)


def journal_backlog(engine: Engine) -> int:
    """The number of messages that wait for the JournalWriter."""
    waiting: int = engine._lifecycle.context.journal.ref.actor_inbox.qsize()  # type: ignore[attr-defined]
    return waiting


def journal_head(engine: Engine, branch: int, timeout_s: float) -> int:
    """The head LSN of a branch, as the JournalWriter reports it."""
    reply: Reply[int] = Reply()
    engine._lifecycle.context.journal.tell(Barrier(branch, reply))
    return reply.result(timeout_s)


# -- generations and readers -------------------------------------------------------------------------------------


def open_generations(engine: Engine) -> Mapping[int, Generation]:
    """The generations that are open in this process, by number."""
    return {one.row.number: one for one in engine._lifecycle.generations.all()}


def generation(engine: Engine, number: int) -> Generation:
    """An open generation."""
    found = engine._lifecycle.generations.get(number)
    assert found is not None, f"generation {number} is not open"
    return found


def live(engine: Engine, branch: int = 1, index_type: str = SEARCH) -> Generation:
    """The generation that readers of this process get."""
    found = engine._lifecycle.indexes.live(branch, index_type)
    assert found is not None, f"{index_type} of branch {branch} has no live generation"
    return found


def live_index(engine: Engine, branch: int = 1, index_type: str = SEARCH) -> LiveIndex:
    """The object that gives readers of an index its live generation."""
    return engine._lifecycle.indexes.of(branch, index_type)


def generations(engine: Engine) -> OpenGenerations:
    """The object that keeps the open generations."""
    return engine._lifecycle.generations


def new_live_index(engine: Engine) -> tuple[LiveIndex, StateChanges]:
    """A LiveIndex that no part of the engine knows, and the StateChanges that notify it when the engine closes."""
    changes = StateChanges(engine._lifecycle.catalog, Clock())
    return LiveIndex(1, SEARCH, Clock(), changes), changes


def is_exposed(engine: Engine, number: int) -> bool:
    """Is this generation exposed: may a reader, in this process or outside, hold it?"""
    return engine._lifecycle.indexes.of_generation(generation(engine, number)).is_exposed(generation(engine, number))


def set_read_floor_lsn(engine: Engine, number: int, lsn: int) -> None:
    """New readers of the index of a generation wait until its live one has applied this LSN."""
    engine._lifecycle.indexes.of_generation(generation(engine, number)).read_floor_lsn = lsn


def pause_apply(engine: Engine, number: int) -> AbstractContextManager[None]:
    """In the `with` block no follower applies changes to a generation."""
    return generation(engine, number).writer.pause_apply()


def is_apply_paused(of: Generation) -> bool:
    """Is apply paused for a generation, so that no follower applies to it?"""
    return of.writer.is_paused


def maintenance_lock(engine: Engine, number: int, timeout_s: float) -> AbstractContextManager[None]:
    """In the `with` block no other caller validates or repairs a generation, or switches to it."""
    return generation(engine, number).maintenance_lock(timeout_s)


def follow(engine: Engine, number: int) -> None:
    """Send a generation to its follower, and do not wait."""
    engine._lifecycle.followers.of(number).tell(Follow(generation(engine, number)))


def kick_follower(engine: Engine, number: int, branch: int = 1) -> None:
    """Make the follower of a generation look at a branch, and do not wait."""
    engine._lifecycle.followers.of(number).tell(Kick(branch))


def kick_followers(engine: Engine, branch: int = 1) -> None:
    """Make every follower look at a branch, and do not wait."""
    for follower in engine._lifecycle.followers.addresses:
        follower.tell(Kick(branch))


def is_follower_idle(engine: Engine, number: int) -> bool:
    """Has the follower of a generation taken every message?"""
    empty: bool = engine._lifecycle.followers.of(number).ref.actor_inbox.empty()
    return empty


def check_generation(engine: Engine, number: int, *checks: str) -> Validation:
    """Validate an open generation by these checks."""
    validator = engine._lifecycle.validator
    return validator.validate(generation(engine, number), list(checks), validator.until())


# -- switches, builds, locks, queues ----------------------------------------------------------------------------


def is_attempt_under_way(engine: Engine) -> bool:
    """Is an attempt of a switch near its commit?"""
    return engine._lifecycle.pause.is_on


@contextmanager
def attempt_under_way(engine: Engine) -> Iterator[None]:
    """In the `with` block the followers see an attempt of a switch under way."""
    with engine._lifecycle.pause.paused():
        yield


def followers_rest(engine: Engine) -> bool:
    """Do the followers pause, so that a switch has disk and processor?"""
    return engine._lifecycle.pause.rests


def switches_under_way(engine: Engine) -> int:
    """How many switches have begun and not ended, counted by their shadows."""
    return len(engine._lifecycle.switches.shadows())


def claim_switch(engine: Engine, shadow_id: str) -> None:
    """From now on the shadow counts for the janitor as claimed by a switch."""
    engine._lifecycle.switches.begin("test", shadow_id)


def go_back(engine: Engine, index: IndexInfo, reason: str) -> None:
    """Report a fault of a generation: the engine goes back from it if it is still live."""
    engine._lifecycle.calls[SoakCalls].go_back(index, reason)


def tracked_builds(engine: Engine) -> Mapping[int, tuple[str, ...]]:
    """The builds that make their branch READY, by branch number."""
    return engine._lifecycle.locks.tracked


def builds_running(engine: Engine) -> int:
    """How many builds have an actor."""
    return engine._lifecycle.builds.builders.count()


def is_kept(engine: Engine, number: int) -> bool:
    """Is the generation read by the Scrubber now?"""
    return generation(engine, number)._kept > 0


def set_build_progress(engine: Engine, shadow_id: str, percent: float, left_s: float) -> None:
    """The progress of a build that runs is this, measured now."""
    meter = ProgressMeter(percent)
    now = engine._lifecycle.context.clock.monotonic()
    meter.begin(now)
    meter.measure(now, 0, 0, int(left_s * CATCH_UP_RATE), 0.0, 0.0)
    engine._lifecycle.running_builds.meters[shadow_id] = meter


def write_delays(engine: Engine) -> Mapping[int, float]:
    """The seconds by which a build slows the writes of a branch, by branch number."""
    return engine._lifecycle.running_builds.delays


def replace_check(engine: Engine, name: str, check: Callable[[Any], list[str]]) -> None:
    """Replace a check of the product by one of the test."""
    engine._lifecycle.validator.host_checks[name] = check


def queued_changes(engine: Engine) -> int:
    """How many admitted changes are not committed yet."""
    return engine._lifecycle.admission.queued


def are_branches_idle(engine: Engine) -> bool:
    """Has every branch handled every message?"""
    return all(load.sent == load.handled for load in engine._lifecycle.router._loads.values())


def branches_running(engine: Engine) -> int:
    """How many branches have an actor."""
    return engine._lifecycle.router.running()


def branch_locks(engine: Engine) -> list[BranchLocks]:
    """The locks of each branch that has any, or whose actor runs."""
    return engine._lifecycle.locks.all()


def locks_in_doubt(of: BranchLocks) -> bool:
    """Is it unknown whether the last change of these locks was stored?"""
    return of._doubt is not None


def stop_idle_branches(engine: Engine) -> int:
    """Stop the actors of all branches that are idle at this moment; returns their number."""
    return engine._lifecycle.router.stop_idle(0.0)


def are_events_in_turn(engine: Engine) -> bool:
    """Is an inbound event being handled, or does one wait?"""
    return bool(engine._lifecycle.calls[InboundCalls]._one_at_a_time._locks)


def idle_workers(engine: Engine) -> int:
    """How many worker processes wait for a task."""
    return len(engine._lifecycle.pool._idle)
