"""Nothing surprising goes live: types and fields that no record has, an empty index, far fewer records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Config, Engine, InvalidConfig, Put, SwitchRequest
from tests.support.engine_helpers import KIND, TYPES, fill, live, wait_until


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    return engine


def rebuild(engine: Engine, types: list[str], request: SwitchRequest | None = None, **config: Any) -> Any:
    return engine.rebuild("main", KIND, types, config, request, timeout_s=60)


def test_a_mistyped_type_replaces_no_index(engine: Engine) -> None:
    fill(engine, 500)
    first = live(engine)
    result = rebuild(engine, ["object_typ"])
    assert not result.success
    assert "no records of object_typ (did you mean 'object_type'?)" in result.message
    assert engine.index("main", KIND).generation == first
    assert engine.shadows("main")[-1].state in ("CANCELLED", "CLEANUP"), "the next rebuild may begin"


def test_the_report_s_empty_build_is_refused(engine: Engine) -> None:
    """Its test 6, as printed there."""
    shadow = engine.start_build("main", KIND, TYPES)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    request = SwitchRequest(validation_checks=("RECORD_COUNT_VALIDATION",), force_switch=False)
    result = engine.switch(shadow.shadow_index_id, request)
    assert result.success is False
    assert "no records" in result.validation_errors[0]
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=())).success is False


@pytest.mark.parametrize("way", [{"allow_empty": True}, {"force_switch": True}])
def test_an_empty_index_goes_live_when_it_is_meant_and_the_audit_has_it(engine: Engine, way: dict[str, Any]) -> None:
    result = rebuild(engine, TYPES, SwitchRequest(performed_by="me", reason="a new branch", **way))
    assert result.success, result.message
    (row,) = [row.data for row in engine.audit() if row.type == "switch.committed"]
    assert (row["by"], row["reason"], row["forced"]) == ("me", "a new branch", "force_switch" in way)
    assert any("no records of" in text for text in row["overridden"])


def test_a_type_without_records_is_told_once(engine: Engine) -> None:
    """A live index with the type was meant so: its next rebuild is no surprise."""
    fill(engine, 10)
    refused = rebuild(engine, ["object_type", "link_type"])
    assert "branch 'main' has no records of 'link_type'" in refused.message
    assert rebuild(engine, ["object_type", "link_type"], SwitchRequest(allow_empty=True)).success
    assert rebuild(engine, ["object_type", "link_type"], tokenizer="porter").success


@pytest.mark.parametrize(("backend", "option"), [("fts5", "columns"), ("kv", "fields")])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_field_that_no_record_has_is_refused(engine: Engine, backend: str, option: str, shards: int) -> None:
    engine.write("main", [Put("object_type", str(n), {"title": f"t{n}", "text": "x"}) for n in range(50)])
    config: dict[str, Any] = {"backend": backend, "shards": shards, option: ["titel", "text"]}
    refused = rebuild(engine, TYPES, **config)
    assert not refused.success
    said = "no record had the field 'titel' when the index was built (did you mean 'title'?)"
    assert said in refused.validation_errors[0]
    assert not rebuild(engine, TYPES, SwitchRequest(allow_empty=True), **config).success, "it is not empty"
    assert rebuild(engine, TYPES, SwitchRequest(force_switch=True), **config).success


@pytest.mark.parametrize("point", ["copy.slice=sleep:600@2", "copy.loaded=sleep:600", "catchup.slice=sleep:600"])
def test_a_field_that_no_record_has_is_refused_after_a_pause(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    engine.write("main", [Put("object_type", str(n), {"title": f"t{n}", "text": "x"}) for n in range(2500)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", point)
    config = {"columns": ["titel", "text"], "parallel_workers": 1}
    id = engine.start_build("main", KIND, TYPES, config).shadow_index_id
    wait_until(lambda: engine.stats()["worker_pids"] and engine.shadow(id).start_lsn)
    engine.write("main", [Put("object_type", "late", {"text": "x"})])
    engine.pause_build(id)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    engine.resume_build(id)
    engine.wait_for(id, "BUILT", timeout_s=60)
    assert "no record had the field 'titel'" in engine.switch(id).validation_errors[0]


def test_a_field_of_records_that_were_copied_before_a_pause_is_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write("main", [Put("object_type", str(n), {"title": f"t{n}", "text": "x"}) for n in range(50)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:0.5;catchup.slice=sleep:0.5")
    id = engine.start_build("main", KIND, TYPES, {"columns": ["title"], "parallel_workers": 1}).shadow_index_id
    wait_until(lambda: engine.shadow(id).start_lsn)
    late = [Put("object_type", f"late{n}", {"text": "x"}) for n in range(20_000)]
    for first in range(0, len(late), 1000):
        engine.write("main", late[first : first + 1000])
    wait_until(lambda: engine.shadow(id).phase == "catching_up", what="the replay")
    engine.pause_build(id)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    engine.resume_build(id)
    engine.wait_for(id, "BUILT", timeout_s=60)
    assert engine.switch(id).success


def test_a_field_that_came_after_the_build_is_said_to_have_been_missing_then(engine: Engine) -> None:
    """The next build finds it."""
    fill(engine, 50)
    id = engine.start_build("main", KIND, TYPES, {"columns": ["title", "rare"]}).shadow_index_id
    engine.wait_for(id, "BUILT", timeout_s=60)
    engine.write("main", [Put("object_type", "one", {"title": "x", "rare": "y"})])
    assert "no record had the field 'rare' when the index was built" in engine.switch(id).message
    engine.cancel_build(id)
    assert rebuild(engine, TYPES, columns=["title", "rare"]).success


def test_a_field_of_one_record_is_enough(engine: Engine) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": "x"}) for n in range(500)])
    engine.write("main", [Put("object_type", "one", {"text": "x", "rare": "y"})])
    assert rebuild(engine, TYPES, columns=["text", "rare"], shards=2).success


def test_a_large_drop_is_refused_and_a_rollback_is_not(engine: Engine) -> None:
    fill(engine, 300)
    engine.write("main", [Put("link_type", str(n), {"text": "x"}) for n in range(20)])
    live(engine)
    refused = rebuild(engine, ["link_type"])
    assert "the index would have 20 records, the live one has 300" in refused.message
    assert rebuild(engine, ["link_type"], SwitchRequest(force_switch=True)).success
    assert engine.rollback("main", KIND).success
    assert engine.rollback("main", KIND).success, "to the smaller one: a way back is never refused for its size"


def test_an_index_that_may_be_empty_may_take_the_place_of_one_with_many_records(engine: Engine) -> None:
    fill(engine, 300)
    engine.write("main", [Put("link_type", "1", {"text": "x"})])
    live(engine)
    meant = SwitchRequest(allow_empty=True)
    refused = rebuild(engine, ["note_type"])
    assert "no records of note_type" in refused.message
    assert "the index would have 0 records, the live one has 300" in refused.message
    assert not rebuild(engine, ["link_type"], meant).success, "one record is no empty index"
    assert rebuild(engine, ["note_type"], meant).success
    (row,) = [one for one in engine.audit() if one.data.get("overridden")]
    assert [text for text in row.data["overridden"] if "would have 0 records" in text]


def test_how_much_may_go_is_a_setting(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(records_kept_min=0.0)
    engine.create_branch("main")
    fill(engine, 300)
    engine.write("main", [Put("link_type", "1", {"text": "x"})])
    live(engine)
    assert rebuild(engine, ["link_type"]).success


@pytest.mark.parametrize("value", [1.5, -0.1, True, "half"])
def test_a_share_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig, match="records_kept_min"):
        Config(records_kept_min=value)


def test_allow_empty_is_true_or_false() -> None:
    with pytest.raises(InvalidConfig, match="allow_empty must be True or False"):
        SwitchRequest(allow_empty="yes")  # type: ignore[arg-type]
