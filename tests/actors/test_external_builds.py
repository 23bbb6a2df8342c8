"""External builds: a program outside builds; the engine checks every claim against the files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import (
    Delete,
    Engine,
    InvalidConfig,
    InvalidTransition,
    SwitchRequest,
)
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, put, wait_until
from tests.support.external_helpers import CONTENT, begin, complete, delivered, fts5, write_files, write_manifest

OpenEngine = Callable[..., Engine]


# -- the whole course ----------------------------------------------------------------------------------------------


def test_a_builder_learns_where_and_from_which_change_on_and_its_index_is_switched_to(engine: Engine) -> None:
    fill(engine, 50)
    shadow = begin(engine, tokenizer="anything")
    assert (shadow.state, shadow.external, shadow.start_lsn) == ("BUILDING", True, 50)
    assert Path(shadow.shadow_index_path).is_relative_to(engine.path / "generations")
    size = delivered(engine, shadow)
    done = complete(engine, shadow, index_size_bytes=size, record_count=50, applied_lsn=50, build_summary={"by": "x"})
    assert (done.state, done.record_count, done.index_size_bytes, done.switch_ready) == ("BUILT", 50, size, True)
    checks = ("INTEGRITY_CHECK", "QUERY_COMPARISON", "SAMPLE_READ_BACK")
    result = engine.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=checks, queries=("word1",)))
    assert result.success, result.message
    unchecked = "; not checked: QUERY_COMPARISON, SAMPLE_READ_BACK, DIGEST, for only its builder can read it"
    assert result.message.endswith(unchecked)
    published = engine.path / "published" / "main" / KIND
    assert (published / "shard-000" / "terms.bin").read_bytes() == b"terms"
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 50
        with pytest.raises(InvalidConfig, match="open it by its path"):
            reader.search("word1")


def test_an_index_of_a_known_backend_is_caught_up_validated_and_followed(filled: Engine) -> None:
    shadow = begin(filled, backend="fts5")
    fts5(filled, shadow)
    filled.write("main", [put("1", "changed"), put("new"), Delete("object_type", "2")])  # after the copy
    write_manifest(shadow, shadow.start_lsn, 3000)
    done = complete(filled, shadow, record_count=3000)
    assert (done.state, done.record_count) == ("BUILT", 3000)
    receipt = filled.write("main", [put("newer")])
    result = filled.switch(shadow.shadow_index_id)
    assert result.success, result.message
    assert found(filled, "changed", min_lsn=receipt.lsn) == {"1"}
    assert found(filled, "wordnewer") == {"newer"}
    assert found(filled, "word2") == set()


def test_queries_are_not_compared_with_an_index_in_an_unknown_format(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    assert engine.switch(shadow.shadow_index_id).success
    request = SwitchRequest(validation_checks=("QUERY_COMPARISON",), queries=("word1",))
    result = engine.rebuild("main", KIND, TYPES, request=request)
    assert result.message.endswith(
        "; not checked: QUERY_COMPARISON, for only the builder of the live index can read it"
    )


def test_from_a_known_one_to_an_unknown_one_and_back_nothing_is_lost(filled: Engine) -> None:
    first = live(filled)
    shadow = begin(filled)
    delivered(filled, shadow)
    complete(filled, shadow)
    request = SwitchRequest(validation_checks=("INTEGRITY_CHECK", "RECORD_COUNT_VALIDATION"))
    assert filled.switch(shadow.shadow_index_id, request).success
    filled.write("main", [put("meanwhile")])
    assert filled.index("main", KIND).lag_changes == 1
    back = filled.rollback("main", KIND)
    assert (back.success, back.generation) == (True, first), back.message
    assert found(filled, "wordmeanwhile") == {"meanwhile"}
    again = filled.rollback("main", KIND)
    assert not again.success
    assert "does not know the format" in again.message


def test_a_change_that_is_newer_than_the_index_refuses_the_switch_until_it_is_completed_again(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    engine.write("main", [put("late")])
    refused = engine.switch(shadow.shadow_index_id, SwitchRequest(force_switch=True))
    assert not refused.success
    assert "the change at LSN 11 is newer than LSN 10" in refused.message
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"
    changes = engine.changes("main", after=10)
    assert [change.id for change in changes] == ["late"]
    delivered(engine, shadow, {**CONTENT, "shard-000/late.bin": b"late"})
    assert complete(engine, shadow, applied_lsn=11).applied_lsn == 11
    assert engine.switch(shadow.shadow_index_id).success


def test_changes_of_other_resource_types_do_not_matter(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    engine.write("main", [put("other", resource_type="link_type")])
    assert engine.switch(shadow.shadow_index_id).success


# -- progress, silence, failure, retry -----------------------------------------------------------------------------


def test_progress_is_shown_and_does_not_go_back(engine: Engine) -> None:
    shadow = begin(engine)
    engine.report_progress(shadow.shadow_index_id, 40, estimated_completion_s=60, record_count=7)
    again = engine.report_progress(shadow.shadow_index_id, 30)
    assert (again.build_progress_percent, again.record_count) == (40, 7)


def test_a_build_fails_when_its_builder_does_not_report(open_engine: OpenEngine) -> None:
    engine = open_engine(external_timeout_s=0.3)
    engine.create_branch("main")
    shadow = begin(engine)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "FAILED")
    assert "nothing was heard of its builder for 0.3 s" in (engine.shadow(shadow.shadow_index_id).error or "")
    with pytest.raises(InvalidTransition, match="retry_build"):
        engine.report_progress(shadow.shadow_index_id, 50)


def test_a_builder_that_reports_is_not_failed(open_engine: OpenEngine) -> None:
    engine = open_engine(external_timeout_s=3.0)
    engine.create_branch("main")
    shadow, other = begin(engine), engine.start_build("main", "GRAPH_INDEX", ["object_type"], external=True)

    def reported_while_the_other_failed() -> bool:
        engine.report_progress(shadow.shadow_index_id, 1)
        return engine.shadow(other.shadow_index_id).state == "FAILED"

    wait_until(reported_while_the_other_failed)
    assert engine.shadow(shadow.shadow_index_id).state == "BUILDING"


def test_a_failed_build_is_retried_in_its_directory_with_its_changes_kept(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    write_files(Path(shadow.shadow_index_path))
    assert engine.fail_build(shadow.shadow_index_id, "out of memory").error == "out of memory"
    again = engine.retry_build(shadow.shadow_index_id)
    assert (again.state, again.start_lsn, again.retry_count) == ("BUILDING", 10, 1)
    assert again.completed_at is None, "the build has not ended"
    assert again.shadow_index_path == shadow.shadow_index_path
    assert (Path(again.shadow_index_path) / "shard-000/terms.bin").exists()
    delivered(engine, again)
    assert complete(engine, again).state == "BUILT"


def test_a_report_on_a_cancelled_build_is_refused_with_the_reason(engine: Engine) -> None:
    shadow = begin(engine)
    engine.cancel_build(shadow.shadow_index_id, "not wanted")
    with pytest.raises(InvalidTransition, match=r"CANCELLED.*not wanted"):
        engine.report_progress(shadow.shadow_index_id, 50)
    wait_until(lambda: not Path(shadow.shadow_index_path).exists())


def test_changes_since_the_start_are_kept_as_long_as_the_build_is_under_way(open_engine: OpenEngine) -> None:
    engine = open_engine(journal_keep_changes=0)
    engine.create_branch("main")
    fill(engine, 1000)
    shadow = begin(engine)
    fill(engine, 1000, text="again")
    engine.clean_up()
    assert len(engine.changes("main", after=shadow.start_lsn, limit=5000)) == 1000
    engine.cancel_build(shadow.shadow_index_id)
    wait_until(lambda: engine.branch("main").oldest_lsn > shadow.start_lsn)


def test_two_completions_at_once_exclude_each_other(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    entered, go_on = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        assert go_on.wait(60)

    inside.before(monkeypatch, inside.Step.INSPECT_DELIVERY, held)
    states: list[str] = []
    first = threading.Thread(target=lambda: states.append(complete(engine, shadow).state))
    first.start()
    assert entered.wait(60)
    with pytest.raises(InvalidTransition, match="being completed by another call"):
        complete(engine, shadow)
    go_on.set()
    first.join(60)
    assert states == ["BUILT"]


# -- restarts ------------------------------------------------------------------------------------------------------


def test_an_external_build_survives_a_restart_and_its_builder_goes_on(open_engine: OpenEngine) -> None:
    first = open_engine()
    first.create_branch("main")
    fill(first, 10)
    shadow = begin(first)
    first.report_progress(shadow.shadow_index_id, 60)
    first.close()
    second = open_engine()
    present = second.report_progress(shadow.shadow_index_id, 10)
    assert (present.state, present.build_progress_percent) == ("BUILDING", 60)
    delivered(second, shadow)
    complete(second, shadow)
    second.close()
    third = open_engine()
    assert third.shadow(shadow.shadow_index_id).state == "BUILT"
    assert third.switch(shadow.shadow_index_id).success
    third.close()
    fourth = open_engine()
    with fourth.reader("main", KIND) as reader:
        assert reader.count() == 10


def test_a_start_that_was_cut_off_is_finished_at_the_next_open(open_engine: OpenEngine) -> None:
    first = open_engine()
    first.create_branch("main")
    failpoints.plan_points("build.prepared=raise:EIO@1")
    with pytest.raises(OSError):
        begin(first)
    failpoints.plan_points("")
    (cut_off,) = first.shadows()
    assert cut_off.state == "PREPARING"
    first.close()
    (present,) = open_engine().shadows()
    assert (present.state, present.shadow_index_id) == ("BUILDING", cut_off.shadow_index_id)
