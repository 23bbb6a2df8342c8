"""Every named check, and a shadow that fails it; repair; the checks that force may override."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CorruptData, Delete, Engine, Put, ShadowIndex, ShadowState, SwitchRequest
from shadowswitch.model.digest import bucket_of, key_hash
from tests.support import inside

Eventually = Callable[[Callable[[], bool]], None]
KIND = "SEARCH_INDEX"


@pytest.fixture
def built(engine: Engine) -> ShadowIndex:
    """A BUILT shadow of 300 records, in one shard."""
    engine.write("main", [Put("object_type", str(n), {"text": f"hello w{n} " * 5}) for n in range(301)])
    engine.write("main", [Delete("object_type", "300")])
    shadow = engine.start_build("main", KIND, ["object_type"], {"shards": 1})
    return engine.wait_for(shadow.shadow_index_id, timeout_s=30)


def damage(shadow: ShadowIndex, *statements: str) -> None:
    """Change a shard without the engine, as a defect or a bad disk would."""
    connection = sqlite3.connect(Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite", timeout=10)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def findings(engine: Engine, shadow: ShadowIndex, *checks: str) -> dict[str, list[str]]:
    return inside.check_generation(engine, shadow.generation, *checks).findings


def served(engine: Engine) -> int:
    """The generation that readers get. It changes a moment after the commit of a switch."""
    return inside.live(engine).row.number


LOST = "DELETE FROM docs WHERE id = '5'"
DOUBLE = "INSERT INTO docs(kh, lsn, type, id, c0) SELECT kh, lsn, type, id || 'x', c0 FROM docs WHERE id = '5'"
REVIVED = "INSERT INTO docs(kh, lsn, type, id, c0) SELECT {kh}, 301, type, '300', c0 FROM docs WHERE id = '5'"
OTHER_TEXT = "UPDATE docs SET c0 = 'altered'"
OLD_VERSION = "UPDATE docs SET lsn = lsn - 1 WHERE id = '5'"


@pytest.mark.parametrize(
    ("check", "statement"),
    [
        ("RECORD_COUNT_VALIDATION", LOST),
        ("RECORD_COUNT_VALIDATION", DOUBLE),
        ("DIGEST", LOST),
        ("DIGEST", OLD_VERSION),
        ("INTEGRITY_CHECK", OTHER_TEXT),
        ("INTEGRITY_CHECK", LOST),
        ("SAMPLE_READ_BACK", OTHER_TEXT),
        ("SAMPLE_READ_BACK", "DELETE FROM docs WHERE CAST(id AS INTEGER) < 150"),
    ],
)
def test_each_check_finds_its_kind_of_damage(engine: Engine, built: ShadowIndex, check: str, statement: str) -> None:
    assert findings(engine, built, check) == {check: []}
    damage(built, statement)
    assert findings(engine, built, check)[check] != []
    engine.cancel_build(built.shadow_index_id)


def test_sample_read_back_finds_a_delete_that_came_back(engine: Engine, built: ShadowIndex) -> None:
    damage(built, REVIVED.format(kh=key_hash("object_type", "300") - (1 << 63)))
    assert "was deleted at LSN 302" in str(findings(engine, built, "SAMPLE_READ_BACK"))
    engine.cancel_build(built.shadow_index_id)


def test_size_comparison_finds_an_index_of_another_size(open_engine: Any) -> None:
    engine = open_engine(size_ratio_max=1.5)
    engine.create_branch("main")
    engine.write("main", [Put("object_type", str(n), {"text": "word " * 500, "name": "n"}) for n in range(2000)])
    assert engine.rebuild("main", KIND, ["object_type"]).success
    shadow = engine.start_build("main", KIND, ["object_type"], {"columns": ["name"]})
    engine.wait_for(shadow.shadow_index_id, timeout_s=60)
    request = SwitchRequest(validation_checks=("SIZE_COMPARISON",))
    refused = engine.switch(shadow.shadow_index_id, request)
    assert not refused.success
    assert "times apart" in refused.message
    forced = SwitchRequest(
        validation_checks=("SIZE_COMPARISON",), force_switch=True, performed_by="me", reason="smaller"
    )
    assert engine.switch(shadow.shadow_index_id, forced).success


def lose(engine: Engine, shadow: ShadowIndex) -> None:
    """A bucket of a waiting shadow is empty, and its counters say so."""
    writer: Any = inside.generation(engine, shadow.generation).writer
    with writer.lock:
        writer._shards[0].repair_bucket(bucket_of(key_hash("object_type", "5")), [])


@pytest.mark.usefixtures("planted_damage")
def test_differing_buckets_are_repaired_once_and_the_switch_goes_on(engine: Engine, built: ShadowIndex) -> None:
    lose(engine, built)
    result = engine.switch(built.shadow_index_id)
    assert (result.success, result.validation_errors) == (True, [])
    assert engine.stats()["counters"]["buckets_repaired"] == 1
    assert served(engine) == built.generation
    with engine.reader("main", KIND) as reader:
        record = reader.get("object_type", "5")
        assert record is not None
        assert (record.lsn, reader.count()) == (6, 300)
    assert engine.check() == []


@pytest.mark.usefixtures("planted_damage")
@pytest.mark.parametrize("force", [False, True])
def test_a_shadow_that_stays_divergent_is_not_switched_to_even_by_force(
    engine: Engine, built: ShadowIndex, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.without_repair(monkeypatch)
    lose(engine, built)
    result = engine.switch(built.shadow_index_id, SwitchRequest(force_switch=force, validation_checks=()))
    assert not result.success
    assert "DIGEST" in result.message
    assert engine.shadow(built.shadow_index_id).state == ShadowState.BUILT
    assert engine.indexes() == []
    engine.cancel_build(built.shadow_index_id)


def test_a_waiting_shadow_stays_caught_up(engine: Engine, built: ShadowIndex, eventually: Eventually) -> None:
    engine.write("main", [Put("object_type", "new", {"text": "later"})])
    eventually(lambda: engine.shadow(built.shadow_index_id).lag_changes == 0)
    result = engine.switch(built.shadow_index_id)
    assert (result.success, result.drained_changes) == (True, 0)


def test_a_reader_that_meets_damage_causes_a_rollback(engine: Engine, eventually: Eventually) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": f"hello w{n}"}) for n in range(50)])
    first = engine.rebuild("main", KIND, ["object_type"], {"shards": 1})
    second = engine.rebuild("main", KIND, ["object_type"], {"shards": 1})
    shadow = engine.shadow(second.shadow_index_id)
    damage(shadow, "DELETE FROM fts_data WHERE id > 1", "UPDATE fts_data SET block = x'00' WHERE id = 1")
    with engine.reader("main", KIND) as reader:
        for word in ("hello", "w7", "w8"):
            with contextlib.suppress(CorruptData):
                reader.search(word)
    eventually(lambda: served(engine) == first.generation)
    eventually(lambda: bool(engine.shadow(second.shadow_index_id).error))
    with engine.reader("main", KIND) as reader:
        assert [hit.id for hit in reader.search("w7")] == ["7"]


def test_an_index_that_cannot_be_opened_for_reading_is_rolled_back(
    engine: Engine, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": f"hello w{n}"}) for n in range(50)])
    first = engine.rebuild("main", KIND, ["object_type"], {"shards": 1})
    second = engine.rebuild("main", KIND, ["object_type"], {"shards": 1})
    inside.fail_take_reader(monkeypatch, second.generation, CorruptData("the shard cannot be used"))
    with pytest.raises(CorruptData):
        engine.reader("main", KIND)
    eventually(lambda: served(engine) == first.generation)
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 50
