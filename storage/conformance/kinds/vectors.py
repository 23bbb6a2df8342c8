"""The kind `vector`: any backend that answers it, beside the distances computed by hand.

    class TestMyVectors(VectorConformance):
        backend_spec = "my_package.my_module:MyBackend"

The backend takes the options `vector_field`, `dimensions` and `metric` as the `vector` backend does, and is exact.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.digest import bucket_of
from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.protocol import Backend, Freezing, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import item

DIMENSIONS = 5
KEYS = 300
NO_VECTORS: tuple[Any, ...] = (
    None, "text", [], [1.0] * (DIMENSIONS - 1), [1.0] * (DIMENSIONS + 1), ["a"] * DIMENSIONS,
    [float("nan")] * DIMENSIONS, [[1.0]] * DIMENSIONS, [10**400] * DIMENSIONS, {"x": 1},
)  # fmt: skip
WRONG_CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"vector_field": "v"},
    {"dimensions": 3},
    {"vector_field": "", "dimensions": 3},
    {"vector_field": 7, "dimensions": 3},
    {"vector_field": "v", "dimensions": 0},
    {"vector_field": "v", "dimensions": True},
    {"vector_field": "v", "dimensions": 10**6},
    {"vector_field": "v", "dimensions": 3, "metric": "hamming"},
    {"vector_field": "v", "dimensions": 3, "no_such_option": 1},
)
Vector = list[float]


def score_of(metric: str, one: Sequence[float], other: Sequence[float]) -> float:
    """The nearness of two vectors."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    if metric == "cos":
        return product / (math.hypot(*one) * math.hypot(*other))
    return product if metric == "ip" else -math.dist(one, other)


class Model:
    """The vectors by key, and changes of them."""

    def __init__(self, seed: int, shards: Sequence[ShardWriter]) -> None:
        self.random = random.Random(seed)
        self.lsn = 0
        self.vectors: dict[Key, tuple[int, Vector]] = {}
        self._shards = shards

    def vector(self) -> Vector:
        """A vector of chance."""
        return [self.random.gauss(0, 1) for _ in range(DIMENSIONS)]

    def change(self, count: int) -> None:
        """So many puts and deletes, each applied to its shard."""
        for _ in range(count):
            self.lsn += 1
            key = (self.random.choice(["doc", "doc", "note"]), f"r{self.random.randrange(KEYS)}")
            fields: dict[str, Any] | None = {"v": self.vector()}
            chance = self.random.random()
            if chance < 0.15:
                fields = None
            elif chance < 0.25:
                fields = {"v": self.random.choice(NO_VECTORS)}
            self.vectors.pop(key, None)
            if chance >= 0.25 and fields is not None:
                self.vectors[key] = (self.lsn, fields["v"])
            change = item(self.lsn, *key, fields)
            self._shards[change.key_hash % len(self._shards)].apply([change], self.lsn)

    def nearest(self, metric: str, wanted: Vector, limit: int, types: Sequence[str] = ("doc", "note")) -> list[Key]:
        """By hand."""
        scored = [
            (-score_of(metric, vector, wanted), *key) for key, (_, vector) in self.vectors.items() if key[0] in types
        ]
        return [(resource_type, id) for _, resource_type, id in sorted(scored)[:limit]]


