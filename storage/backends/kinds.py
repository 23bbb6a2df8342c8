"""Query kinds: what a backend may answer beyond `search` and `get`.

A reader of such a backend has `kinds`, the calls of each kind by its name. Each call takes an `Asking` first. A kind of
your own needs no more: `engine.Reader.query` and HTTP find the call there. The kinds of the library have protocols, and
a conformance suite each (`storage.conformance.kinds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from shadowswitch.model.kinds.asking import Asking
from shadowswitch.model.kinds.graph import Direction, Edge, Reached
from shadowswitch.model.kinds.schema import Break, Property, Ref, SchemaType
from shadowswitch.model.kinds.violations import ViolationPage
from shadowswitch.model.records import Hit

Kinds = Mapping[str, Sequence[str]]
"""The names of the calls of each kind."""


@runtime_checkable
class Answering(Protocol):
    """What a reader has if it answers queries of some kinds."""

    kinds: Kinds


class GraphReader(Protocol):
    """The kind `graph`. See `engine.kinds.graph.Graph` for what each call gives."""

    def neighbours(
        self,
        asking: Asking,
        key: Sequence[str],
        kinds: Iterable[str] | None = None,
        direction: Direction = "out",
        limit: int = 100,
    ) -> list[Edge]:
        """The edges from a record (or to it), by kind and the other key."""
        ...

    def impact(
        self, asking: Asking, key: Sequence[str], depth: int = 3, limit: int = 1000, kinds: Iterable[str] | None = None
    ) -> list[Reached]:
        """The records from which edges lead to a record, over at most `depth` edges."""
        ...

    def path(
        self,
        asking: Asking,
        a: Sequence[str],
        b: Sequence[str],
        depth_max: int = 6,
        kinds: Iterable[str] | None = None,
    ) -> list[Edge] | None:
        """A shortest way from a to b; None if there is none of so many edges."""
        ...

    def dangling(self, asking: Asking, limit: int = 100) -> list[Edge]:
        """Edges of which an end is no record."""
        ...


class ViolationReader(Protocol):
    """The kind `violations`. See `engine.kinds.violations.Violations` for what each call gives."""

    def list(
        self,
        asking: Asking,
        resource_type: str | None = None,
        rule: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> ViolationPage:
        """A page of violations, by resource type and id."""
        ...

    def counts(self, asking: Asking) -> Mapping[str, int]:
        """The number of violations of each rule that has any."""
        ...

    def is_valid(self, asking: Asking, resource_type: str, id: str) -> bool:
        """Whether a record is there and violates nothing."""
        ...


class SchemaReader(Protocol):
    """The kind `schema`. See `engine.kinds.schema.Schema` for what each call gives."""

    def types(self, asking: Asking, limit: int = 1000) -> list[SchemaType]:
        """The types that records define, by name."""
        ...

    def properties(self, asking: Asking, type: str) -> list[Property]:
        """Those of a type, by name."""
        ...

    def users_of(self, asking: Asking, type: str, property: str | None = None, limit: int = 1000) -> list[Ref]:
        """What uses a type, or a property of it."""
        ...

    def compatible(self, asking: Asking, changes: Mapping[str, Any]) -> list[Break]:
        """What a change of the schema would break."""
        ...


class VectorReader(Protocol):
    """The kind `vector`. See `engine.kinds.vector.Vector` for what each call gives."""

    def nearest(
        self,
        asking: Asking,
        query: Sequence[float] | Sequence[str] | str,
        limit: int = 10,
        resource_types: Iterable[str] | None = None,
    ) -> list[Hit]:
        """The records with the nearest vectors, best first."""
        ...

    def size(self, asking: Asking) -> int:
        """The number of vectors."""
        ...


def kinds_of(reader: object) -> Kinds:
    """The calls of each kind that a backend's reader answers."""
    return reader.kinds if isinstance(reader, Answering) else {}


GRAPH = {"graph": ("neighbours", "impact", "path", "dangling")}
SCHEMA = {"schema": ("types", "properties", "users_of", "compatible")}
VECTOR = {"vector": ("nearest", "size")}
VIOLATIONS = {"violations": ("list", "counts", "is_valid")}
