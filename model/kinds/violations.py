"""The values of a validation index."""

from __future__ import annotations

import msgspec


class Violation(msgspec.Struct, frozen=True, order=True):
    """What a record has that its schema does not allow.

    `rule` is the place in the schemas: `object_type#/properties/title/type`. `path` is the place in the fields, a JSON
    pointer (RFC 6901): `/title`.
    """

    resource_type: str
    id: str
    rule: str
    path: str
    message: str


class ViolationPage(msgspec.Struct, frozen=True):
    """Violations by resource type and id. `cursor` is that of the next page; None at the end."""

    violations: list[Violation]
    cursor: str | None
