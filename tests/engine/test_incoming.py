"""Incoming events: their handling by mode and shadow, their one outcome, and the conditions of a merge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from shadowswitch import Engine, EventOutcome, IncomingRules, InvalidEvent, Put, StorageFull, Timeout
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, put
from tests.support.external_helpers import begin, delivered, incoming

OpenEngine = Callable[..., Engine]
PASSED: dict[str, Any] = {"validation_results": {"passed": True}}


def shadow_event(engine: Engine, **data: Any) -> dict[str, Any]:
    """An event that completes an external build; the files of the build are complete."""
    fill(engine, 10)
    shadow = begin(engine)
    size = delivered(engine, shadow)
    return incoming(
        "com.oms.indexing.completed",
        indexing_mode="shadow",
        shadow_index_id=shadow.shadow_index_id,
        **{
            "status": "success",
            "records_indexed": 10,
            "index_size_bytes": size,
            "applied_lsn": engine.head("main"),
            **data,
        },
    )


# -- events with a shadow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["com.oms.indexing.completed", "com.oms.shadow.indexing.completed"])
def test_a_completed_shadow_is_validated_and_switched_to(engine: Engine, kind: str) -> None:
    event = {**shadow_event(engine), "type": kind}
    if ".shadow." in kind:
        del event["data"]["indexing_mode"]
    outcome = engine.receive_event(event, by="token 7")
    assert (outcome.outcome, outcome.accepted, outcome.duplicate) == ("switched", True, False)
    assert engine.index("main", KIND).shadow_index_id == outcome.shadow_index_id
    committed = [entry for entry in engine.audit() if entry.type == "switch.committed"]
    assert committed[-1].data["by"] == "token 7"
    handled = [event for event in engine.events() if event.type.endswith("incoming.handled")]
    assert (handled[-1].subject, handled[-1].data["outcome"]) == (outcome.shadow_index_id, "switched")


def test_a_shadow_unlike_its_event_is_refused(engine: Engine) -> None:
    outcome = engine.receive_event(shadow_event(engine, records_indexed=11))
    assert (outcome.outcome, outcome.accepted) == ("refused", False)
    assert "record_count is claimed to be 11" in outcome.message
    assert engine.indexes() == []


def test_without_auto_switch_the_shadow_waits(open_engine: OpenEngine) -> None:
    engine = open_engine(incoming=IncomingRules(auto_switch=False))
    engine.create_branch("main")
    outcome = engine.receive_event(shadow_event(engine))
    assert outcome.outcome == "built"
    assert engine.shadow(outcome.shadow_index_id).state == "BUILT"


@pytest.mark.parametrize(("allowed", "expected"), [(False, "ready_for_manual_switch"), (True, "switched")])
def test_an_index_without_records_becomes_live_where_the_rules_allow_it(
    open_engine: OpenEngine, allowed: bool, expected: str
) -> None:
    engine = open_engine(incoming=IncomingRules(allow_empty=allowed))
    engine.create_branch("main")
    id = built(engine).shadow_index_id
    event = incoming("com.oms.shadow.indexing.completed", shadow_index_id=id, status="success")
    assert engine.receive_event(event).outcome == expected
    assert len(engine.indexes()) == allowed


def test_a_refused_switch_leaves_the_shadow_for_a_manual_switch(open_engine: OpenEngine) -> None:
    engine = open_engine(incoming=IncomingRules(validation_checks=("DIGEST", "NEVER")))
    engine.create_branch("main")
    engine.add_validator("NEVER", lambda reader: ["no"])
    outcome = engine.receive_event(shadow_event(engine))
    assert outcome.outcome == "ready_for_manual_switch"
    assert "NEVER: no" in outcome.message
    assert engine.shadow(outcome.shadow_index_id).state == "BUILT"


def test_the_switch_runs_the_configured_checks(open_engine: OpenEngine) -> None:
    rules = IncomingRules(validation_checks=("DIGEST",), backup_before_switch=False)
    request = rules.switch_request("me")
    assert (request.validation_checks, request.backup_current, request.force_switch) == (("DIGEST",), False, False)
    engine = open_engine(incoming=rules)
    engine.create_branch("main")
    fill(engine, 5)
    live(engine)
    assert engine.receive_event(shadow_event(engine)).outcome == "switched"
    assert engine.index("main", KIND).previous_generation is None


@pytest.mark.parametrize(
    ("kind", "status"), [("com.oms.indexing.failed", "success"), ("com.oms.indexing.completed", "error")]
)
def test_a_failed_event_fails_the_shadow_with_its_message(engine: Engine, kind: str, status: str) -> None:
    event = {**shadow_event(engine, status=status, error_message="out of memory"), "type": kind}
    outcome = engine.receive_event(event)
    assert outcome.outcome == "failed"
    shadow = engine.shadow(outcome.shadow_index_id)
    assert (shadow.state, shadow.error) == ("FAILED", "out of memory")


def test_a_shadow_of_another_branch_is_refused(engine: Engine) -> None:
    engine.create_branch("other")
    outcome = engine.receive_event(shadow_event(engine, branch_name="other"))
    assert outcome.outcome == "refused"
    assert engine.shadow(outcome.shadow_index_id).state == "BUILDING"


def test_an_event_waits_for_an_internal_build_and_has_no_outcome_before_its_end(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event claims an external build; the engine ignores the claims for its own build."""
    id = filled.start_build("main", KIND, ["object_type"]).shadow_index_id
    filled.pause_build(id)
    event = incoming("com.oms.shadow.indexing.completed", shadow_index_id=id, records_indexed=7)
    with monkeypatch.context() as patch:
        inside.patch_limit(patch, inside.Limit.BUILT_WAIT_S, 0.1)
        with pytest.raises(Timeout):
            filled.receive_event(event)
    assert filled.shadow(id).state == "BUILDING"
    filled.resume_build(id)
    outcome = filled.receive_event(event)
    assert (outcome.outcome, outcome.duplicate) == ("switched", False)
    assert filled.index("main", KIND).shadow_index_id == id


