"""Filters of a search: conditions on the values of fields.

    {"status": "open"}                                    the field is there and has this value
    {"size": {"gte": 1, "lt": 9}, "owner": {"in": ["ann", "bob"]}, "closed": {"exists": False}}

All conditions of all fields must hold. A value is compared as JSON: `True` is no number, 1 and 1.0 are equal, a list
equals a list with equal values in the same order. `gte gt lte lt` compare numbers with numbers, and strings with
strings by code point; a value of another kind does not match. A field that is missing matches only `exists: False`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.names import check_resource_type, did_you_mean, listed
from shadowswitch.model.records import DEPTH_MAX, is_deeper

CONDITIONS_MAX = 100
VALUES_MAX = 1000
"""The most values of one `in`, and the most resource types."""
WHERE_BYTES_MAX = 64 << 10
"""The longest filter, as JSON."""
OPERATORS = ("gte", "gt", "lte", "lt", "in", "exists")
HINT = 'use {"field": value}, or {"field": {"gte": 1}} with ' + ", ".join(OPERATORS)

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gte": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "lte": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}
_SCALARS = (str, int, float, bool)
_MISSING = object()


class Where:
    """A filter. Immutable; any thread."""

    def __init__(self, conditions: Iterable[tuple[str, str, Any]]) -> None:
        self._conditions = tuple(conditions)
        self.fields = frozenset(field for field, _, _ in self._conditions)
        """The names of the fields on which it depends."""

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record with these fields passes."""
        return all(_holds(fields.get(name, _MISSING), kind, given) for name, kind, given in self._conditions)


def parse_where(where: Mapping[str, Any] | None) -> Where | None:
    """The filter that a caller gave; None if it lets everything pass. Raises InvalidConfig."""
    if where is None:
        return None
    if not isinstance(where, Mapping) or not all(isinstance(field, str) for field in where):
        raise _wrong("where is not an object of fields")
    if is_deeper(where):
        raise _wrong(f"where is nested deeper than {DEPTH_MAX} levels")
    try:
        text = msgspec.json.encode(where)
        where = msgspec.json.decode(text, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise _wrong(f"where has a value that JSON cannot carry: {error}") from error
    if len(text) > WHERE_BYTES_MAX:
        raise _wrong(f"where is longer than {WHERE_BYTES_MAX} bytes as JSON")
    found = [condition for field, given in where.items() for condition in _conditions(field, given)]
    if len(found) > CONDITIONS_MAX:
        raise _wrong(f"where has {len(found)} conditions, more than {CONDITIONS_MAX}")
    return Where(found) if found else None


def check_types(resource_types: Iterable[str] | None, held: Collection[str]) -> list[str] | None:
    """The resource types of a search, sorted; None for all. The index was built with the types `held`.

    Raises InvalidConfig, also for a type that the index was not built with, and InvalidName.
    """
    if resource_types is None:
        return None
    if isinstance(resource_types, str) or not isinstance(resource_types, Iterable):
        raise InvalidConfig("resource_types is not a list of names", operation="search", hint='say ["object_type"]')
    found = sorted({check_resource_type(name) for name in resource_types})
    if not 1 <= len(found) <= VALUES_MAX:
        raise InvalidConfig(f"{len(found)} resource types", operation="search", hint=f"name 1 to {VALUES_MAX}, or none")
    for name in found:
        if name not in held:
            raise InvalidConfig(
                f"the index was built without the resource type {name!r}{did_you_mean(name, held)}",
                operation="search",
                hint=f"it has {listed(held)}; without a resource type a search finds records of all of them",
            )
    return found


def _conditions(field: str, given: Any) -> list[tuple[str, str, Any]]:
    if not isinstance(given, Mapping):
        return [(field, "equal", given)]
    if not given:
        raise _wrong(f"where has no condition on {field!r}")
    for kind, bound in given.items():
        _check(field, kind, bound)
    return [(field, kind, bound) for kind, bound in given.items()]


def _check(field: str, kind: Any, bound: Any) -> None:
    if kind not in OPERATORS:
        raise _wrong(f"where has an unknown operator {kind!r:.80} on {field!r:.80}")
    if kind == "exists" and not isinstance(bound, bool):
        raise _wrong(f"exists of {field!r:.80} is {bound!r:.80}, not true or false")
    if kind == "in" and not (isinstance(bound, list | tuple) and len(bound) <= VALUES_MAX):
        raise _wrong(f"in of {field!r:.80} is no list of at most {VALUES_MAX} values")
    if kind in _COMPARE and _order(bound) is None:
        raise _wrong(f"{kind} of {field!r:.80} is {bound!r:.80}, neither a number nor a string")


def _holds(value: Any, kind: str, given: Any) -> bool:
    if kind == "exists":
        return (value is not _MISSING) is given
    if value is _MISSING:
        return False
    if kind == "equal":
        return _equal(value, given)
    if kind == "in":
        return any(_equal(value, one) for one in given)
    order = _order(value)
    return order is not None and order is _order(given) and _COMPARE[kind](value, given)


def _order(value: Any) -> type | None:
    """The kind of values with which a value can be compared by size; None if there is none."""
    if isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


def _equal(value: Any, given: Any) -> bool:
    """Equality of JSON values, without recursion: a record may be nested deeply."""
    if type(value) is type(given) and type(value) in _SCALARS:
        return bool(value == given)
    stack = [(value, given)]
    while stack:
        left, right = stack.pop()
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            if left.keys() != right.keys():
                return False
            stack += [(left[name], right[name]) for name in left]
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            if len(left) != len(right):
                return False
            stack += zip(left, right, strict=True)
        elif isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True


def _wrong(message: str) -> InvalidConfig:
    return InvalidConfig(message, operation="search", hint=HINT)