class VectorConformance(Shards):
    """The promises of the kind `vector`. One shard of the backend, or two; each metric."""

    @pytest.fixture(params=["cos", "ip", "l2"])
    def metric(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def options(self, backend: Backend, metric: str) -> dict[str, Any]:
        return backend.configure({"vector_field": "v", "dimensions": DIMENSIONS, "metric": metric})

    @pytest.fixture(params=[1, 2])
    def shards(
        self, request: pytest.FixtureRequest, backend: Backend, options: dict[str, Any], tmp_path: Path
    ) -> list[Path]:
        paths = [tmp_path / f"vectors-{number}" for number in range(request.param)]
        for path in paths:
            backend.create_shard(path, options)
        return paths

    @pytest.fixture
    def writers(self, backend: Backend, options: dict[str, Any], shards: list[Path]) -> Iterator[list[ShardWriter]]:
        opened = [backend.open_writer(path, options) for path in shards]
        yield opened
        for writer, path in zip(opened, shards, strict=True):
            writer.close()
            assert backend.check(path, options) == []

    def test_each_answer_is_that_of_the_distances(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], writers: list[ShardWriter], metric: str
    ) -> None:
        model = Model(1, writers)
        with closing(backend.open_reader(shards, options)) as reader:
            for count in (0, 5, 100, 700, 20, 1500, 3):
                model.change(count)
                assert_answers(reader, model, metric)
        with closing(backend.open_reader(shards, options)) as reader:
            assert_answers(reader, model, metric)

    def test_a_frozen_reader_shows_its_moment_whatever_is_written(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], writers: list[ShardWriter], metric: str
    ) -> None:
        if not isinstance(backend, Freezing):
            pytest.skip("this backend has no frozen readers")
        model = Model(2, writers)
        model.change(600)
        wanted = model.vector()
        with (
            closing(backend.open_freezing(shards, options)) as reader,
            closing(backend.open_reader(shards, options)) as present,
        ):
            reader.freeze()
            before = model.nearest(metric, wanted, 20)
            for _ in range(3):
                assert keys_of(nearest(reader, wanted, 20)) == before
                model.change(1200)
                assert_answers(present, model, metric)
            assert keys_of(nearest(reader, wanted, 20)) == before

    def test_a_bucket_that_is_repaired_is_searched_as_repaired(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], writers: list[ShardWriter], metric: str
    ) -> None:
        model = Model(3, writers[:1])
        model.change(800)
        with closing(backend.open_reader(shards, options)) as reader:
            assert_answers(reader, model, metric)
            bucket = bucket_of(item(1, *next(iter(model.vectors)), None).key_hash)
            kept = []
            for key, (lsn, _) in list(model.vectors.items()):
                one = item(lsn, *key, {"v": model.vector()})
                if bucket_of(one.key_hash) == bucket:
                    model.vectors[key] = (lsn, (one.fields or {})["v"])
                    kept.append(one)
            writers[0].repair_bucket(bucket, kept)
            assert_answers(reader, model, metric)

    def test_a_wrong_option_and_a_wrong_query_are_refused(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], metric: str
    ) -> None:
        for wrong in WRONG_CONFIGS:
            with pytest.raises(InvalidConfig) as refused:
                backend.configure(wrong)
            assert refused.value.hint
        with closing(backend.open_reader(shards, options)) as reader:
            nothing = [[0.0] * DIMENSIONS] if metric == "cos" else []  # of no direction
            for query in (*NO_VECTORS, *nothing):
                with pytest.raises(InvalidConfig) as refused:
                    nearest(reader, query, 1)
                assert refused.value.hint
            assert nearest(reader, ("doc", "absent"), 3) == []
            late: Any = reader
            with pytest.raises(Timeout):
                late.nearest(Asking(TimeLimit(0.0, iter(range(9)).__next__)), [1.0] * DIMENSIONS)


def nearest(reader: Any, query: Any, limit: int, types: Sequence[str] | None = None) -> list[Hit]:
    """The hits of a reader."""
    found: list[Hit] = reader.nearest(Asking(), query, limit, types)
    return found


def keys_of(hits: Sequence[Hit]) -> list[Key]:
    """Their keys, in order."""
    return [(hit.resource_type, hit.id) for hit in hits]


def assert_answers(reader: Any, model: Model, metric: str) -> None:
    """Every query, beside the same by hand."""
    assert reader.size(Asking()) == len(model.vectors)
    for limit in (1, 7, 50):
        wanted = model.vector()
        hits = nearest(reader, wanted, limit)
        assert keys_of(hits) == model.nearest(metric, wanted, limit)
        for hit in hits:
            lsn, vector = model.vectors[hit.resource_type, hit.id]
            assert hit.lsn == lsn
            assert hit.score == pytest.approx(score_of(metric, vector, wanted), rel=1e-4, abs=1e-5)
        assert keys_of(nearest(reader, wanted, limit, ["note"])) == model.nearest(metric, wanted, limit, ["note"])
    for key in list(model.vectors)[:3]:
        assert keys_of(nearest(reader, key, 4)) == model.nearest(metric, model.vectors[key][1], 4)