def test_a_failed_event_ends_an_internal_build(filled: Engine) -> None:
    id = filled.start_build("main", KIND, ["object_type"]).shadow_index_id
    filled.pause_build(id)
    failed = incoming("com.oms.shadow.indexing.failed", shadow_index_id=id, error_message="out of memory")
    assert filled.receive_event(failed).outcome == "failed"
    assert (filled.shadow(id).state, filled.shadow(id).error) == ("FAILED", "out of memory")
    assert inside.builds_running(filled) == 0
    filled.retry_build(id)
    again = incoming("com.oms.shadow.indexing.completed", "2", shadow_index_id=id)
    assert filled.receive_event(again).outcome == "switched"
    late = incoming("com.oms.shadow.indexing.failed", "3", shadow_index_id=id)
    assert "is ACTIVE, not BUILDING" in filled.receive_event(late).message
    live(filled), live(filled)
    filled.clean_up()
    later = filled.receive_event(incoming("com.oms.shadow.indexing.completed", "4", shadow_index_id=id))
    assert (later.outcome, later.message) == ("refused", f"shadow {id} is CLEANUP already")


# -- events without a shadow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{}, {"indexing_mode": "traditional"}, {"indexing_mode": "shadow"}])
def test_without_a_shadow_an_event_completes_indexing_under_locks(engine: Engine, mode: dict[str, str]) -> None:
    engine.start_indexing("main", "funnel")
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", **mode))
    assert outcome.outcome == "completed"
    assert engine.branch("main").state == "READY"
    assert engine.locks("main") == []


def test_each_resource_type_completes_by_its_own_event(engine: Engine) -> None:
    engine.start_indexing("main", "funnel", ["object_type", "link_type"])
    first = incoming("com.oms.indexing.completed", "1", indexed_resource_types=["link_type"])
    assert "still under way: object_type" in engine.receive_event(first).message
    assert engine.branch("main").state == "ACTIVE"
    second = incoming("com.oms.indexing.completed", "2", indexed_resource_types=["object_type"])
    assert engine.receive_event(second).outcome == "completed"
    assert engine.branch("main").state == "READY"


def test_a_failure_of_the_whole_branch_leads_to_error(engine: Engine) -> None:
    engine.start_indexing("main", "funnel")
    event = incoming("com.oms.indexing.failed", errors=["no", "memory"])
    outcome = engine.receive_event(event)
    assert (outcome.outcome, outcome.message) == ("failed", "indexing failed: no; memory")
    assert engine.branch("main").state == "ERROR"


def test_a_completion_without_a_start_is_refused(engine: Engine) -> None:
    outcome = engine.receive_event(incoming("com.oms.indexing.completed"))
    assert outcome.outcome == "refused"
    assert "nothing is being indexed" in outcome.message


# -- merges --------------------------------------------------------------------------------------------------------


