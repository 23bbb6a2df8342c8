"""The states of a branch: the table is consistent, and indexing in parts ends in the right state."""

from __future__ import annotations

from itertools import product

import pytest

from shadowswitch.model.errors import InvalidTransition
from shadowswitch.model.locks.branch_state import (
    CALLS,
    MOVES,
    WHOLE,
    BranchOperation,
    BranchState,
    BranchStatus,
    IndexingWork,
    after_locks,
    complete_indexing,
    fail_indexing,
    move,
    start_indexing,
)
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, LockType, type_target
from tests.support.lock_helpers import STATUS, WALL, ask, take

B, Op = BranchState, BranchOperation


def at(state: BranchState) -> BranchStatus:
    return BranchStatus("main", WALL, state=state)


def work(resource_type: str, lock_id: str = "", *, whole: bool = False, track: bool = True) -> IndexingWork:
    return IndexingWork(resource_type, "indexer", WALL, lock_id, whole, track)


@pytest.mark.parametrize(("state", "operation"), list(product(BranchState, BranchOperation)))
def test_an_operation_moves_the_branch_or_is_refused_as_in_the_table(
    state: BranchState, operation: BranchOperation
) -> None:
    allowed, wanted = MOVES[operation]
    if state in allowed:
        after = move(at(state), operation, WALL, by="alice", reason="because")
        assert (after.state, after.previous, after.by, after.reason) == (wanted, state, "alice", "because")
    else:
        with pytest.raises(InvalidTransition) as refused:
            move(at(state), operation, WALL)
        possible = {CALLS[op] for op, (froms, _) in MOVES.items() if state in froms}
        assert set(refused.value.hint.removeprefix("possible from here: ").split(", ")) == (
            possible or {"nothing", "the state is final"}
        )


def test_every_state_can_be_reached_and_every_state_but_archived_can_be_left() -> None:
    reached, frontier = {B.ACTIVE}, [B.ACTIVE]
    while frontier:
        state = frontier.pop()
        found = {wanted for froms, wanted in MOVES.values() if state in froms} - reached
        reached |= found
        frontier += found
    assert reached == set(BranchState)
    leavable = {state for froms, _ in MOVES.values() for state in froms}
    assert leavable == set(BranchState) - {B.ARCHIVED}
    assert all(wanted not in froms for froms, wanted in MOVES.values())


def test_writes_are_admitted_by_states_that_are_open() -> None:
    assert {s for s in BranchState if at(s).admits_writes} == {B.ACTIVE, B.LOCKED_FOR_WRITE, B.READY}


def test_indexing_the_whole_branch_locks_it_and_makes_it_ready() -> None:
    status = start_indexing(STATUS, WALL, [work(WHOLE, "lock", whole=True)])
    assert status.state is B.LOCKED_FOR_WRITE
    done = complete_indexing(status, WALL, by="indexer")
    assert (done.status.state, done.release, done.completed, done.remaining) == (B.READY, ("lock",), (WHOLE,), ())
    assert done.status.is_ready_for_merge
    assert done.status.indexing_completed_at == WALL


def test_a_branch_indexed_in_parts_stays_active_and_is_ready_after_the_last_part() -> None:
    status = start_indexing(STATUS, WALL, [work("object_type", "o"), work("link_type", "l")])
    assert status.state is B.ACTIVE
    first = complete_indexing(status, WALL, resource_types=["link_type"])
    assert (first.status.state, first.release, first.remaining) == (B.ACTIVE, ("l",), ("object_type",))
    assert first.status.indexing_completed_at is None
    assert complete_indexing(first.status, WALL).status.state is B.READY


def test_parts_under_one_lock_release_it_with_the_last_of_them() -> None:
    works = [work("object_type", "one", whole=True), work("link_type", "one", whole=True)]
    status = start_indexing(STATUS, WALL, works)
    first = complete_indexing(status, WALL, resource_types=["object_type"])
    assert (first.status.state, first.release) == (B.LOCKED_FOR_WRITE, ())
    assert complete_indexing(first.status, WALL).release == ("one",)


def test_a_rebuild_in_the_shadow_makes_the_branch_ready_without_any_lock() -> None:
    status = start_indexing(STATUS, WALL, [work("object_type")])
    done = complete_indexing(status, WALL)
    assert (done.status.state, done.release) == (B.READY, ())


def test_untracked_indexing_leaves_the_branch_active() -> None:
    narrow = start_indexing(STATUS, WALL, [work("object_type", track=False)])
    assert complete_indexing(narrow, WALL).status.state is B.ACTIVE
    whole = start_indexing(STATUS, WALL, [work(WHOLE, "lock", whole=True, track=False)])
    assert complete_indexing(whole, WALL).status.state is B.ACTIVE


def test_failed_indexing_of_the_whole_branch_is_an_error_until_it_is_indexed_again() -> None:
    status = start_indexing(STATUS, WALL, [work(WHOLE, "lock", whole=True)])
    failed = fail_indexing(status, WALL, by="indexer", reason="disk")
    assert (failed.status.state, failed.status.reason, failed.release) == (B.ERROR, "disk", ("lock",))
    again = start_indexing(failed.status, WALL, [work(WHOLE, "next", whole=True)])
    assert again.state is B.LOCKED_FOR_WRITE
    assert complete_indexing(again, WALL).status.state is B.READY


