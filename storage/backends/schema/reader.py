"""The reader of a `schema` generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.kinds.asking import LIMIT_MAX, Asking, check_count
from shadowswitch.model.kinds.schema import Break, BreakKind, Property, Ref, SchemaType
from shadowswitch.storage.backends import kinds as query_kinds
from shadowswitch.storage.backends.derived.reader import DerivedReader, Moment
from shadowswitch.storage.backends.schema.definitions import properties_in
from shadowswitch.storage.backends.schema.places import TYPE, of_type, of_use, of_uses

CHANGES_MAX = 1000
USERS = 100
"""Of a break, that are named."""
_HINT = '{"User": {"name": "string"}, "Old": None}: the properties of each changed type, None for one that goes'


class SchemaReader(DerivedReader):
    """See `kinds.SchemaReader`. One thread at a time, any thread."""

    kinds = query_kinds.SCHEMA

    def types(self, asking: Asking, limit: int = 1000) -> list[SchemaType]:
        check_count("limit", limit, LIMIT_MAX)
        with self.moment(asking) as moment:
            return [_type(value) for value in moment.first(TYPE, limit)]

    def properties(self, asking: Asking, type: str) -> list[Property]:
        with self.moment(asking) as moment:
            found = _defined(moment, _name("type", type))
        if found is None:
            raise InvalidConfig(
                f"no record defines the type {type!r:.80}", operation="query", hint="ask the query types"
            )
        return found.properties

    def users_of(self, asking: Asking, type: str, property: str | None = None, limit: int = 1000) -> list[Ref]:
        name = _name("type", type)
        check_count("limit", limit, LIMIT_MAX)
        with self.moment(asking) as moment:
            return _users(moment, name, None if property is None else _name("property", property), limit)

    def compatible(self, asking: Asking, changes: Mapping[str, Any]) -> list[Break]:
        if not isinstance(changes, Mapping) or not 1 <= len(changes) <= CHANGES_MAX:
            raise InvalidConfig(f"changes is {changes!r:.80}", operation="query", hint=_HINT)
        with self.moment(asking) as moment:
            return [one for name in changes for one in _breaks(moment, _name("a type", name), changes[name])]


def _breaks(moment: Moment, name: str, given: Any) -> Iterator[Break]:
    defined = _defined(moment, name)
    if given is None:
        users = _users(moment, name, None, USERS)
        if users:
            yield Break(BreakKind.TYPE_REMOVED, name, "", users)
        return
    if not isinstance(given, Mapping | list):
        raise InvalidConfig(f"the change of {name!r:.80} is {given!r:.80}", operation="query", hint=_HINT)
    new = {one.name: one for one in properties_in(given)}
    for old in defined.properties if defined is not None else ():
        kind = BreakKind.PROPERTY_REMOVED if old.name not in new else None
        if kind is None and old.type != new[old.name].type:
            kind = BreakKind.PROPERTY_RETYPED
        users = _users(moment, name, old.name, USERS) if kind is not None else []
        if kind is not None and users:
            yield Break(kind, name, old.name, users)


def _defined(moment: Moment, name: str) -> SchemaType | None:
    return next((found for found in map(_type, moment.first(of_type(name), USERS)) if found.name == name), None)


def _users(moment: Moment, name: str, property: str | None, limit: int) -> list[Ref]:
    begin = of_uses(name) if property is None else of_use(name, property)
    return [_ref(value) for value in moment.first(begin, limit)]


def _type(value: Any) -> SchemaType:
    name, record, properties = value
    return SchemaType(name, (record[0], record[1]), [Property(*one) for one in properties])


def _ref(value: Any) -> Ref:
    name, property, record, field = value
    return Ref(name, property, (record[0], record[1]), field)


def _name(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidConfig(
            f"{what} is {value!r:.80}", operation="query", hint="give a name, as the query types gives it"
        )
    return value
