"""The kind `graph`: any backend that answers it, beside a search by hand over the same edges.

    class TestMyGraph(GraphConformance):
        backend_spec = "my_package.my_module:MyBackend"

The backend takes the option `edges` as the `graph` backend does.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.model.kinds.graph import Edge
from shadowswitch.model.records import Item
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import item

NODES = 40
KINDS = ("uses", "part of", "has\0nul", "k" * 300)
LINK = {"from": "source", "to": "target", "kind": "kind", "from_type": "node", "to_type": "node"}
EDGES = {"link": LINK, "node": [{"to": "parent"}, {"to": "friends"}]}
ABSENT: tuple[Any, ...] = (("node", ""), ("node", "\0"), ("node", "x" * 5000), ("node", "키"), ["node", "n1"])
WRONG_KEYS: tuple[Any, ...] = ("node", ("node",), ("node", 7), None, ("node", "\ud800"), ("a", "b", "c"), 7)
WRONG: tuple[dict[str, Any], ...] = ({"limit": 0}, {"limit": True}, {"limit": 10**9}, {"kinds": "uses"}, {"kinds": []})


class Model:
    """The records, and the edges that they have."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lsn = 0
        self.records: dict[Key, dict[str, Any]] = {}

    def change(self) -> Item:
        """The next change: often a link, sometimes a node, sometimes a record is removed."""
        self.lsn += self.random.randint(1, 3)
        chance = self.random.random()
        if self.records and chance < 0.2:
            key = self.random.choice(sorted(self.records))
            del self.records[key]
            return item(self.lsn, *key, None)
        if chance < 0.6:
            key = ("link", f"l{self.random.randrange(120)}")
            kind = self.random.choice(KINDS)
            fields: dict[str, Any] = {"source": self._node(), "target": self._node(), "kind": kind, "note": "x"}
        else:
            key = ("node", self._node())
            fields = {"parent": self._node(), "friends": [self._node() for _ in range(self.random.randrange(3))]}
            fields["friends"].append({"resource_type": "link", "id": f"l{self.random.randrange(120)}"})
        self.records[key] = fields
        return item(self.lsn, *key, fields)

    def _node(self) -> str:
        return f"n{self.random.randrange(NODES)}"

    def edges(self) -> list[Edge]:
        """All edges, in the order of an answer."""
        found = []
        for key, fields in self.records.items():
            if key[0] == "link":
                found.append(Edge(("node", fields["source"]), ("node", fields["target"]), fields["kind"], key))
                continue
            found.append(Edge(key, ("node", fields["parent"]), "parent", key))
            for friend in fields["friends"]:
                target = ("node", friend) if isinstance(friend, str) else ("link", friend["id"])
                found.append(Edge(key, target, "friends", key))
        return sorted(set(found))

    def depths(self, start: Key, edges: Iterable[Edge]) -> dict[Key, int]:
        """How far each record is, against the direction of the edges."""
        into: dict[Key, set[Key]] = {}
        for edge in edges:
            into.setdefault(edge.target, set()).add(edge.source)
        depths, queue = {start: 0}, deque([start])
        while queue:
            node = queue.popleft()
            for source in into.get(node, ()):
                if source not in depths:
                    depths[source] = depths[node] + 1
                    queue.append(source)
        return depths


