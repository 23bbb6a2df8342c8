"""How records say properties and names. Pure; raises nothing, whatever a field has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shadowswitch.model.kinds.schema import Property

PROPERTIES_MAX = 10_000
"""Of one record; the others do not count."""


def properties_in(value: Any) -> list[Property]:
    """The properties in a field, by name; of two with the same name the last one counts."""
    found: dict[str, Property] = {}
    for name, definition in _named(value):
        if len(found) < PROPERTIES_MAX or name in found:
            found[name] = _property(name, definition)
    return [found[name] for name in sorted(found)]


def names_in(value: Any) -> list[str]:
    """The names in a field, each once: one, a list of them, of objects with `name`, or the names of an object."""
    if isinstance(value, str):
        return [value]
    return list(dict.fromkeys(name for name, _ in _named(value)))[:PROPERTIES_MAX]


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((name, definition) for name, definition in value.items() if isinstance(name, str))
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, str):
                yield one, None
            elif isinstance(one, Mapping) and isinstance(one.get("name"), str):
                yield one["name"], one


def _property(name: str, definition: Any) -> Property:
    if isinstance(definition, str):
        return Property(name, definition)
    if isinstance(definition, Mapping):
        kind = definition.get("type", "")
        return Property(name, kind if isinstance(kind, str) else "", definition.get("required") is True)
    return Property(name)
