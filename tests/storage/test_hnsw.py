"""The graph of a large vector shard only proposes: beside edits, deletes, repairs, damage and old moments."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadowswitch import InvalidConfig
from shadowswitch.model.digest import bucket_of
from shadowswitch.model.kinds.asking import Asking
from shadowswitch.model.records import Hit, Item
from shadowswitch.storage.backends.protocol import ShardWriter
from shadowswitch.storage.backends.vector.backend import VectorBackend
from shadowswitch.storage.conformance.expected import item
from tests.support import inside

BACKEND = VectorBackend()
N, DIMENSIONS, TOPICS = 3000, 24, 40
LIMIT = 10
Made = tuple[ShardWriter, dict[str, Any]]


def options(metric: str = "cos", exact_max: int = 500) -> dict[str, Any]:
    return BACKEND.configure({"vector_field": "v", "dimensions": DIMENSIONS, "metric": metric, "exact_max": exact_max})


class Texts:
    """Vectors as those of texts: around some topics."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(7)
        self._topics = self._chance.normal(size=(TOPICS, DIMENSIONS))

    def vector(self) -> list[float]:
        near = self._topics[self._chance.integers(TOPICS)] + 0.5 * self._chance.normal(size=DIMENSIONS)
        return [float(number) for number in near]


def put(lsn: int, number: int, vector: Sequence[float], resource_type: str = "doc") -> Item:
    return item(lsn, resource_type, f"r{number}", {"v": list(vector)})


@pytest.fixture(scope="module")
def vectors() -> list[list[float]]:
    texts = Texts()
    return [texts.vector() for _ in range(2 * N)]


