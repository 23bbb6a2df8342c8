"""A branch becomes READY after the rebuild and switch of all its tracked builds, in place or in the shadow."""

from __future__ import annotations

import pytest

from shadowswitch import DuplicateBuild, Engine, InvalidConfig, InvalidTransition, LockLost, SwitchRequest
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, found, put
from tests.support.engine_lock_helpers import Eventually, OpenEngine


def state(engine: Engine) -> str:
    return engine.branch("main").state


@pytest.fixture
def some(engine: Engine) -> Engine:
    """An engine with a few records of two types."""
    engine.write("main", [put(str(n)) for n in range(20)] + [put("1", resource_type="link_type")])
    return engine


def tracked(engine: Engine, kind: str = KIND, types: list[str] = TYPES) -> str:
    shadow = engine.start_build("main", kind, types, {"parallel_workers": 1}, track_ready=True)
    return shadow.shadow_index_id


def test_a_tracked_rebuild_in_the_shadow_makes_the_branch_ready(some: Engine) -> None:
    assert some.rebuild("main", KIND, TYPES, {"parallel_workers": 1}).success
    assert state(some) == "ACTIVE", "this rebuild was not tracked"
    assert some.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, track_ready=True).success
    assert state(some) == "READY"
    some.write("main", [put("draft")])
    assert some.merge_branch("main", "alice", "done").state == "MERGED"


def test_a_tracked_branch_stays_active_and_editable_until_the_switch(some: Engine) -> None:
    shadow_id = tracked(some)
    some.wait_for(shadow_id, "BUILT", timeout_s=60)
    some.write("main", [put("draft")])
    some.clean_up()
    assert state(some) == "ACTIVE"
    assert some.switch(shadow_id).success
    assert state(some) == "READY"
    assert found(some, "worddraft") == {"draft"}


def test_ready_comes_with_the_last_of_several_in_either_mode(some: Engine) -> None:
    one = tracked(some)
    other = tracked(some, "GRAPH_INDEX", ["object_type", "link_type"])
    some.start_indexing("main", "indexer", ["object_type", "link_type"])
    for shadow_id in (one, other):
        some.wait_for(shadow_id, "BUILT", timeout_s=60)
        assert some.switch(shadow_id).success
        assert state(some) == "ACTIVE"
    done = some.complete_indexing("main", "indexer", ["link_type"])
    assert (done.completed, done.remaining) == (("link_type",), ("object_type",))
    assert state(some) == "ACTIVE"
    some.complete_indexing("main", "indexer")
    assert state(some) == "READY"


def test_a_token_does_not_complete_the_indexing_of_another_caller_with_the_same_name(some: Engine) -> None:
    (one,) = some.start_indexing("main", "indexer", ["object_type"])
    (other,) = some.start_indexing("main", "indexer", ["link_type"])
    with pytest.raises(InvalidTransition, match="under the locks of these tokens"):
        some.complete_indexing("main", "indexer", ["link_type"], tokens=[one.token])
    with pytest.raises(LockLost):
        some.complete_indexing("main", "another indexer", tokens=[one.token])
    with pytest.raises(InvalidConfig, match="tokens"):
        some.complete_indexing("main", "indexer", tokens=["1"])  # type: ignore[list-item]
    done = some.complete_indexing("main", "indexer", tokens=[one.token])
    assert (done.completed, done.remaining) == (("object_type",), ("link_type",))
    with pytest.raises(LockLost):
        some.complete_indexing("main", "indexer", tokens=[one.token])
    assert [lock.lock_id for lock in some.locks()] == [other.lock_id]
    some.complete_indexing("main", tokens=[other.token])
    assert (state(some), some.locks()) == ("READY", [])