def indexed(engine: Engine, **data: Any) -> EventOutcome:
    engine.start_indexing("main", "funnel")
    return engine.receive_event(incoming("com.oms.indexing.completed", **data))


def test_a_branch_is_merged_when_every_condition_is_met(engine: Engine) -> None:
    asked: list[tuple[str, Mapping[str, Any]]] = []
    engine.add_merge_condition("no_conflicts", lambda branch, data: asked.append((branch, data)))
    outcome = indexed(engine, **PASSED)
    assert (outcome.merged, outcome.unmet) == (True, ())
    assert engine.branch("main").state == "MERGED"
    assert asked[0][0] == "main"
    considered = [event for event in engine.events() if event.type.endswith("merge_considered")]
    signed = {"by": "funnel-service", "reason": "event com.oms.indexing.completed"}
    assert considered[-1].data == {"branch_name": "main", "merged": True, "unmet": [], **signed}


def test_an_unknown_condition_is_unmet(engine: Engine) -> None:
    outcome = indexed(engine)
    assert not outcome.merged
    assert [reason.partition(":")[0] for reason in outcome.unmet] == ["validation", "no_conflicts"]
    assert engine.branch("main").state == "READY"


@pytest.mark.parametrize(
    "condition", [lambda branch, data: "two people edited User", lambda branch, data: 1 / 0], ids=["no", "raises"]
)
def test_a_condition_that_refuses_or_raises_is_unmet(engine: Engine, condition: Any) -> None:
    engine.add_merge_condition("no_conflicts", lambda branch, data: None)
    engine.add_merge_condition("approval_received", condition)
    outcome = indexed(engine, **PASSED)
    assert not outcome.merged
    assert [reason.partition(":")[0] for reason in outcome.unmet] == ["approval_received"]


def test_a_branch_that_is_not_ready_is_not_merged(engine: Engine) -> None:
    engine.add_merge_condition("no_conflicts", lambda branch, data: None)
    outcome = engine.receive_event(shadow_event(engine, **PASSED))
    assert (outcome.outcome, outcome.merged) == ("switched", False)
    assert outcome.unmet == ("ready: the branch is ACTIVE",)


def forked(engine: Engine) -> None:
    engine.write("main", [Put("object_type", "1", {"a": 0}), Put("object_type", "2", {"a": 0})])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("object_type", "1", {"a": 1})])
    engine.start_indexing("fork", "funnel")


def test_a_fork_is_merged_into_its_parent(engine: Engine) -> None:
    forked(engine)
    engine.write("main", [Put("object_type", "2", {"a": 2})])
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", "1", branch_name="fork", **PASSED))
    assert (outcome.merged, outcome.unmet) == (True, ())
    assert engine.branch("fork").state == "MERGED"
    assert {record.id: record.fields for record in engine.scan("main")} == {"1": {"a": 1}, "2": {"a": 2}}
    merged = next(row for row in engine.audit() if row.type.endswith("branch.merged"))
    assert merged.data["by"] == "funnel-service"


def test_a_fork_with_a_conflict_is_not_merged(engine: Engine) -> None:
    forked(engine)
    engine.write("main", [Put("object_type", "1", {"a": 2})])
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", "1", branch_name="fork", **PASSED))
    assert not outcome.merged
    assert outcome.unmet == (
        "no_conflicts: 'main' changed object_type '1' otherwise; settle it with merge_into, or on the fork",
    )
    assert engine.branch("fork").state == "READY"
    assert engine.get("main", "object_type", "1").fields == {"a": 2}  # type: ignore[union-attr]


def test_a_fork_is_merged_by_no_event_without_a_validation_or_under_a_lock(engine: Engine) -> None:
    forked(engine)
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", branch_name="fork"))
    assert [reason.partition(":")[0] for reason in outcome.unmet] == ["validation"]
    engine.reopen_branch("fork")
    engine.start_indexing("fork", "funnel")
    engine.acquire_lock("main", "MANUAL", "alice", "BRANCH")
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", "2", branch_name="fork", **PASSED))
    assert (outcome.merged, outcome.unmet[0].partition(":")[0]) == (False, "merge")
    assert engine.get("main", "object_type", "1").fields == {"a": 0}  # type: ignore[union-attr]


def test_the_automatic_merge_can_be_off(open_engine: OpenEngine) -> None:
    engine = open_engine(incoming=IncomingRules(auto_merge=False))
    engine.create_branch("main")
    assert (indexed(engine, **PASSED).merged, engine.branch("main").state) == (False, "READY")


# -- outcomes and invalid events -----------------------------------------------------------------------------------


