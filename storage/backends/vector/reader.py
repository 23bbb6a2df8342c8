"""The reader of a `vector` generation: the nearest vectors of each shard, merged; exact ones, but of large shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.kinds.asking import Asking, check_count, check_key, check_names
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit, check_page, check_query
from shadowswitch.model.search.where import Where
from shadowswitch.storage.backends import kinds as query_kinds
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.derived.reader import DerivedReader, Moment, Shard
from shadowswitch.storage.backends.derived.writer import derived_of
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.vector.embedder import TEXT_CHARS_MAX, embedder_of
from shadowswitch.storage.backends.vector.hnsw import Hnsw, hnsw_of
from shadowswitch.storage.backends.vector.matrix import Vectors, matrix_of
from shadowswitch.storage.backends.vector.options import Floats, vector_of
from shadowswitch.storage.backends.vector.places import of_lsn

GROWTH = 4
WINDOW_MAX = 1 << 20
"""The most hits that a search orders: more than a caller may ask for, since a filter is asked for more and more."""
PROPOSED_MAX = 4096
"""The most vectors that a graph is asked for: beyond that an exact search takes no longer."""
MORE = 16
"""Vectors looked at beyond those that are wanted: some may be of records that were written again."""


class VectorReader(DerivedReader):
    """See `kinds.VectorReader`. One thread at a time, any thread."""

    kinds = query_kinds.VECTOR

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._options = options
        super().__init__(shards, options)

    def search(
        self,
        query: str,
        limit: int,
        *,
        offset: int = 0,
        resource_types: Sequence[str] | None = None,
        where: Where | None = None,
        time_limit: TimeLimit = UNLIMITED,
    ) -> list[Hit]:
        """Of an index that embeds: the nearest records to a text. Of another one as `kv`: by the beginning of ids."""
        if "embedder" not in self._options:
            return super().search(
                query, limit, offset=offset, resource_types=resource_types, where=where, time_limit=time_limit
            )
        check_page(limit, offset)
        if where is not None:
            raise InvalidConfig("a vector index holds no field to filter by", operation="search")
        asking, wanted = Asking(time_limit), min(offset + limit, WINDOW_MAX)
        floats = self._embedded(check_query(query), asking)
        if floats is None:
            return []
        with self.moment(asking) as moment:
            types = None if resource_types is None else list(resource_types)
            return self._hits(moment, floats, wanted, types)[offset:wanted]

    def warm(self) -> None:
        """See `protocol.Warming`: reads the vectors into memory, and asks no model."""
        with self.moment(Asking()) as moment:
            for shard in moment.shards:
                graph = hnsw_of(*shard, self._options)
                behind = graph.covers if graph is not None else 0
                matrix_of(shard[0], self._options["dimensions"], behind).at(*shard, moment.slices)

    def nearest(
        self,
        asking: Asking,
        query: Sequence[float] | Sequence[str] | str,
        limit: int = 10,
        resource_types: Iterable[str] | None = None,
    ) -> list[Hit]:
        check_count("limit", limit, WINDOW_MAX)
        types = check_names("resource_types", resource_types)
        text = query if isinstance(query, str) and "embedder" in self._options else ""
        floats = self._embedded(text, asking) if text else None
        with self.moment(asking) as moment:
            wanted = floats if floats is not None else self._vector(query, moment)
            return self._hits(moment, wanted, limit, types) if wanted is not None else []

    def _hits(self, moment: Moment, wanted: Floats, limit: int, types: list[str] | None) -> list[Hit]:
        hits: list[Hit] = []
        for shard in moment.shards:
            graph, behind = hnsw_of(*shard, self._options), 0
            if graph is not None:
                proposed = self._proposed(shard, graph, wanted, limit, types)
                if proposed is not None:
                    hits += proposed
                    behind = graph.covers
            matrix = matrix_of(shard[0], self._options["dimensions"], behind)
            for vectors in matrix.at(*shard, moment.slices):
                hits += self._nearest(shard, vectors, wanted, limit, types)
        return sorted(hits, key=_best_first)[:limit]

    def _proposed(
        self, shard: Shard, graph: Hnsw, wanted: Floats, limit: int, types: list[str] | None
    ) -> list[Hit] | None:
        """About the nearest of a graph that are still entries, of the types; None where an exact search is better."""
        window = limit + MORE
        while window <= min(PROPOSED_MAX, graph.size // 2):
            held = [one for one in map(partial(_vector_at, shard), graph.nearest(wanted, window)) if one is not None]
            found = [one for one in held if types is None or one[0] in types]
            if len(found) >= limit:
                floats = np.frombuffer(b"".join(one[3] for one in found), "<f4").reshape(len(found), -1)
                scores = _scores(floats, wanted, self._options["metric"])
                return [Hit(one[0], one[1], float(score), one[2]) for one, score in zip(found, scores, strict=True)]
            window *= GROWTH
        return None

    def size(self, asking: Asking) -> int:
        with self.moment(asking) as moment:
            return sum(
                transaction.stat(derived_of(environment)[0])["entries"] for environment, transaction in moment.shards
            )

    def _embedded(self, text: str, asking: Asking) -> Floats | None:
        """The vector of a text; None if it has none. Raises as `Embedder.vectors`."""
        text = text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()
        if not text.strip():
            return None
        embedder = embedder_of(self._options, self._paths[0])
        floats = embedder.vectors([text], False, asking.time_limit.left_s)[0]
        return np.frombuffer(floats, "<f4") if floats else None

    def _vector(self, query: Any, moment: Moment) -> Floats | None:
        """That of a query; None for a record that is not there, or has none."""
        if isinstance(query, list | tuple) and len(query) == 2 and all(isinstance(part, str) for part in query):
            key = store.stored_key(store.full_key(*check_key(query, "query")))
            for environment, transaction in moment.shards:
                database, owned = derived_of(environment)
                held = transaction.get(key, db=owned)
                for place, _ in entries.owned_of(key, held) if held is not None else ():
                    floats = entries.decode_value(transaction.get(place, db=database) or b"")[3]
                    return np.frombuffer(floats, "<f4").astype(np.float32)
            return None
        found = vector_of(query, self._options)
        if found is None:
            text = ", a text" if "embedder" in self._options else ""
            hint = f"give {self._options['dimensions']} finite numbers, not all 0{text}, or the key of a record"
            raise InvalidConfig(f"query is {query!r:.80}", operation="query", hint=hint)
        return found

    def _nearest(
        self, shard: Shard, vectors: Vectors, wanted: Floats, limit: int, types: list[str] | None
    ) -> Iterator[Hit]:
        """The nearest that are rows, of the types."""
        scores = _scores(vectors.floats, wanted, self._options["metric"])
        window = limit + MORE
        while True:
            found = []
            for place in _highest(scores, window):
                key, lsn = vectors.keys[place], vectors.lsns[place]
                if (types is None or key[0] in types) and _has(shard, key, lsn):
                    found.append(Hit(*key, float(scores[place]), lsn))
            if len(found) >= limit or window >= len(scores):
                return iter(found)
            window *= GROWTH


def _vector_at(shard: Shard, lsn: int) -> tuple[str, str, int, bytes] | None:
    """The entry with the vector of an LSN; None if its record was written again, or removed."""
    environment, transaction = shard
    begin = of_lsn(lsn)
    with transaction.cursor(db=derived_of(environment)[0]) as cursor:
        if not cursor.set_range(begin) or not cursor.key().startswith(begin):
            return None
        resource_type, id, found, floats = entries.decode_value(cursor.value())
        return resource_type, id, found, floats


def _scores(floats: Floats, wanted: Floats, metric: str) -> Floats:
    """By the metric, the higher the nearer: cosine, inner product, or the Euclidean distance, negative."""
    if metric == "l2":
        distances: Floats = np.sqrt(np.square(floats - wanted).sum(axis=1))
        return -distances
    found: Floats = floats @ wanted
    return found


def _highest(scores: Floats, count: int) -> list[int]:
    """The places of the highest scores, with all that equal the last of them."""
    if count >= len(scores):
        return list(range(len(scores)))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places: list[int] = np.flatnonzero(scores >= least).tolist()
    return places


def _has(shard: Shard, key: tuple[str, str], lsn: int) -> bool:
    environment, transaction = shard
    value = transaction.get(store.stored_key(store.full_key(*key)), db=environment.rows)
    return value is not None and int.from_bytes(value[:8], "big") == lsn


def _best_first(hit: Hit) -> tuple[float, str, str]:
    return -hit.score, hit.resource_type, hit.id