def test_a_completion_that_was_held_up_beyond_the_time_of_its_lock_completes_nothing(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction itself compares the token: the process may stand still between the check and the transaction."""
    engine = open_engine()
    engine.create_branch("main")
    (lock,) = engine.start_indexing("main", "indexer", ttl_s=60)
    inside.hold_up_lock_store(monkeypatch, 1, by_s=100)
    with pytest.raises(LockLost):
        engine.complete_indexing("main", "indexer", tokens=[lock.token])
    assert state(engine) == "ACTIVE", "the lock has expired, and nothing was completed"
    with pytest.raises(InvalidTransition):
        engine.complete_indexing("main", "indexer")


def test_a_tracked_build_in_the_shadow_is_not_completed_by_a_call(some: Engine) -> None:
    tracked(some)
    with pytest.raises(InvalidTransition):
        some.complete_indexing("main")
    assert state(some) == "ACTIVE"


def test_a_failed_or_cancelled_build_makes_nothing_ready_until_it_is_built_again(
    some: Engine, eventually: Eventually
) -> None:
    failed = tracked(some, "GRAPH_INDEX")
    some.cancel_build(failed, "not wanted")
    eventually(lambda: not inside.tracked_builds(some))
    assert some.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, track_ready=True).success
    assert state(some) == "ACTIVE", "one tracked build did not succeed"
    assert some.rebuild("main", "GRAPH_INDEX", TYPES, {"parallel_workers": 1}, track_ready=True).success
    assert state(some) == "READY"


def test_a_switch_that_does_not_verify_makes_nothing_ready(some: Engine, eventually: Eventually) -> None:
    some.rebuild("main", KIND, TYPES, {"parallel_workers": 1})
    shadow_id = tracked(some)
    some.wait_for(shadow_id, "BUILT", timeout_s=60)
    failpoints.plan_points("switch.verify=raise")
    assert not some.switch(shadow_id).success
    failpoints.plan_points("")
    eventually(lambda: not inside.tracked_builds(some))
    assert state(some) == "ACTIVE"


def test_a_switch_that_is_refused_leaves_the_tracked_build_pending(some: Engine) -> None:
    some.add_validator("NEVER", lambda reader: ["no"])
    shadow_id = tracked(some)
    some.wait_for(shadow_id, "BUILT", timeout_s=60)
    assert not some.switch(shadow_id, SwitchRequest(validation_checks=("NEVER",))).success
    some.clean_up()
    assert state(some) == "ACTIVE"
    assert some.switch(shadow_id).success
    assert state(some) == "READY"


def test_a_retry_is_tracked_again(some: Engine, eventually: Eventually) -> None:
    shadow = some.start_build("main", KIND, TYPES, {"backend": "fts5"}, external=True, track_ready=True)
    some.fail_build(shadow.shadow_index_id, "no room")
    eventually(lambda: not inside.tracked_builds(some))
    some.retry_build(shadow.shadow_index_id)
    assert inside.tracked_builds(some)
    some.fail_build(shadow.shadow_index_id, "no room")
    some.retry_build(shadow.shadow_index_id)
    assert inside.tracked_builds(some), "the retry is tracked, also before the failure is noticed"


def test_a_tracked_build_that_cannot_be_claimed_leaves_nothing_behind(some: Engine) -> None:
    built(some)
    with pytest.raises(DuplicateBuild) as caught:
        tracked(some)
    assert caught.value.blocked.progress_percent == 100
    assert not inside.tracked_builds(some)
    some.create_branch("done")
    some.archive_branch("done")
    with pytest.raises(InvalidTransition):
        some.start_build("done", KIND, TYPES, track_ready=True)
    assert some.shadows("done") == []


def test_a_build_that_ended_is_out_of_the_way_of_the_next_at_once(open_engine: OpenEngine) -> None:
    engine = open_engine(janitor_interval_s=1000.0)
    engine.create_branch("main")
    engine.write("main", [put("a")])
    first = tracked(engine)
    with pytest.raises(DuplicateBuild) as caught:
        tracked(engine)
    assert caught.value.shadow_index_id == first
    assert caught.value.blocked is not None
    engine.cancel_build(first)
    assert engine.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, track_ready=True).success
    assert state(engine) == "READY"


def test_a_completion_that_a_stop_prevented_follows_at_the_next_start(
    open_engine: OpenEngine, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:

    engine = open_engine(janitor_interval_s=1000.0)
    engine.create_branch("main")
    engine.write("main", [put("a")])
    shadow_id = tracked(engine)
    engine.wait_for(shadow_id, "BUILT", timeout_s=60)
    inside.replace(monkeypatch, inside.Step.SETTLE_TRACKED_BUILD, lambda self, message: None)
    assert engine.switch(shadow_id).success
    assert state(engine) == "ACTIVE"
    engine.close()
    engine = open_engine()
    eventually(lambda: state(engine) == "READY")