def test_the_same_event_has_one_outcome_also_after_a_restart(open_engine: OpenEngine) -> None:
    first = open_engine()
    first.create_branch("main")
    event = shadow_event(first)
    outcome = first.receive_event(event)
    again = first.receive_event(event)
    assert (again.outcome, again.message, again.duplicate) == (outcome.outcome, outcome.message, True)
    first.close()
    second = open_engine()
    assert second.receive_event(event).duplicate
    assert not second.receive_event({**event, "source": "other"}).duplicate
    switches = [event for event in second.events() if event.type.endswith("switch.committed")]
    assert len(switches) == 1


def test_a_refusal_is_a_durable_outcome(engine: Engine) -> None:
    event = incoming("com.oms.indexing.completed", branch_name="nowhere")
    assert "there is no branch" in engine.receive_event(event).message
    engine.create_branch("nowhere")
    assert (engine.receive_event(event).outcome, engine.receive_event(event).duplicate) == ("refused", True)


def test_an_event_from_many_threads_at_once_is_received_once(engine: Engine) -> None:
    event = shadow_event(engine)
    outcomes: list[EventOutcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(engine.receive_event(event))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + 5 * [True]
    assert {outcome.outcome for outcome in outcomes} == {"switched"}
    assert not inside.are_events_in_turn(engine)


def test_a_temporary_failure_is_raised_and_is_no_outcome(engine: Engine) -> None:
    event = shadow_event(engine)
    failpoints.plan_points("journal.before_commit=raise:ENOSPC@1")
    with pytest.raises(StorageFull):
        engine.receive_event(event)
    failpoints.plan_points("")
    outcome = engine.receive_event(event)
    assert (outcome.outcome, outcome.duplicate) == ("switched", False)


def test_only_the_outcomes_of_the_newest_events_are_kept(open_engine: OpenEngine) -> None:
    engine = open_engine(received_keep=3)
    engine.create_branch("main")
    for n in range(10):
        engine.receive_event(incoming("com.oms.indexing.completed", str(n)))
    engine.clean_up()
    assert engine.receive_event(incoming("com.oms.indexing.completed", "9")).duplicate
    assert not engine.receive_event(incoming("com.oms.indexing.completed", "2")).duplicate


def test_damage_to_a_kept_outcome_is_found(open_engine: OpenEngine) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    engine.receive_event(incoming("com.oms.indexing.completed"))
    number = b"t" + (1).to_bytes(8, "big")
    inside.transact(engine, lambda commit: commit.txn.delete(number, db=commit.db["received"]), "plant damage")
    assert [finding.invariant for finding in engine.check()] == ["EV-3"]


GOOD = incoming("com.oms.indexing.completed")
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([GOOD], "must be a JSON object"),
    "no version": ({**GOOD, "specversion": "0.3"}, "specversion"),
    "no id": ({**GOOD, "id": ""}, "id must be"),
    "a long id": ({**GOOD, "id": 257 * "x"}, "id must be"),
    "no source": ({key: value for key, value in GOOD.items() if key != "source"}, "source must be"),
    "half a character": ({**GOOD, "id": "\ud800"}, "not valid Unicode"),
    "another type": ({**GOOD, "type": "com.oms.schema.changed"}, "are not accepted"),
    "no data": ({**GOOD, "data": None}, "data:"),
    "no branch": ({**GOOD, "data": {}}, "branch_name"),
    "a negative count": ({**GOOD, "data": {**GOOD["data"], "records_indexed": -1}}, "records_indexed"),
    "an unknown mode": ({**GOOD, "data": {**GOOD["data"], "indexing_mode": "magic"}}, "indexing_mode"),
    "a shadow without id": ({**GOOD, "type": "com.oms.shadow.indexing.completed"}, "shadow_index_id"),
    "another source": ({**GOOD, "source": "elsewhere"}, "not heard"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_invalid_event_is_refused_with_the_reason(open_engine: OpenEngine, case: str) -> None:
    event, reason = BAD[case]
    engine = open_engine(incoming=IncomingRules(sources=("funnel-service",)))
    with pytest.raises(InvalidEvent, match=reason):
        engine.receive_event(event)
    assert engine.events() == []


def test_a_late_event_does_not_switch_after_newer_writes(engine: Engine) -> None:
    event = shadow_event(engine)
    engine.write("main", [put("late")])
    outcome = engine.receive_event(event)
    assert outcome.outcome == "ready_for_manual_switch"
    assert "newer than LSN 10" in outcome.message
