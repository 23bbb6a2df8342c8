"""A VECTOR_INDEX with a graph in each shard, through the life of an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shadowswitch import Delete, Engine, Put

N, DIMENSIONS = 400, 16
BUILD: dict[str, Any] = {
    "backend": "vector", "vector_field": "v", "dimensions": DIMENSIONS, "shards": 2, "exact_max": 100,
}  # fmt: skip
VECTORS = np.random.default_rng(5).normal(size=(N + 10, DIMENSIONS)).tolist()


def put(number: int, vector: list[float]) -> Put:
    return Put("doc", f"d{number}", {"v": vector, "n": number})


def near(engine: Engine, vector: list[float], branch: str = "main") -> str:
    with engine.reader(branch, "VECTOR_INDEX", min_lsn=engine.head(branch)) as reader:
        return str(reader.vector.nearest(vector, limit=1)[0].id)


def graphs(data: Path) -> int:
    return len(list(data.rglob("graph.usearch")))


def test_a_graph_serves_through_edits_a_restart_a_fork_and_a_rollback(
    open_engine: Callable[..., Engine], data_dir: Path
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put(n, VECTORS[n]) for n in range(N)])
    assert engine.rebuild("main", "VECTOR_INDEX", ["doc"], BUILD).success
    assert graphs(data_dir) == 2
    assert near(engine, VECTORS[7]) == "d7"
    engine.write("main", [put(7, VECTORS[N]), Delete("doc", "d8"), put(N + 1, VECTORS[8])])
    assert [near(engine, VECTORS[n]) for n in (N, 8)] == ["d7", f"d{N + 1}"]

    assert engine.rebuild("main", "VECTOR_INDEX", ["doc"], {**BUILD, "shards": 1}).success
    assert graphs(data_dir) == 3
    assert [near(engine, VECTORS[n]) for n in (N, 8)] == ["d7", f"d{N + 1}"]
    engine.write("main", [put(9, VECTORS[N + 2])])
    assert engine.rollback("main", "VECTOR_INDEX").success
    assert near(engine, VECTORS[N + 2]) == "d9"  # written when the other one was live
    assert list(engine.check()) == []
    engine.close()

    engine = open_engine()
    assert [near(engine, VECTORS[n]) for n in (N, 8, N + 2)] == ["d7", f"d{N + 1}", "d9"]
    engine.fork_branch("feature", "main")
    engine.write("feature", [put(10, VECTORS[N + 3])])
    assert near(engine, VECTORS[N + 3], "feature") == "d10"
    assert near(engine, VECTORS[10]) == "d10"
    assert list(engine.check()) == []


def inodes(data: Path) -> dict[str, set[int]]:
    """The graphs of each generation, by the inodes of their files."""
    found: dict[str, set[int]] = {}
    for graph in data.rglob("graph.usearch"):
        found.setdefault(graph.parts[-4], set()).add(graph.stat().st_ino)
    return found


def test_a_fork_begins_with_the_graph_of_its_parent(open_engine: Callable[..., Engine], data_dir: Path) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put(n, VECTORS[n]) for n in range(N)])
    assert engine.rebuild("main", "VECTOR_INDEX", ["doc"], BUILD).success
    engine.write("main", [put(3, VECTORS[N])])  # behind the graph
    (made,) = inodes(data_dir).values()
    engine.fork_branch("same", "main")
    assert near(engine, VECTORS[7], "same") == "d7"
    assert list(inodes(data_dir).values()) == [made, made]
    engine.fork_branch("behind", "main")
    engine.write("main", [put(4, VECTORS[N + 1])])
    assert near(engine, VECTORS[4], "behind") == "d4"  # in its shard a row of the parent had to go
    assert sorted(len(found - made) for found in inodes(data_dir).values()) == [0, 0, 1]
    engine.write("same", [put(5, VECTORS[N + 2]), Delete("doc", "d6")])
    assert [near(engine, VECTORS[n], "same") for n in (N + 2, N)] == ["d5", "d3"]
    assert near(engine, VECTORS[6], "same") != "d6"
    assert near(engine, VECTORS[6]) == "d6"
    assert engine.rebuild("main", "VECTOR_INDEX", ["doc"], {**BUILD, "shards": 1}).success
    engine.clean_up()
    assert near(engine, VECTORS[7], "same") == "d7"
    assert list(engine.check()) == []
