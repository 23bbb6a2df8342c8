"""How a query of a kind is asked: what surrounds each call, and what its arguments must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.names import check_resource_type
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit

Key = tuple[str, str]
"""Resource type and id of a record."""
LIMIT_MAX = 10_000
"""The most that one call gives."""
NAMES_MAX = 100


class Asking(msgspec.Struct, frozen=True):
    """What surrounds one call. `resource_types` are those that the index was built with; None: not known."""

    time_limit: TimeLimit = UNLIMITED
    resource_types: Sequence[str] | None = None

    def holds(self, resource_type: str) -> bool:
        """Whether the index has records of a type, so that a missing one is missing in the branch."""
        return self.resource_types is None or resource_type in self.resource_types


def check_key(key: Sequence[str], name: str = "key") -> Key:
    """A key that a caller gave. Raises InvalidConfig, InvalidName."""
    is_pair = isinstance(key, Sequence) and not isinstance(key, str) and len(key) == 2
    if not is_pair or not all(isinstance(part, str) for part in key) or not _is_text(key[1]):
        hint = 'say ("object_type", "o1"): resource type and id'
        raise InvalidConfig(f"{name} is {key!r:.80}, not a pair of resource type and id", operation="query", hint=hint)
    return check_resource_type(key[0]), key[1]


def check_count(name: str, value: int, most: int, least: int = 1) -> int:
    """A whole number of a call. Raises InvalidConfig."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        hint = f"use a whole number from {least} to {most}"
        raise InvalidConfig(f"{name} is {value!r:.80}", operation="query", hint=hint)
    return value


def check_names(name: str, value: Iterable[str] | None) -> list[str] | None:
    """Names that a caller gave, each once; None for all. Raises InvalidConfig."""
    if value is None:
        return None
    found = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if isinstance(value, str) or not 1 <= len(found) <= NAMES_MAX or not all(isinstance(one, str) for one in found):
        hint = f'say ["one", "two"]: 1 to {NAMES_MAX} names, or none'
        raise InvalidConfig(f"{name} is {value!r:.80}, not a list of names", operation="query", hint=hint)
    return list(dict.fromkeys(found))


def check_kind(kinds: Mapping[str, Sequence[str]], kind: str) -> None:
    """Whether an index has a query kind. Raises InvalidConfig."""
    if kind not in kinds:
        has = ", ".join(sorted(kinds)) or "only search and get"
        hint = f"it has {has}; an index of another backend may have it (docs/query-kinds.md)"
        raise InvalidConfig(f"the index answers no queries of the kind {kind!r:.80}", operation="query", hint=hint)


def check_call(kinds: Mapping[str, Sequence[str]], kind: str, call: str) -> None:
    """Whether an index has a call of a query kind. Raises InvalidConfig, which names those that it has."""
    check_kind(kinds, kind)
    if call not in kinds[kind]:
        hint = f"it has {', '.join(kinds[kind])}"
        raise InvalidConfig(f"the kind {kind} has no query {call!r:.80}", operation="query", hint=hint)


def _is_text(id: str) -> bool:
    try:
        id.encode()
    except UnicodeEncodeError:
        return False
    return True
