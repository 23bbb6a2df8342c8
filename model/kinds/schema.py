"""The values of a schema index."""

from __future__ import annotations

import enum

import msgspec

from shadowswitch.model.kinds.asking import Key


class Property(msgspec.Struct, frozen=True, order=True):
    """A property of a type. `type` is its own type as the record says it, "" where it says none."""

    name: str
    type: str = ""
    required: bool = False


class SchemaType(msgspec.Struct, frozen=True):
    """A type, and the record that defines it."""

    name: str
    record: Key
    properties: list[Property]


class Ref(msgspec.Struct, frozen=True, order=True):
    """A use of a type by a record, in a field. `property` is the property that it uses; "" for the type itself."""

    type: str
    property: str
    record: Key
    field: str


class BreakKind(enum.StrEnum):
    """What a change takes away from the users of a schema."""

    TYPE_REMOVED = "type_removed"
    PROPERTY_REMOVED = "property_removed"
    PROPERTY_RETYPED = "property_retyped"


class Break(msgspec.Struct, frozen=True):
    """A change of a schema that breaks what uses it: the first of its users."""

    kind: BreakKind
    type: str
    property: str
    users: list[Ref]