def test_a_failed_part_leaves_drafts_editable_and_the_branch_not_ready_until_it_is_repeated() -> None:
    status = start_indexing(STATUS, WALL, [work("object_type", "o"), work("link_type", "l")])
    status = fail_indexing(status, WALL, resource_types=["link_type"]).status
    status = complete_indexing(status, WALL).status
    assert (status.state, status.failed, status.indexing_completed_at) == (B.ACTIVE, ("link_type",), None)
    status = complete_indexing(start_indexing(status, WALL, [work("link_type")]), WALL).status
    assert (status.state, status.failed) == (B.READY, ())


def test_a_ready_branch_is_not_ready_while_it_is_indexed_again() -> None:
    assert start_indexing(at(B.READY), WALL, [work("object_type")]).state is B.ACTIVE


def test_indexing_is_refused_in_states_that_do_not_allow_it() -> None:
    for state in (B.ARCHIVED, B.MERGED):
        with pytest.raises(InvalidTransition):
            start_indexing(at(state), WALL, [work("object_type")])
    running = start_indexing(STATUS, WALL, [work("object_type")])
    with pytest.raises(InvalidTransition, match="being indexed already"):
        start_indexing(running, WALL, [work("object_type")])
    with pytest.raises(InvalidTransition, match="link_type is not being indexed"):
        complete_indexing(running, WALL, resource_types=["link_type"])
    with pytest.raises(InvalidTransition, match="nothing is being indexed"):
        complete_indexing(running, WALL, owner="mallory")
    with pytest.raises(InvalidTransition, match="nothing is being indexed"):
        fail_indexing(STATUS, WALL)


def test_the_state_follows_an_indexing_lock_of_the_branch_and_never_outlives_it() -> None:
    table = LockTable("main")
    step = table.acquire(0, WALL, [ask("a", BRANCH, LockType.INDEXING, ttl_s=10, reason="reindex")], owner="indexer")
    locked = after_locks(STATUS, step.events, WALL, held=step.table.locks.values())
    assert (locked.state, locked.by, locked.reason) == (B.LOCKED_FOR_WRITE, "indexer", "reindex")
    swept = step.table.expire_due(10, WALL)
    freed = after_locks(locked, swept.events, WALL, held=swept.table.locks.values())
    assert (freed.state, freed.reason) == (B.ACTIVE, "lock expired: its time to live is over")


def test_an_expired_lock_counts_as_failed_indexing_never_as_success() -> None:
    table, _ = take(LockTable("main"), 0, ask("a", type_target("object_type"), LockType.INDEXING, ttl_s=10))
    status = start_indexing(STATUS, WALL, [work("object_type", "a")])
    status = after_locks(status, table.expire_due(10, WALL).events, WALL)
    assert (status.state, status.indexing, status.failed) == (B.ACTIVE, (), ("object_type",))


def test_completed_indexing_is_not_undone_by_the_release_of_its_lock() -> None:
    table, lock = take(LockTable("main"), 0, ask("a", BRANCH, LockType.INDEXING))
    status = start_indexing(STATUS, WALL, [work(WHOLE, "a", whole=True)])
    done = complete_indexing(status, WALL)
    step = table.release(1, WALL, ("a", lock.token))
    assert after_locks(done.status, step.events, WALL) == done.status


def test_a_recovery_that_ends_without_result_goes_back_to_error() -> None:
    step = LockTable("main").acquire(0, WALL, [ask("a", BRANCH, LockType.INDEXING)], owner="indexer")
    status = after_locks(at(B.ERROR), step.events, WALL)
    assert status.state is B.LOCKED_FOR_WRITE
    forced = step.table.force_unlock(1, WALL, by="root", reason="stuck")
    assert after_locks(status, forced.events, WALL).state is B.ERROR


def test_other_locks_do_not_move_the_state() -> None:
    step = LockTable("main").acquire(0, WALL, [ask("a", BRANCH, LockType.MAINTENANCE)], owner="ops")
    assert after_locks(STATUS, step.events, WALL) == STATUS
    step = LockTable("main").acquire(0, WALL, [ask("a", BRANCH, LockType.INDEXING)], owner="indexer")
    assert after_locks(at(B.ARCHIVED), step.events, WALL).state is B.ARCHIVED


def test_the_branch_stays_locked_while_a_second_indexing_lock_of_it_is_held() -> None:
    table, outer = take(LockTable("main"), 0, ask("a", BRANCH, LockType.INDEXING))
    table, _ = take(table, 0, ask("b", BRANCH, LockType.INDEXING), under=(outer.token,))
    step = table.release(1, WALL, ("a", outer.token))
    status = after_locks(at(B.LOCKED_FOR_WRITE), step.events, WALL, held=step.table.locks.values())
    assert status.state is B.LOCKED_FOR_WRITE


def test_indexing_that_ends_beside_another_lock_of_the_branch_leaves_it_locked() -> None:
    _, lock = take(LockTable("main"), 0, ask("other", BRANCH, LockType.INDEXING), owner="other")
    locked = move(at(B.ACTIVE), Op.LOCK, WALL)
    for end in (complete_indexing, fail_indexing):
        status = start_indexing(locked, WALL, [work("object_type")])
        assert end(status, WALL, held=[lock]).status.state is B.LOCKED_FOR_WRITE
        assert end(status, WALL, held=[]).status.state is not B.LOCKED_FOR_WRITE
