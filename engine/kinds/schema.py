"""The kind `schema`: the types that records define, what uses them, and what a change of them would break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shadowswitch.model.kinds.schema import Break, Property, Ref, SchemaType


class Schema:
    """`reader.schema`. Each call reads one moment of each shard.

    Raises InvalidConfig for a wrong argument, and Timeout after `timeout_s` (default: `Config.search_timeout_s`).
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def types(self, limit: int = 1000, timeout_s: float | None = None) -> list[SchemaType]:
        """The types that records define, by name: at most `limit`, up to 10,000."""
        found: list[SchemaType] = self._ask("types", timeout_s, limit=limit)
        return found

    def properties(self, type: str, timeout_s: float | None = None) -> list[Property]:
        """The properties of a type, by name. Raises InvalidConfig for a type that no record defines."""
        found: list[Property] = self._ask("properties", timeout_s, type=type)
        return found

    def users_of(
        self, type: str, property: str | None = None, limit: int = 1000, timeout_s: float | None = None
    ) -> list[Ref]:
        """The uses of a type, or of one property of it: at most `limit`, up to 10,000, by property."""
        found: list[Ref] = self._ask("users_of", timeout_s, type=type, property=property, limit=limit)
        return found

    def compatible(self, changes: Mapping[str, Any], timeout_s: float | None = None) -> list[Break]:
        """What a change of the schema would break; empty: nothing that the records use.

        `changes` gives the new properties of each type that changes, in the form in which records have them, and None
        for a type that goes. A break is a type or a property that goes, or a property of another type, which records
        use; it names up to 100 of them. Whether the records are valid then, an index of the backend `validation` says.
        """
        found: list[Break] = self._ask("compatible", timeout_s, changes=changes)
        return found
