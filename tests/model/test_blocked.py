"""Refusals: holder, reason, progress, time to the next attempt and alternatives, never derived from a TTL."""

from __future__ import annotations

import msgspec
import pytest

from shadowswitch.model.errors import InvalidConfig, LockConflict
from shadowswitch.model.locks.branch_state import BranchState, BranchStatus
from shadowswitch.model.locks.records import ProgressReport
from shadowswitch.model.locks.refusal import RETRY_MAX_S, RETRY_S, Blocked, in_words
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, LockScope, LockType, resource_target, type_target
from tests.support.lock_helpers import STATUS, WALL, ask, take, wait

TYPES = ("object_type", "link_type", "action_type")
USER = ("object_type", "User")
REINDEX = ask("a", type_target("object_type"), LockType.INDEXING, reason="new analyzer")


def refusal(table: LockTable, now: float, status: BranchStatus = STATUS) -> Blocked:
    permission = table.check_write(now, WALL, [USER], status=status, known_types=TYPES).value
    assert not permission.allowed
    assert permission.blocked is not None
    assert permission.reason == permission.blocked.message
    return permission.blocked


def test_a_refused_write_gets_the_holder_the_reason_and_the_free_types() -> None:
    table, _ = take(LockTable("main"), 0, REINDEX, owner="indexer")
    no = refusal(table, 60)
    assert (no.branch, no.resource_type, no.resource_id) == ("main", "object_type", "User")
    assert (no.scope, no.lock_type, no.lock_id) == (LockScope.RESOURCE_TYPE, LockType.INDEXING, "a")
    assert (no.holder, no.reason, no.since) == ("indexer", "new analyzer", WALL)
    assert no.free_resource_types == ("action_type", "link_type")
    assert "work on action_type, link_type: not locked now" in no.alternatives
    assert no.message == (
        "indexer holds a lock (INDEXING) on all of object_type of branch main, since 12:00:00 UTC, reason: new analyzer"
    )


def test_without_reported_progress_there_is_neither_progress_nor_eta_for_any_time_to_live() -> None:
    for ttl_s in (61.0, 3600.0, 86400.0):
        table, _ = take(LockTable("main"), 0, msgspec.structs.replace(REINDEX, ttl_s=ttl_s))
        no = refusal(table, 60)
        assert (no.progress_percent, no.eta_s, no.retry_after_s) == (None, None, RETRY_S)


def test_progress_and_eta_are_measured_from_the_reports_of_the_holder() -> None:
    table, lock = take(LockTable("main"), 0, REINDEX, owner="indexer")
    table = table.heartbeat(100, WALL, "a", lock.token, ProgressReport(20)).table
    assert (refusal(table, 100).progress_percent, refusal(table, 100).eta_s) == (20, None)
    table = table.heartbeat(200, WALL, "a", lock.token, ProgressReport(60)).table
    no = refusal(table, 200)
    assert (no.progress_percent, no.eta_s, no.retry_after_s) == (60, 100, 100)
    assert no.message.endswith("60 % done, about 2 min left")
    assert no.alternatives[0] == "wait about 2 min, measured from the progress that indexer reports"
    assert refusal(table, 300).eta_s == 200, "without a report the measured rate falls"


def test_the_holders_own_estimate_counts_down_and_is_dropped_when_it_proved_wrong() -> None:
    table, lock = take(LockTable("main"), 0, REINDEX)
    table = table.heartbeat(10, WALL, "a", lock.token, ProgressReport(5, eta_s=1000)).table
    assert (refusal(table, 20).eta_s, refusal(table, 20).retry_after_s) == (990, RETRY_MAX_S)
    assert refusal(table, 1011).eta_s is None


def test_work_that_begins_anew_is_measured_anew_and_finished_work_needs_no_more_time() -> None:
    table, lock = take(LockTable("main"), 0, REINDEX)
    for now, percent in [(10, 10.0), (20, 90.0), (30, 0.0), (40, 10.0)]:
        table = table.heartbeat(now, WALL, "a", lock.token, ProgressReport(percent)).table
    assert refusal(table, 40).eta_s == pytest.approx(90)
    table = table.heartbeat(50, WALL, "a", lock.token, ProgressReport(100)).table
    assert (refusal(table, 50).eta_s, refusal(table, 50).retry_after_s) == (0, 1)


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), True, "half"])
def test_invalid_progress_is_refused(percent: float) -> None:
    table, lock = take(LockTable("main"), 0, REINDEX)
    with pytest.raises(InvalidConfig):
        table.heartbeat(1, WALL, "a", lock.token, ProgressReport(percent))
    with pytest.raises(InvalidConfig):
        table.heartbeat(1, WALL, "a", lock.token, ProgressReport(5, eta_s=-1))


def test_a_lock_of_the_branch_leaves_no_type_free_and_points_to_another_branch() -> None:
    table, _ = take(LockTable("main"), 0, ask("a", BRANCH))
    no = refusal(table, 1)
    assert no.free_resource_types == ()
    assert "create another branch and work there" in no.alternatives


def test_a_lock_of_one_record_points_to_the_others_and_leaves_its_type_free() -> None:
    table, _ = take(LockTable("main"), 0, ask("a", resource_target("object_type", "User")))
    no = refusal(table, 1)
    assert "change other records of object_type, only User is locked" in no.alternatives
    assert no.free_resource_types == ("action_type", "link_type")


def test_waiters_are_counted() -> None:
    table, _ = take(LockTable("main"), 0, REINDEX)
    table = wait(table, 1, 60, ask("b", resource_target(*USER)), owner="bob", waiter_id="b")
    table = wait(table, 1, 60, ask("c", resource_target("object_type", "Team")), owner="carol", waiter_id="c")
    assert refusal(table, 2).waiting == 1
    with pytest.raises(LockConflict) as refused:
        table.acquire(2, WALL, [ask("d", BRANCH)], owner="dave")
    assert refused.value.blocked.waiting == 2
    assert refused.value.hint in refused.value.blocked.alternatives
    assert "take a narrower lock that does not overlap" in refused.value.blocked.alternatives


@pytest.mark.parametrize("state", [BranchState.ARCHIVED, BranchState.MERGED, BranchState.ERROR])
def test_a_refusal_of_a_closed_branch_has_its_state_and_the_operations_out_of_it(state: BranchState) -> None:
    no = refusal(LockTable("main"), 0, BranchStatus("main", WALL, state=state, by="root", reason="done"))
    assert (no.cause, no.state, no.holder, no.retry_after_s) == ("STATE", state, "root", None)
    assert no.message == f"branch main is {state} and admits no write, reason: done"
    assert no.alternatives


def test_a_locked_state_alone_refuses_nothing_when_its_lock_is_gone() -> None:
    table, _ = take(LockTable("main"), 0, ask("a", BRANCH, LockType.INDEXING, ttl_s=10))
    status = BranchStatus("main", WALL, state=BranchState.LOCKED_FOR_WRITE)
    assert refusal(table, 9, status).cause == "LOCK"
    assert table.check_write(10, WALL, [USER], status=status).value.allowed


def test_a_refusal_survives_being_sent() -> None:
    table, _ = take(LockTable("main"), 0, REINDEX)
    no = refusal(table, 1)
    assert msgspec.json.decode(msgspec.json.encode(no), type=Blocked) == no


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (8, "8 s"), (240, "4 min"), (7500, "2 h 5 min")])
def test_durations_are_written_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
