"""The kind `graph`: what records are linked with, what depends on them, and links that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from shadowswitch.model.kinds.asking import Key
from shadowswitch.model.kinds.graph import Direction, Edge, Reached


class Graph:
    """`reader.graph`. A key is a pair of resource type and id. Each call reads one moment of each shard.

    `kinds` are kinds of edges, None for all. Raises InvalidConfig for a wrong argument, and Timeout after `timeout_s`
    (default: `Config.search_timeout_s`), or when a search meets more than 200,000 edges.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def neighbours(
        self,
        key: Key,
        kinds: Iterable[str] | None = None,
        direction: Direction = "out",
        limit: int = 100,
        timeout_s: float | None = None,
    ) -> list[Edge]:
        """The edges from a record, or with `direction="in"` to it: by kind, then by the key at the other end.

        At most `limit`, up to 10,000. The key need not be that of a record.
        """
        how: dict[str, Any] = {"kinds": kinds, "direction": direction, "limit": limit}
        found: list[Edge] = self._ask("neighbours", timeout_s, key=key, **how)
        return found

    def impact(
        self,
        key: Key,
        depth: int = 3,
        limit: int = 1000,
        kinds: Iterable[str] | None = None,
        timeout_s: float | None = None,
    ) -> list[Reached]:
        """What depends on a record: the records from which edges lead to it over at most `depth` edges, nearest first.

        Each once, with its least depth. At most `limit`, up to 10,000.
        """
        found: list[Reached] = self._ask("impact", timeout_s, key=key, depth=depth, limit=limit, kinds=kinds)
        return found

    def path(
        self, a: Key, b: Key, depth_max: int = 6, kinds: Iterable[str] | None = None, timeout_s: float | None = None
    ) -> list[Edge] | None:
        """The edges of a shortest way from `a` to `b`, of at most `depth_max`; None if there is none.

        By breadth-first search from both ends (Pohl: "Bi-directional search", 1971).
        """
        found: list[Edge] | None = self._ask("path", timeout_s, a=a, b=b, depth_max=depth_max, kinds=kinds)
        return found

    def dangling(self, limit: int = 100, timeout_s: float | None = None) -> list[Edge]:
        """Edges of which an end is no record of the branch, at most `limit`.

        An end whose resource type the index was built without is not looked for. Reads all edges: 0.2 s for 100,000.
        """
        found: list[Edge] = self._ask("dangling", timeout_s, limit=limit)
        return found
