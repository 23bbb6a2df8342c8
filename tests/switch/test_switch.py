"""Switches: conditional, bounded, proven; and the end of a shadow that is unsound."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import (
    Delete,
    Engine,
    InvalidConfig,
    InvalidTransition,
    ShadowIndex,
    ShadowState,
    StaleFence,
    SwitchRequest,
    SwitchResult,
    Timeout,
)
from shadowswitch.model.shadow_state import GenerationRole
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog import transitions
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, live, put, wait_until


def commit_switch(engine: Engine, shadow: ShadowIndex, *, token: int = 0, expected: int = -1) -> Any:
    """The commit of a switch with a token or an expectation that may be out of date."""
    catalog = inside.catalog(engine)
    row = catalog.shadow(shadow.shadow_index_id)
    index = catalog.index(row.branch, KIND)
    present = index.live if index is not None else 0
    return inside.transact(
        engine,
        lambda c: transitions.commit_switch(
            c, row.generation, row.token + token, present if expected < 0 else expected, 0, 60.0, "ATOMIC_RENAME", {}
        ),
        "switch",
    )


def damage(shadow: ShadowIndex, statement: str) -> None:
    """Change the rows of the first shard of a BUILT shadow without the engine."""
    connection = sqlite3.connect(Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite", timeout=10)
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


# -- the condition of the commit -------------------------------------------------------------------------------------


def test_a_switch_that_expects_another_live_generation_is_refused(filled: Engine) -> None:
    first = live(filled)
    shadow = built(filled)
    for expected in (0, first + 7):
        with pytest.raises(StaleFence, match="expected"):
            commit_switch(filled, shadow, expected=expected)
    assert filled.index("main", KIND).generation == first
    assert filled.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    assert filled.switch(shadow.shadow_index_id).success


def test_a_switch_with_an_old_or_a_future_token_is_refused(filled: Engine) -> None:
    shadow = built(filled)
    for token in (-1, 1):
        with pytest.raises(StaleFence, match="token"):
            commit_switch(filled, shadow, token=token)
    assert filled.indexes() == []
    assert filled.switch(shadow.shadow_index_id).success


def test_the_token_of_a_build_grows_with_every_retry(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=raise:EIO@1")
    shadow = filled.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    filled.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    before = inside.catalog(filled).shadow(shadow.shadow_index_id).token
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    filled.retry_build(shadow.shadow_index_id)
    filled.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
    assert inside.catalog(filled).shadow(shadow.shadow_index_id).token > before
    with pytest.raises(StaleFence, match="token"):
        commit_switch(filled, shadow, token=before - inside.catalog(filled).shadow(shadow.shadow_index_id).token)


def test_a_generation_that_is_live_already_is_not_switched_to_again(filled: Engine) -> None:
    live(filled)
    shadow = filled.shadows(state="ACTIVE")[0]
    with pytest.raises(StaleFence, match="is live"):
        commit_switch(filled, shadow)
    with pytest.raises(InvalidTransition, match="ACTIVE"):
        filled.switch(shadow.shadow_index_id)


def test_a_shadow_that_is_being_built_is_not_switched_to(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.3")
    shadow = filled.start_build("main", KIND, TYPES)
    with pytest.raises(InvalidTransition, match="BUILT"):
        filled.switch(shadow.shadow_index_id)
    with pytest.raises(StaleFence):
        commit_switch(filled, shadow)
    filled.cancel_build(shadow.shadow_index_id)


def test_rollback_and_switch_at_once_leave_one_live_generation(filled: Engine) -> None:
    live(filled)
    live(filled)
    shadow = built(filled)
    results: list[object] = []

    def run(call: Any) -> None:
        try:
            results.append(call())
        except (InvalidTransition, LookupError) as error:
            results.append(error)

    calls = [lambda: filled.rollback("main", KIND), lambda: filled.switch(shadow.shadow_index_id)] * 2
    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    info = filled.index("main", KIND)
    with filled.reader("main", KIND) as reader:
        assert reader.generation == info.generation
    roles = [row.role for row in inside.catalog(filled).generations()]
    assert roles.count(GenerationRole.LIVE) == 1
    assert found(filled, "word7") == {"7"}


def test_a_cancellation_that_comes_too_late_leaves_the_new_index_followed(filled: Engine) -> None:
    shadow = built(filled)
    failpoints.plan_points("follow.applied=sleep:1.0@1")  # a busy follower delays the cancellation
    filled.write("main", [put("a", "edited")])
    outcomes: list[object] = []

    def cancel() -> None:
        try:
            outcomes.append(filled.cancel_build(shadow.shadow_index_id).state)
        except InvalidTransition as error:
            outcomes.append(error)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        outcomes.append(filled.switch(shadow.shadow_index_id).success)
    except InvalidTransition as error:
        outcomes.append(error)
    thread.join(30)
    assert len(outcomes) == 2
    if filled.shadow(shadow.shadow_index_id).state == ShadowState.ACTIVE:
        filled.write("main", [put("b", "edited")])
        wait_until(lambda: found(filled, "edited") == {"a", "b"})


# -- the budget ------------------------------------------------------------------------------------------------------


def switch_under_load(engine: Engine) -> SwitchResult:
    """Switch while batches gather at the JournalWriter; they stop after two attempts were given up."""
    shadow = built(engine)
    results: list[SwitchResult] = []
    request = SwitchRequest(switch_timeout_seconds=90)
    switch = threading.Thread(target=lambda: results.append(engine.switch(shadow.shadow_index_id, request)))
    before = engine.stats()["counters"].get("switch_attempts_given_up", 0)

    def write() -> None:
        engine.write("main", [put(f"w{n}", "") for n in range(500)])

    def given_up() -> bool:
        return bool(results) or engine.stats()["counters"].get("switch_attempts_given_up", 0) >= before + 2

    failpoints.plan_points("journal.before_commit=sleep:0.02")
    with crew() as hands:
        hands.start(write, 3)
        switch.start()
        wait_until(given_up, 60)
    failpoints.plan_points("")
    switch.join(60)
    return results[0]


def test_a_switch_over_its_budget_is_given_up_and_tried_again_until_it_fits(open_engine: Any) -> None:
    engine = open_engine(seal_budget_ms=10)
    engine.create_branch("main")
    fill(engine, 100)
    result = next(r for r in (switch_under_load(engine) for _ in range(10)) if r.attempts > 1 or not r.success)
    assert result.success, result.message
    assert engine.write("main", [put("after", "later")]).count == 1
    assert found(engine, "later", min_lsn=engine.head("main")) == {"after"}


def test_a_switch_that_is_late_before_its_commit_gives_up_instead_of_committing_late(open_engine: Any) -> None:
    engine = open_engine(seal_budget_ms=200)
    engine.create_branch("main")
    fill(engine, 100)
    first = live(engine)
    shadow = built(engine)
    failpoints.plan_points("switch.sealed=sleep:0.3")
    result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=1))
    failpoints.plan_points("")
    assert not result.success
    assert "Config.seal_budget_ms" in result.message
    assert engine.index("main", KIND).generation == first
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=60)).success


def is_switching(engine: Engine, shadow: ShadowIndex) -> bool:
    return engine.shadow(shadow.shadow_index_id).state == ShadowState.SWITCHING


def test_a_switch_does_not_wait_longer_than_its_budget_for_the_writes_before_it(open_engine: Any) -> None:
    engine = open_engine(seal_budget_ms=100)
    engine.create_branch("main")
    fill(engine, 100)
    shadow = built(engine)
    failpoints.plan_points("switch.validated=sleep:0.3;journal.before_commit=sleep:3.0@2")

    with crew() as hands:
        hands.start(lambda: is_switching(engine, shadow) and engine.write("main", [put("w")], timeout_s=60))
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=2.5))
        assert not result.success
        assert "the commit of the writes before it" in result.message
    failpoints.plan_points("")
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=60)).success


def test_writers_are_let_go_after_every_attempt_that_is_given_up(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 100)
    live(engine)
    shadow = built(engine)

    def overrun() -> None:
        raise Timeout("the budget is spent")

    with monkeypatch.context() as patched:
        inside.before_apply_until(patched, shadow.generation, overrun)
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.4, validation_checks=()))
    assert not result.success
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    engine.write("main", [put("a")])
    assert not inside.is_attempt_under_way(engine)
    assert engine.switch(shadow.shadow_index_id).success


# -- unsound shadows -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("planted_damage")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE docs SET lsn = lsn + 1000000 WHERE id IN ('5', '6')",
        "UPDATE docs SET lsn = 0 WHERE rowid < 100",
        "UPDATE docs SET id = id || 'x' WHERE id = '5'",
    ],
)
def test_rows_of_a_wrong_version_are_repaired_once_they_are_live(filled: Engine, statement: str) -> None:
    live(filled)
    shadow = built(filled)
    damage(shadow, statement)
    result = filled.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=()))
    if result.rolled_back:  # the verification drew one of them
        return
    assert result.success, result.message
    wait_until(lambda: any(row.type.endswith("shadow.repaired") for row in filled.audit()), 60.0)
    assert filled.index("main", KIND).generation == result.generation
    assert filled.stats()["counters"]["buckets_repaired"] > 0
    with filled.reader("main", KIND) as reader:
        assert reader.count() == 3000
        held = reader.get("object_type", "5")
        source = filled.get("main", "object_type", "5")
        assert held is not None
        assert source is not None
        assert held.lsn == source.lsn


def test_rows_with_other_content_than_their_source_refuse_the_switch(engine: Engine) -> None:
    fill(engine, 50)
    first = live(engine)
    shadow = built(engine)
    damage(shadow, "UPDATE docs SET c0 = 'altered'")
    result = engine.switch(shadow.shadow_index_id)
    assert not result.success
    assert not result.validation_passed
    assert any("SAMPLE_READ_BACK" in error for error in result.validation_errors)
    assert engine.index("main", KIND).generation == first
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    engine.cancel_build(shadow.shadow_index_id)


@pytest.mark.usefixtures("planted_damage")
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", ["validation", "proof"])
def test_a_digest_that_differs_refuses_the_switch_forced_or_not(
    filled: Engine, monkeypatch: pytest.MonkeyPatch, force: bool, where: str
) -> None:
    first = live(filled)
    shadow = built(filled)
    if where == "proof":
        inside.spoil_digest(monkeypatch, filled, shadow.generation)
    else:
        inside.spoil_source_digest(monkeypatch)
    request = SwitchRequest(force_switch=force, validation_checks=(), switch_timeout_seconds=2)
    result = filled.switch(shadow.shadow_index_id, request)
    assert not result.success
    assert "digest" in result.message.lower()
    assert filled.index("main", KIND).generation == first
    assert filled.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    monkeypatch.undo()
    assert filled.switch(shadow.shadow_index_id).success


def test_force_overrides_advisory_checks_and_is_audited(open_engine: Any) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 50)
    live(engine)
    shadow = built(engine)
    damage(shadow, "UPDATE docs SET c0 = 'altered'")
    request = SwitchRequest(force_switch=True, performed_by="me", reason="I know better")
    result = engine.switch(shadow.shadow_index_id, request)
    assert result.success, result.message
    committed = [event for event in engine.audit() if event.type == "switch.committed"][-1]
    assert (committed.data["forced"], committed.data["by"], committed.data["reason"]) == (True, "me", "I know better")
    assert [error for error in committed.data["overridden"] if error.startswith("SAMPLE_READ_BACK")]


def test_a_shadow_that_lost_its_files_is_not_switched_to(filled: Engine) -> None:
    first = live(filled)
    shadow = built(filled)
    (Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite").rename(
        Path(shadow.shadow_index_path) / "shard-000" / "elsewhere"
    )
    result = filled.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=2))
    assert not result.success
    assert filled.index("main", KIND).generation == first
    filled.cancel_build(shadow.shadow_index_id)


# -- the request and the result --------------------------------------------------------------------------------------


def test_an_invalid_request_is_refused() -> None:
    for wrong in ({"switch_timeout_seconds": 0}, {"switch_timeout_seconds": 1e9}, {"strategy": "HOPE"}):
        with pytest.raises(InvalidConfig):
            SwitchRequest(**wrong)
    with pytest.raises(InvalidConfig):
        SwitchRequest(validation_checks="DIGEST")  # type: ignore[arg-type]


def test_the_result_of_a_first_switch_knows_no_old_index(filled: Engine) -> None:
    result = filled.rebuild("main", KIND, TYPES)
    assert (result.old_index_path, result.backup_path, result.index_size_change_bytes) == (None, None, None)
    assert (result.attempts, result.rolled_back, result.validation_errors) == (1, False, [])
    assert result.sealed_lsn == 3000
    assert os.path.isdir(result.new_index_path or "")
    assert result.generation == filled.index("main", KIND).generation


def test_writes_between_build_and_switch_are_in_the_new_generation(filled: Engine) -> None:
    shadow = built(filled, shards=3)
    filled.write("main", [put("0", "late"), Delete("object_type", "1"), put("new", "late")])
    result = filled.switch(shadow.shadow_index_id)
    assert result.sealed_lsn == filled.head("main")
    assert found(filled, "late") == {"0", "new"}
    assert found(filled, "word1") == set()


def test_switches_of_different_branches_do_not_disturb_each_other(engine: Engine) -> None:
    names = ["main", "b1", "b2"]
    for name in names[1:]:
        engine.create_branch(name)
    shadows = {}
    for name in names:
        fill(engine, 200, name, text=name)
        shadows[name] = built(engine, name)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda s=shadow: results.append(engine.switch(s.shadow_index_id).success))
        for shadow in shadows.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 3
    for name in names:
        assert len(found(engine, name, name)) == 200
