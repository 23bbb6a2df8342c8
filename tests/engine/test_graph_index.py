"""A GRAPH_INDEX with the backend graph, through the engine: followed, switched, rolled back, forked, in a group."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Delete, Edge, Engine, InvalidConfig, Put, Timeout

GRAPH, SEARCH = "GRAPH_INDEX", "SEARCH_INDEX"
TYPES = ["object_type", "link_type"]
LINK = {"from": "source", "to": "target", "kind": "name", "from_type": "object_type", "to_type": "object_type"}
BUILD: dict[str, Any] = {"backend": "graph", "edges": {"link_type": LINK}, "shards": 2}


def obj(number: int) -> tuple[str, str]:
    return ("object_type", f"o{number}")


def link(id: str, source: int, target: int, name: str = "uses") -> Put:
    return Put("link_type", id, {"source": f"o{source}", "target": f"o{target}", "name": name})


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [Put(*obj(number), {"title": f"o{number}", "parent": "o0"}) for number in range(5)])
    engine.write("main", [link(f"l{number}", number, number + 1) for number in range(4)])
    assert engine.rebuild("main", GRAPH, TYPES, BUILD).success
    return engine


def targets(engine: Engine, number: int, branch: str = "main", **how: Any) -> list[str]:
    with engine.reader(branch, GRAPH, min_lsn=engine.head(branch), timeout_s=30) as reader:
        return [edge.target[1] for edge in reader.graph.neighbours(obj(number), **how)]


def test_a_live_graph_follows_every_write(engine: Engine) -> None:
    engine.write("main", [link("l0", 0, 4), Delete("link_type", "l1"), link("new", 0, 3, "owns")])
    assert targets(engine, 0) == ["o3", "o4"]
    assert targets(engine, 0, kinds=["owns"]) == ["o3"]
    assert targets(engine, 1) == []
    with engine.reader("main", GRAPH, min_lsn=engine.head("main")) as reader:
        graph = reader.graph
        assert graph.path(obj(0), obj(4)) == [Edge(obj(0), obj(4), "uses", ("link_type", "l0"))]
        assert {one.key[1]: one.depth for one in graph.impact(obj(3))} == {"o2": 1, "o0": 1}
        assert graph.dangling() == []
        assert reader.kinds == {"graph": ("neighbours", "impact", "path", "dangling")}
    engine.write("main", [Delete(*obj(4))])
    with engine.reader("main", GRAPH, min_lsn=engine.head("main")) as reader:
        assert [edge.record[1] for edge in reader.graph.dangling()] == ["l0", "l3"]
    assert list(engine.check()) == []


def test_other_edges_are_a_rebuild_and_a_rollback_brings_the_old_ones_back(engine: Engine) -> None:
    other = {"backend": "graph", "edges": {"object_type": {"to": "parent"}}}
    assert engine.rebuild("main", GRAPH, TYPES, other).success
    engine.write("main", [link("l9", 3, 1), Put(*obj(3), {"parent": "o2"})])
    assert targets(engine, 3) == ["o2"]
    assert engine.rollback("main", GRAPH).success
    assert targets(engine, 3) == ["o1", "o4"]
    assert engine.rebuild("main", GRAPH, TYPES, BUILD).success  # begins with the files that are there
    assert targets(engine, 3) == ["o1", "o4"]
    assert list(engine.check()) == []


def test_a_fork_has_its_own_links(engine: Engine) -> None:
    engine.fork_branch("feature", "main")
    engine.write("feature", [link("l0", 0, 2)])
    assert targets(engine, 0, "feature") == ["o2"]
    assert targets(engine, 0) == ["o1"]


def test_a_view_of_a_group_shows_the_links_of_one_moment(engine: Engine) -> None:
    assert engine.rebuild("main", SEARCH, TYPES, {}).success
    with engine.read_group("main", [GRAPH, SEARCH]) as view:
        engine.write("main", [link("l0", 0, 2)])
        assert targets(engine, 0) == ["o2"]
        assert [edge.target for edge in view[GRAPH].graph.neighbours(obj(0))] == [obj(1)]
        record = view[SEARCH].get("link_type", "l0")
        assert record is not None
        assert record.lsn <= view.lsn


def test_an_index_without_the_kind_says_what_it_has(engine: Engine) -> None:
    assert engine.rebuild("main", SEARCH, TYPES, {}).success
    with engine.reader("main", SEARCH) as reader:
        assert reader.kinds == {}
        with pytest.raises(InvalidConfig, match="no queries of the kind 'graph'") as refused:
            _ = reader.graph
        assert "docs/query-kinds.md" in refused.value.hint
    with engine.reader("main", GRAPH) as reader:
        for kind, call, arguments, words in (
            ("vector", "nearest", {}, "it has graph"),
            ("graph", "close", {}, "it has neighbours, impact, path, dangling"),
            ("graph", "neighbours", {}, "its arguments: key, kinds, direction, limit"),
            ("graph", "neighbours", {"key": ["a", "b"], "depth": 3}, "its arguments: key"),
            ("graph", "impact", {"key": ["a", "b"], "depth": 0}, "from 1 to 100"),
        ):
            with pytest.raises(InvalidConfig) as refused:
                reader.query(kind, call, arguments)
            assert words in refused.value.hint
        assert len(reader.query("graph", "neighbours", {"key": ["object_type", "o1"]})) == 1
        with pytest.raises(Timeout):
            reader.graph.neighbours(obj(0), timeout_s=1e-9)
