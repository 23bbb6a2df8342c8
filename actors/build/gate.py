"""The gate against surprises: what an index would lack, in words, before it goes live.

`absent` findings (a resource type without records, an index without records, also in place of a live one with many) may
be meant: `SwitchRequest.allow_empty` lets them pass. The others (a field that no record had when the index was built,
far fewer records than the live index) need `force_switch`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from shadowswitch.model.names import did_you_mean, listed

DROP_FLOOR = 100
"""A live index with fewer records may lose all but one."""


class Surprises(msgspec.Struct, frozen=True):
    """What an index would lack."""

    absent: list[str] = []
    others: list[str] = []


def of_types(branch: str, records: Mapping[str, int], present: Collection[str], accepted: Collection[str]) -> list[str]:
    """The types of an index that have no records. `records` are counts by type of the index, `present` the types that
    have records, `accepted` the types of the live index, which was switched to with them."""
    if records and not any(records.values()):
        names = ", ".join(records)
        hint = "".join(did_you_mean(name, present) for name in records) or _present(present)
        return [f"the index would be empty: branch {branch!r} has no records of {names}{hint}"]
    return [
        f"branch {branch!r} has no records of {name!r}{did_you_mean(name, present) or _present(present)}"
        for name, count in records.items()
        if not count and name not in accepted
    ]


def of_fields(shards: Iterable[tuple[Collection[str], Collection[str]]]) -> list[str]:
    """The fields that an index takes and no record had. Each shard gives those that none of its records had when it was
    built, and the fields that its records had: a record may have such a field by now."""
    lacking: set[str] | None = None
    present: set[str] = set()
    for absent, fields in shards:
        lacking = set(absent) if lacking is None else lacking & set(absent)
        present.update(fields)
    if not present:  # no record at all
        return []
    when = "when the index was built"
    return [f"no record had the field {name!r} {when}{did_you_mean(name, present)}" for name in sorted(lacking or ())]


def of_drop(count: int, live: int, kept_min: float) -> list[str]:
    """Would the index have far fewer records than the live one? `kept_min` is the least share that is none."""
    if live < DROP_FLOOR or count >= live * kept_min:
        return []
    return [f"the index would have {count:,} records, the live one has {live:,}"]


def _present(types: Collection[str]) -> str:
    """What there is in place of a type with no near name."""
    if not types:
        return ""
    return f" (it has {listed(types)})"
