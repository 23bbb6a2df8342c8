"""Progress and ETA in a refusal are measured: they come from the build or from heartbeats."""

from __future__ import annotations

import pytest

from shadowswitch import Blocked, DuplicateBuild, Engine, InvalidConfig, ProgressReport
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built
from tests.support.engine_lock_helpers import Eventually, blocked_write, put, refused_lock


def duplicate(engine: Engine) -> Blocked:
    with pytest.raises(DuplicateBuild) as caught:
        engine.start_build("main", KIND, TYPES)
    assert isinstance(caught.value.blocked, Blocked)
    return caught.value.blocked


def test_a_lock_for_a_build_has_the_progress_of_that_build(engine: Engine) -> None:
    engine.write("main", [put("a"), put("a", "link_type")])
    shadow = engine.start_build("main", KIND, TYPES, {"backend": "fts5"}, external=True, service_name="funnel")
    locks = engine.start_indexing("main", "funnel", TYPES, ttl_s=100, shadow_index_id=shadow.shadow_index_id)
    engine.heartbeat(locks[0].lock_id, locks[0].token, ProgressReport(99, eta_s=1))
    assert refused_lock(engine, "bob").progress_percent == 0, (
        "the build has not reported yet; the heartbeat does not count"
    )
    engine.report_progress(shadow.shadow_index_id, 40, 1200)
    for blocked in (refused_lock(engine, "bob"), blocked_write(engine, put("a"))):
        assert (blocked.progress_percent, blocked.retry_after_s) == (40, 300)
        assert blocked.eta_s is not None
        assert 1100 < blocked.eta_s < 1200, "the ETA of the report less the time since then"
        assert "40 % done" in blocked.message
        assert blocked.free_resource_types == ("link_type",)
    assert [lock.progress_percent for lock in engine.locks()] == [40]
    assert engine.check_write("main", "update", "object_type", "a").blocked is not None
    engine.fail_build(shadow.shadow_index_id, "no room")
    assert refused_lock(engine, "bob").progress_percent is None, "a failed build has no progress"


def test_the_progress_of_a_managed_build_is_that_of_its_meter(
    engine: Engine, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write("main", [put(str(n)) for n in range(2000)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:600")
    shadow = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    eventually(lambda: engine.stats()["worker_pids"])
    lock = engine.acquire_lock("main", "INDEXING", "alice", shadow_index_id=shadow.shadow_index_id)
    inside.set_build_progress(engine, shadow.shadow_index_id, 61.0, 42.0)
    for blocked in (refused_lock(engine, "bob"), blocked_write(engine, put("a")), duplicate(engine)):
        assert blocked.progress_percent == pytest.approx(61, abs=39)
        assert blocked.eta_s is not None
        assert blocked.eta_s <= 42
    engine.pause_build(shadow.shadow_index_id)
    assert refused_lock(engine, "bob").eta_s is None, "a build that stands still has no ETA"
    engine.release_lock(lock.lock_id, lock.token)


def test_a_duplicate_build_is_refused_by_a_claim_that_blocks_no_other_call(engine: Engine) -> None:
    shadow = engine.start_build("main", KIND, TYPES, {"backend": "fts5"}, external=True, service_name="funnel")
    engine.report_progress(shadow.shadow_index_id, 25, 90)
    blocked = duplicate(engine)
    assert (blocked.scope, blocked.lock_type, blocked.holder) == ("INDEX", "INDEXING", "funnel")
    assert (blocked.lock_id, blocked.since) == (shadow.shadow_index_id, shadow.created_at)
    assert blocked.progress_percent == 25
    assert blocked.eta_s == pytest.approx(90, abs=60)
    lock = engine.acquire_lock("main", "MIGRATION", "alice")
    engine.write("main", [put("a")], owner="alice", tokens=[lock.token])
    engine.release_lock(lock.lock_id, lock.token)
    engine.cancel_build(shadow.shadow_index_id)
    built(engine)
    blocked = duplicate(engine)
    assert (blocked.progress_percent, blocked.retry_after_s) == (100, None), "a built shadow waits for its switch"
    assert "switch to it" in blocked.alternatives[0]


def test_without_a_report_nothing_is_guessed(engine: Engine) -> None:
    engine.acquire_lock("main", "BACKUP", "alice", ttl_s=10)
    blocked = refused_lock(engine, "bob")
    assert (blocked.progress_percent, blocked.eta_s, blocked.retry_after_s) == (None, None, 30), "the TTL is no ETA"


def test_a_build_of_another_branch_cannot_be_named_by_a_lock(engine: Engine) -> None:
    engine.create_branch("other")
    shadow = engine.start_build("other", KIND, TYPES, {"backend": "fts5"}, external=True)
    with pytest.raises(InvalidConfig):
        engine.acquire_lock("main", "INDEXING", "alice", shadow_index_id=shadow.shadow_index_id)
    assert engine.locks() == []