@pytest.fixture(params=["cos", "ip", "l2"])
def metric(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard"


@pytest.fixture
def make(path: Path, vectors: list[list[float]]) -> Iterator[Callable[[str], Made]]:
    opened: list[ShardWriter] = []

    def build(metric: str) -> Made:
        with_graph = options(metric)
        BACKEND.create_shard(path, with_graph)
        writer = BACKEND.open_writer(path, with_graph)
        opened.append(writer)
        for first in range(0, N, 500):
            writer.load([put(n + 1, n, vectors[n]) for n in range(first, first + 500)], b"cursor")
        writer.finish_load(N)
        return writer, with_graph

    yield build
    for writer in opened:
        writer.close()


def nearest(path: Path, how: dict[str, Any], wanted: Sequence[float], **more: Any) -> list[Hit]:
    with closing(BACKEND.open_reader([path], how)) as reader:
        found: list[Hit] = reader.nearest(Asking(), list(wanted), **{"limit": LIMIT, **more})  # type: ignore[attr-defined]
        return found


def exact(
    path: Path, how: dict[str, Any], wanted: Sequence[float], monkeypatch: pytest.MonkeyPatch, **more: Any
) -> list[Hit]:
    with monkeypatch.context() as patched:
        inside.patch_limit(patched, inside.Limit.VECTORS_PROPOSED, 0)
        return nearest(path, how, wanted, **more)


def keys(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_a_large_shard_is_searched_by_a_graph_that_finds_the_nearest(
    make: Callable[[str], Made], metric: str, path: Path, vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, how = make(metric)
    asked: list[None] = []
    inside.before(monkeypatch, inside.Step.HNSW_SEARCH, lambda: asked.append(None))
    found = 0
    for wanted in vectors[N : N + 100]:
        hits, best = nearest(path, how, wanted), exact(path, how, wanted, monkeypatch)
        scores = {hit.id: hit.score for hit in best}
        for hit in hits:
            assert hit.score == pytest.approx(scores.get(hit.id, hit.score), abs=1e-4)  # that of the entry
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        found += len({*keys(hits)} & {*keys(best)})
    assert found >= 0.98 * 100 * LIMIT
    assert len(asked) == 100


def test_edits_and_deletes_behind_the_graph_count_at_once(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, how = make("cos")
    chance, lsn, there = random.Random(3), N, {f"r{n}" for n in range(N)}
    for step in range(800):
        lsn += 1
        number = chance.randrange(N)
        if chance.random() < 0.5:
            writer.apply([put(lsn, number, vectors[N + step])], lsn)
            there.add(f"r{number}")
            assert keys(nearest(path, how, vectors[N + step], limit=1)) == [f"r{number}"]
        else:
            writer.apply([item(lsn, "doc", f"r{number}", None)], lsn)
            there.discard(f"r{number}")
    found = 0
    for wanted in vectors[2 * N - 50 :]:
        hits, best = nearest(path, how, wanted), exact(path, how, wanted, monkeypatch)
        assert {*keys(hits)} <= there
        assert len(hits) == len({*keys(hits)}) == LIMIT
        found += len({*keys(hits)} & {*keys(best)})
    assert found >= 0.98 * 50 * LIMIT


def test_a_filter_that_few_pass_and_a_long_page_are_exact(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, how = make("cos")
    writer.apply([put(N + 1, 1, vectors[N], "rare"), put(N + 2, 2, vectors[N + 1], "rare")], N + 2)
    asked = {"resource_types": ["rare"]}
    assert len(nearest(path, how, vectors[0], **asked)) == 2
    assert nearest(path, how, vectors[0], **asked) == exact(path, how, vectors[0], monkeypatch, **asked)
    assert nearest(path, how, vectors[0], limit=2 * N) == exact(path, how, vectors[0], monkeypatch, limit=2 * N)
    assert len(nearest(path, how, vectors[0], limit=2 * N)) == N + 2


def test_a_moment_that_is_kept_sees_none_of_what_came_behind_it(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]]
) -> None:
    writer, how = make("cos")
    with closing(BACKEND.open_freezing([path], how)) as frozen:
        frozen.freeze()
        before = keys(frozen.nearest(Asking(), vectors[0], LIMIT))  # type: ignore[attr-defined]
        writer.apply([put(N + 1, N + 1, vectors[0]), item(N + 2, "doc", before[0], None)], N + 2)
        assert keys(frozen.nearest(Asking(), vectors[0], LIMIT)) == before  # type: ignore[attr-defined]
    after = keys(nearest(path, how, vectors[0]))
    assert after[0] == f"r{N + 1}"
    assert before[0] not in after


def test_after_a_repair_searches_are_exact(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, how = make("cos")
    lost = put(1, 0, vectors[0])
    bucket = bucket_of(lost.key_hash)
    items = [one for n in range(N) if bucket_of((one := put(n + 1, n, vectors[n])).key_hash) == bucket]
    writer.repair_bucket(bucket, [put(1, 0, vectors[N]), *items[1:]])  # with the LSN of before
    assert keys(nearest(path, how, vectors[N], limit=1)) == ["r0"]
    assert nearest(path, how, vectors[5]) == exact(path, how, vectors[5], monkeypatch)


def ruined(path: Path, how: str) -> None:
    graph, state = path / "hnsw" / "graph.usearch", path / "hnsw" / "state"
    if how == "no graph":
        graph.unlink()
    elif how == "no state":
        state.unlink()
    elif how == "a wrong byte":
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
    elif how == "cut":
        graph.write_bytes(graph.read_bytes()[:1000])
    else:
        state.write_text("no state")


@pytest.mark.parametrize("how", ["no graph", "no state", "a wrong byte", "cut", "no json"])
def test_a_graph_that_is_lost_or_damaged_costs_time(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, with_graph = make("cos")
    writer.close()
    ruined(path, how)
    assert nearest(path, with_graph, vectors[N]) == exact(path, with_graph, vectors[N], monkeypatch)
    assert BACKEND.check(path, with_graph) == []


def test_without_usearch_searches_are_exact(
    make: Callable[[str], Made], path: Path, vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.replace(monkeypatch, inside.Step.HNSW_INSTALLED, lambda: False)
    _, how = make("cos")
    assert not (path / "hnsw").exists()
    assert nearest(path, how, vectors[N]) == exact(path, how, vectors[N], monkeypatch)


def test_a_shard_of_the_size_that_is_searched_exactly_has_no_graph(path: Path, vectors: list[list[float]]) -> None:
    small = options(exact_max=100)
    BACKEND.create_shard(path, small)
    with closing(BACKEND.open_writer(path, small)) as writer:
        writer.load([put(n + 1, n, vectors[n]) for n in range(100)], b"cursor")
        writer.finish_load(100)
    assert not (path / "hnsw").exists()


@pytest.mark.parametrize("exact_max", [0, -1, True, "many", 1.5, 1 << 50])
def test_a_wrong_size_is_refused(exact_max: Any) -> None:
    with pytest.raises(InvalidConfig, match="exact_max"):
        options(exact_max=exact_max)
