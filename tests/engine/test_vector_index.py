"""A VECTOR_INDEX through the engine: followed, filtered, switched to other vectors and back, forked, in a group."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Delete, Engine, InvalidConfig, Put
from shadowswitch.model.records import Hit

VECTOR = "VECTOR_INDEX"
BUILD: dict[str, Any] = {"backend": "vector", "vector_field": "v", "dimensions": 2, "shards": 2, "metric": "l2"}


def put(number: int, **more: Any) -> Put:
    return Put("doc", f"d{number:03}", {"v": [number, 0.0], "w": [0.0, -number, 1.0], "even": number % 2 == 0, **more})


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put(number) for number in range(50)])
    assert engine.rebuild("main", VECTOR, ["doc"], BUILD).success
    return engine


def near(engine: Engine, query: Any, branch: str = "main", **how: Any) -> list[Hit]:
    with engine.reader(branch, VECTOR, min_lsn=engine.head(branch), timeout_s=30) as reader:
        return reader.vector.nearest(query, **{"limit": 3, **how})


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_a_live_index_follows_every_write(engine: Engine) -> None:
    assert ids(near(engine, [10.2, 0.0])) == ["d010", "d011", "d009"]
    engine.write("main", [Delete("doc", "d010"), put(11, v=[99.0, 0.0]), put(12, v="no vector")])
    assert ids(near(engine, [10.2, 0.0])) == ["d009", "d008", "d013"]
    assert ids(near(engine, ("doc", "d011"), limit=1)) == ["d011"]
    assert near(engine, ("doc", "d012")) == []
    with engine.reader("main", VECTOR) as reader:
        assert (reader.count(), reader.vector.size()) == (49, 48)
    assert list(engine.check()) == []


def test_hits_are_filtered_and_shown_as_those_of_a_search(engine: Engine) -> None:
    found = near(engine, [10.2, 0.0], where={"even": False}, fields=["even"])
    assert [(hit.id, hit.fields) for hit in found] == [(f"d{n:03}", {"even": False}) for n in (11, 9, 13)]
    assert near(engine, [10.2, 0.0], where={"even": 7}) == []
    with engine.reader("main", VECTOR) as reader:
        asked = {"query": [10.2, 0.0], "limit": 1, "where": {"even": False}}
        assert ids(reader.query("vector", "nearest", asked)) == ["d011"]
        for wrong in ({"query": [1.0]}, {"query": "text"}, {"query": [1.0, 0.0], "where": 7}, {"near": [1.0, 0.0]}):
            with pytest.raises(InvalidConfig) as refused:
                reader.query("vector", "nearest", wrong)
            assert refused.value.hint


def test_a_filter_that_few_of_many_pass_is_answered(engine: Engine) -> None:
    engine.write("main", [put(number) for number in range(50, 3000)])
    assert ids(near(engine, [1.0, 0.0], where={"v": [2900, 0.0]})) == ["d2900"]
    assert near(engine, [1.0, 0.0], where={"even": "neither"}) == []
    with engine.reader("main", VECTOR) as reader, pytest.raises(InvalidConfig):
        reader.vector.nearest([1.0, 0.0], limit=10_001)


def test_other_vectors_are_a_rebuild_and_the_old_ones_are_kept_up_meanwhile(engine: Engine) -> None:
    other = {"backend": "vector", "vector_field": "w", "dimensions": 3}
    shadow = engine.start_build("main", VECTOR, ["doc"], other)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    engine.write("main", [put(60)])
    with engine.reader("main", VECTOR, shadow_index_id=shadow.shadow_index_id, min_lsn=engine.head("main")) as preview:
        assert ids(preview.vector.nearest(("doc", "d060"), limit=1)) == ["d060"]
    assert ids(near(engine, [60.0, 0.0], limit=1)) == ["d060"]
    assert engine.switch(shadow.shadow_index_id).success
    engine.write("main", [put(61)])
    assert ids(near(engine, [0.0, 0.0, 1.0], limit=1)) == ["d000"]
    assert engine.rollback("main", VECTOR).success
    assert ids(near(engine, [61.0, 0.0], limit=1)) == ["d061"]
    assert list(engine.check()) == []


def test_a_fork_and_a_view_show_their_own_moment(engine: Engine) -> None:
    engine.fork_branch("feature", "main")
    engine.write("feature", [put(1, v=[10.0, 0.0])])
    assert ids(near(engine, [10.0, 0.0], "feature")) == ["d001", "d010", "d009"]
    assert engine.rebuild("main", "SEARCH_INDEX", ["doc"], {}).success
    with engine.read_group("main", [VECTOR, "SEARCH_INDEX"]) as view:
        engine.write("main", [Delete("doc", "d010")])
        assert ids(near(engine, [10.0, 0.0], limit=1)) == ["d009"]
        assert ids(view[VECTOR].vector.nearest([10.0, 0.0], limit=1)) == ["d010"]
