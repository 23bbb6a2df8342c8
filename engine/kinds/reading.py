"""The query kinds of a reader, as its properties and by their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from shadowswitch.engine.kinds.asked import Asked, check_arguments
from shadowswitch.engine.kinds.graph import Graph
from shadowswitch.engine.kinds.schema import Schema
from shadowswitch.engine.kinds.vector import Vector
from shadowswitch.engine.kinds.violations import Violations
from shadowswitch.engine.search.showing import Fields
from shadowswitch.model.kinds.asking import check_call
from shadowswitch.model.records import Hit
from shadowswitch.model.search.where import Where
from shadowswitch.storage.backends.kinds import Kinds


class ReadsKinds(ABC):
    """The part of `Reader` that answers query kinds. Any thread, one call at a time."""

    @property
    def kinds(self) -> Kinds:
        """The query kinds of the index beyond `search` and `get`, each with the names of its calls."""
        return self._asked().kinds()

    @property
    def graph(self) -> Graph:
        """The links of the records, of an index that has them (backend `graph`). Raises InvalidConfig for another."""
        return Graph(self._asked().of("graph"))

    @property
    def schema(self) -> Schema:
        """The types that records define, of an index that has them (backend `schema`). Raises InvalidConfig."""
        return Schema(self._asked().of("schema"))

    @property
    def vector(self) -> Vector:
        """The vectors of the records, of an index that has them (backend `vector`). Raises InvalidConfig."""
        return Vector(self._asked().of("vector"), self._filtered, self._shown)

    @property
    def violations(self) -> Violations:
        """What records violate, of an index that has it (backend `validation`). Raises InvalidConfig for another."""
        return Violations(self._asked().of("violations"))

    def query(
        self, kind: str, call: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """One call of a query kind by its name: `query("graph", "neighbours", {"key": ["object_type", "o1"]})`.

        The way to the calls of a backend of your own; those of the library have objects, such as `graph`.
        Raises InvalidConfig for a kind, a call or an argument that the index does not know, Timeout after `timeout_s`
        (default: `Config.search_timeout_s`), and what the call raises.
        """
        asked, given = self._asked(), {} if arguments is None else arguments
        check_call(asked.kinds(), kind, call)
        own: object = getattr(self, kind) if kind in OF_THE_LIBRARY else None
        if own is None:
            return asked.query(call, given, timeout_s)
        method = getattr(own, call)
        check_arguments(method, call, given)
        return method(**{**given, "timeout_s": timeout_s})

    @abstractmethod
    def _asked(self) -> Asked:
        """Made for each call: one that is kept would keep a dropped reader, in a circle."""

    @abstractmethod
    def _filtered(
        self, search: Callable[[int], list[Hit]], where: Where, limit: int, timeout_s: float | None
    ) -> list[Hit]:
        """The best hits that pass a filter, of a search that gives the best ones of a number."""

    @abstractmethod
    def _shown(self, search: Callable[[], list[Hit]], fields: Fields, timeout_s: float | None) -> list[Hit]:
        """The hits of a search with fields of their records."""


OF_THE_LIBRARY = frozenset({"graph", "schema", "vector", "violations"})
"""Each a property of `ReadsKinds`."""
