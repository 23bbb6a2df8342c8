"""The three-way merge of one record, field by field. Pure.

A side that did not change a record since `base` gives way to the other. Where both changed it, each field is merged by
the same rule; a field that both changed differently is a conflict. So is a record that one side deleted and the other
changed, and one that both made, differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.forks.views import Conflict

Fields = dict[str, Any]
OnConflict = str | Callable[[Conflict], Mapping[str, Any] | None]
REFUSE, OURS, THEIRS = "refuse", "ours", "theirs"
_NONE = object()
_canonical = msgspec.msgpack.Encoder(order="deterministic").encode


def same(one: Any, other: Any) -> bool:
    """Are two JSON-like values the same? 1, 1.0 and True are three values."""
    return bool(one == other) and _canonical(one) == _canonical(other)


def check_on_conflict(value: object) -> OnConflict:
    """Raise InvalidConfig for what settles no conflict."""
    if callable(value):
        return value
    if value in (REFUSE, OURS, THEIRS):
        return str(value)
    raise InvalidConfig(
        f"on_conflict cannot be {value!r:.80}", hint='say "refuse", "ours", "theirs", or give a function of a Conflict'
    )


class Merged(msgspec.Struct, frozen=True):
    """The outcome: `fields` (None: no record) is what both sides shall have; `conflict` what had to be settled."""

    fields: Fields | None
    conflict: Conflict | None = None


def merge(
    key: tuple[str, str], base: Fields | None, ours: Fields | None, theirs: Fields | None, on_conflict: OnConflict
) -> Merged:
    """Merge a record. With "refuse", the fields of a conflict are those of `theirs`. Calls `on_conflict` if it can."""
    if same(ours, theirs) or same(ours, base):
        return Merged(theirs)
    if same(theirs, base):
        return Merged(ours)
    if base is None or ours is None or theirs is None:
        return _settled(Conflict(*key, (), base, ours, theirs), ours, theirs, on_conflict)
    ours_first, theirs_first, both = dict(theirs), dict(theirs), []
    for name in sorted({*base, *ours}):
        was, mine, other = base.get(name, _NONE), ours.get(name, _NONE), theirs.get(name, _NONE)
        if _alike(mine, was) or _alike(mine, other):
            continue
        _set(ours_first, name, mine)
        if _alike(other, was):
            _set(theirs_first, name, mine)
        else:
            both.append(name)
    if both:
        return _settled(Conflict(*key, tuple(both), base, ours, theirs), ours_first, theirs_first, on_conflict)
    return Merged(ours_first)


def _alike(one: Any, other: Any) -> bool:
    return one is other or (one is not _NONE and other is not _NONE and same(one, other))


def _set(fields: Fields, name: str, value: Any) -> None:
    if value is _NONE:
        fields.pop(name, None)
    else:
        fields[name] = value


def _settled(conflict: Conflict, ours: Fields | None, theirs: Fields | None, on_conflict: OnConflict) -> Merged:
    if on_conflict == OURS:
        return Merged(ours, conflict)
    if isinstance(on_conflict, str):
        return Merged(theirs, conflict)
    chosen = on_conflict(conflict)
    if chosen is not None and not isinstance(chosen, Mapping):
        raise InvalidConfig(
            f"on_conflict returned {chosen!r:.80} for {conflict.resource_type} {conflict.id[:80]!r}",
            hint="return the fields that the record shall have, or None to delete it",
        )
    return Merged(dict(chosen) if chosen is not None else None, conflict)
