"""The reader of a `graph` generation: breadth-first searches over the entries of all shards.

A search looks at each record once. It ends with Timeout when its time is over, or after `VISITED_MAX` records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.kinds.asking import LIMIT_MAX, Asking, Key, check_count, check_key, check_names
from shadowswitch.model.kinds.graph import Direction, Edge, Reached
from shadowswitch.storage.backends import kinds as query_kinds
from shadowswitch.storage.backends.derived.reader import DerivedReader, Moment
from shadowswitch.storage.backends.graph.places import IN, OUT, of_kind, of_node

DEPTH_MAX = 100
VISITED_MAX = 200_000
EDGES_SEEN_MAX = 1 << 40
"""As a limit: all."""
Known = dict[Key, Edge | None]
_DIRECTIONS = {"out": OUT, "in": IN}


class GraphReader(DerivedReader):
    """See `kinds.GraphReader`. One thread at a time, any thread."""

    kinds = query_kinds.GRAPH

    def neighbours(
        self,
        asking: Asking,
        key: Sequence[str],
        kinds: Iterable[str] | None = None,
        direction: Direction = "out",
        limit: int = 100,
    ) -> list[Edge]:
        node, wanted = check_key(key), check_names("kinds", kinds)
        check_count("limit", limit, LIMIT_MAX)
        if direction not in _DIRECTIONS:
            raise InvalidConfig(f"direction is {direction!r:.80}", operation="query", hint='use "out" or "in"')
        with self.moment(asking) as moment:
            return _edges(moment, _DIRECTIONS[direction], node, wanted, limit)

    def impact(
        self, asking: Asking, key: Sequence[str], depth: int = 3, limit: int = 1000, kinds: Iterable[str] | None = None
    ) -> list[Reached]:
        node, wanted = check_key(key), check_names("kinds", kinds)
        check_count("depth", depth, DEPTH_MAX)
        check_count("limit", limit, LIMIT_MAX)
        with self.moment(asking) as moment:
            reached: dict[Key, Reached] = {}
            ring = [node]
            for distance in range(1, depth + 1):
                found = _ring(moment, IN, ring, wanted)
                ring = []
                for edge in found:
                    if edge.source != node and edge.source not in reached:
                        reached[edge.source] = Reached(edge.source, distance, edge)
                        ring.append(edge.source)
                        if len(reached) == limit:
                            return list(reached.values())
                if not ring:
                    break
            return list(reached.values())

    def path(
        self,
        asking: Asking,
        a: Sequence[str],
        b: Sequence[str],
        depth_max: int = 6,
        kinds: Iterable[str] | None = None,
    ) -> list[Edge] | None:
        begin, end, wanted = check_key(a, "a"), check_key(b, "b"), check_names("kinds", kinds)
        check_count("depth_max", depth_max, DEPTH_MAX)
        if begin == end:
            return []
        with self.moment(asking) as moment:
            return _Ways(moment, begin, end, wanted).shortest(depth_max)

    def dangling(self, asking: Asking, limit: int = 100) -> list[Edge]:
        check_count("limit", limit, LIMIT_MAX)
        found: list[Edge] = []
        with self.moment(asking) as moment:
            there: dict[Key, bool] = {}
            for edge in map(_edge, moment.all(OUT)):
                for end in (edge.source, edge.target):
                    if end not in there:
                        if len(there) >= VISITED_MAX:
                            there.clear()
                        there[end] = not asking.holds(end[0]) or moment.has(end)
                if not (there[edge.source] and there[edge.target]):
                    found.append(edge)
                    if len(found) == limit:
                        break
        return sorted(found)


class _Ways:
    """The ways from one record on and to another one back, until they meet."""

    def __init__(self, moment: Moment, begin: Key, end: Key, kinds: list[str] | None) -> None:
        self._moment = moment
        self._kinds = kinds
        self._ahead: Known = {begin: None}
        """Each record that is reached from the beginning, with the edge that reached it."""
        self._back: Known = {end: None}
        self._rings = ([begin], [end])

    def shortest(self, depth_max: int) -> list[Edge] | None:
        """The edges of a shortest way of at most so many."""
        for _ in range(depth_max):
            if not all(self._rings):
                return None
            ahead, back = self._rings
            middle = self._grown_ahead() if len(ahead) <= len(back) else self._grown_back()
            if middle is not None:
                return [*self._to(middle), *self._from(middle)]
        return None

    def _grown_ahead(self) -> Key | None:
        ring, known = self._rings[0], self._ahead
        found = [(edge.target, edge) for edge in _ring(self._moment, OUT, ring, self._kinds)]
        return self._grow(ring, known, self._back, found)

    def _grown_back(self) -> Key | None:
        ring, known = self._rings[1], self._back
        found = [(edge.source, edge) for edge in _ring(self._moment, IN, ring, self._kinds)]
        return self._grow(ring, known, self._ahead, found)

    def _grow(self, ring: list[Key], known: Known, other: Known, found: list[tuple[Key, Edge]]) -> Key | None:
        """The ring becomes the next one; returns a record at which the ways meet."""
        ring.clear()
        for node, edge in found:
            if node not in known:
                known[node] = edge
                if node in other:
                    return node
                ring.append(node)
        if len(known) > VISITED_MAX:
            raise _too_many()
        return None

    def _to(self, node: Key) -> list[Edge]:
        edges: list[Edge] = []
        while (edge := self._ahead[node]) is not None:
            edges.append(edge)
            node = edge.source
        return edges[::-1]

    def _from(self, node: Key) -> Iterator[Edge]:
        while (edge := self._back[node]) is not None:
            yield edge
            node = edge.target


def _ring(moment: Moment, direction: bytes, ring: list[Key], kinds: list[str] | None) -> list[Edge]:
    """The edges of all records of a ring. Raises Timeout for too many."""
    found: list[Edge] = []
    for node in ring:
        found += _edges(moment, direction, node, kinds, EDGES_SEEN_MAX)
        if len(found) > VISITED_MAX:
            raise _too_many()
    return found


def _edges(moment: Moment, direction: bytes, node: Key, kinds: list[str] | None, limit: int) -> list[Edge]:
    if kinds is None:
        return [_edge(value) for value in moment.first(of_node(direction, node), limit)]
    found: list[Edge] = []
    for kind in sorted(kinds):
        found += [_edge(value) for value in moment.first(of_kind(direction, node, kind), limit - len(found))]
        if len(found) == limit:
            break
    return found


def _edge(value: Any) -> Edge:
    source, target, kind, record = value
    return Edge((source[0], source[1]), (target[0], target[1]), kind, (record[0], record[1]))


def _too_many() -> Timeout:
    return Timeout(
        f"the search met more than {VISITED_MAX:,} edges", operation="query", hint="name kinds, or a smaller depth"
    )