class GraphConformance(Shards):
    """The promises of the kind `graph`. One shard of the backend, or two."""

    build_config: Mapping[str, Any] = {"edges": EDGES}

    @pytest.fixture(params=[1, 2])
    def shards(self, request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
        return [tmp_path / f"graph-{number}" for number in range(request.param)]

    @pytest.mark.parametrize("seed", range(3))
    def test_each_answer_is_that_of_a_search_by_hand(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], seed: int
    ) -> None:
        model = Model(seed)
        for path in shards:
            backend.create_shard(path, options)
        writers = [backend.open_writer(path, options) for path in shards]
        with closing(backend.open_reader(shards, options)) as reader:
            for _ in range(12):
                for change in {change.key_hash: change for change in (model.change() for _ in range(25))}.values():
                    writers[change.key_hash % len(writers)].apply([change], 0)
                assert_answers(reader, model)
        for writer, path in zip(writers, shards, strict=True):
            writer.close()
            assert backend.check(path, options) == []

    def test_no_key_and_no_argument_breaks_a_query(
        self, backend: Backend, options: dict[str, Any], shards: list[Path]
    ) -> None:
        for path in shards:
            backend.create_shard(path, options)
        asking = Asking()
        with closing(backend.open_reader(shards, options)) as opened:
            reader: Any = opened
            for key in ABSENT:
                assert reader.neighbours(asking, key) == []
                assert reader.impact(asking, key) == []
                assert reader.path(asking, key, ("node", "other")) is None
            for key in WRONG_KEYS:
                with pytest.raises(InvalidConfig, match="key"):
                    reader.neighbours(asking, key)
            for wrong in WRONG:
                with pytest.raises(InvalidConfig) as refused:
                    reader.neighbours(asking, ("node", "n1"), **wrong)
                assert refused.value.hint
            with pytest.raises(InvalidConfig, match="direction"):
                reader.neighbours(asking, ("node", "n1"), direction="up")

    def test_a_query_ends_when_its_time_is_over(
        self, backend: Backend, options: dict[str, Any], shards: list[Path]
    ) -> None:
        for path in shards:
            backend.create_shard(path, options)
            with closing(backend.open_writer(path, options)) as writer:
                writer.apply([item(1, "node", "n1", {"parent": "n2"})], 1)
        late = Asking(TimeLimit(0.0, iter(range(1000)).__next__))
        with closing(backend.open_reader(shards, options)) as opened:
            reader: Any = opened
            asked: tuple[tuple[Any, ...], ...] = (
                (reader.neighbours, ("node", "n1")),
                (reader.impact, ("node", "n2")),
                (reader.path, ("node", "n1"), ("node", "n3")),
                (reader.dangling,),
            )
            for call, *arguments in asked:
                with pytest.raises(Timeout):
                    call(late, *arguments)


def assert_answers(reader: Any, model: Model) -> None:
    """Every query, beside the same by hand."""
    asking, edges = Asking(), model.edges()
    for node in [("node", f"n{number}") for number in range(0, NODES, 5)] + [("link", "l1")]:
        _assert_neighbours(reader, node, edges)
        depths = {key: depth for key, depth in model.depths(node, edges).items() if 0 < depth <= 3}
        reached = reader.impact(asking, node, depth=3)
        assert {one.key: one.depth for one in reached} == depths
        assert [one.depth for one in reached] == sorted(depths.values())
        assert all(one.edge in edges and one.edge.source == one.key for one in reached)
        _assert_path(reader, node, ("node", "n3"), model, edges)
    there = set(model.records)
    dangling = [edge for edge in edges if not {edge.source, edge.target} <= there]
    assert sorted(reader.dangling(asking, 10_000)) == dangling
    assert len(reader.dangling(asking, 2)) == min(2, len(dangling))
    nodes_only = [edge for edge in dangling if any(end[0] == "node" and end not in there for end in edge_ends(edge))]
    assert reader.dangling(Asking(resource_types=["node"]), 10_000) == nodes_only


def edge_ends(edge: Edge) -> tuple[Key, Key]:
    """Both."""
    return edge.source, edge.target


def _assert_neighbours(reader: Any, node: Key, edges: list[Edge]) -> None:
    asking = Asking()
    out = [edge for edge in edges if edge.source == node]
    into = [edge for edge in edges if edge.target == node]
    assert sorted(reader.neighbours(asking, node, limit=10_000)) == out
    assert sorted(reader.neighbours(asking, node, direction="in", limit=10_000)) == into
    assert len(reader.neighbours(asking, node, limit=2)) == min(2, len(out))
    for kinds in (["uses"], ["parent", KINDS[3]], ["no such kind"]):
        wanted = [edge for edge in out if edge.kind in kinds]
        assert sorted(reader.neighbours(asking, node, kinds, limit=10_000)) == wanted
    keys = [(edge.kind, edge.target) for edge in reader.neighbours(asking, node, ["uses", "friends"], limit=10_000)]
    assert keys == sorted(keys)


def _assert_path(reader: Any, a: Key, b: Key, model: Model, edges: list[Edge]) -> None:
    found = reader.path(Asking(), a, b, depth_max=4)
    depth = model.depths(b, edges).get(a)
    if depth is None or depth > 4:
        assert found is None
        return
    assert found is not None
    assert len(found) == depth
    ends = [a, *(edge.target for edge in found)]
    assert ends[-1] == b
    assert all(edge in edges and edge.source == end for edge, end in zip(found, ends, strict=False))
