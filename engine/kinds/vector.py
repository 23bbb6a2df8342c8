"""The kind `vector`: the records whose vectors are nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from shadowswitch.engine.search.showing import Fields, check_fields
from shadowswitch.model.kinds.asking import LIMIT_MAX, Key, check_count
from shadowswitch.model.records import Hit
from shadowswitch.model.search.where import Where, parse_where

Filtered = Callable[[Callable[[int], list[Hit]], Where, int, float | None], list[Hit]]
Shown = Callable[[Callable[[], list[Hit]], Fields, float | None], list[Hit]]


class Vector:
    """`reader.vector`. Each call reads one moment of each shard.

    Raises InvalidConfig for a wrong argument, and Timeout after `timeout_s` (default: `Config.search_timeout_s`).
    """

    def __init__(self, ask: Callable[..., Any], filtered: Filtered, shown: Shown) -> None:
        self._ask = ask
        self._filtered = filtered
        self._shown = shown

    def nearest(
        self,
        query: Sequence[float] | Key | str,
        limit: int = 10,
        where: Mapping[str, Any] | None = None,
        resource_types: Iterable[str] | None = None,
        fields: Fields = None,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """The `limit` nearest records (up to 10,000) to a vector, or to that of a record, which is found, too; or to a
        text, of an index that embeds.

        The score is the cosine, the inner product, or the negative distance (`metric`): the higher, the nearer.
        `where` leaves out records as in `Reader.search`, `fields` gives each hit fields of its record. The search is
        exact. A record that is not there, or has no vector, is near to none.
        """
        check_count("limit", limit, LIMIT_MAX)
        condition, wanted = parse_where(where), check_fields(fields)

        def ask(count: int) -> list[Hit]:
            hits: list[Hit] = self._ask("nearest", timeout_s, query=query, limit=count, resource_types=resource_types)
            return hits

        search = partial(ask, limit) if condition is None else partial(self._filtered, ask, condition, limit, timeout_s)
        return self._shown(search, wanted, timeout_s)

    def size(self, timeout_s: float | None = None) -> int:
        """The number of records that have a vector."""
        found: int = self._ask("size", timeout_s)
        return found
