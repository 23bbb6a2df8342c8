"""The checks of a switch that ask an index what it is about: links, violations; and whether a group is of one piece.

    LINKS          a graph has no edge to a record that is not there
    VIOLATIONS     no rule is violated more often than in the live index
    SAME_RECORDS   the members of a group that find texts or vectors hold the same versions of the same records

Each runs in the host, in the slices of the queries that it asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from shadowswitch.model.digest import Digest, bucket_of, key_hash
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.storage.backends.kinds import kinds_of
from shadowswitch.storage.backends.kv.reader import Slices
from shadowswitch.storage.backends.protocol import IndexReader, Marking
from shadowswitch.storage.clock import Clock

LINKS, VIOLATIONS, SAME_RECORDS = "LINKS", "VIOLATIONS", "SAME_RECORDS"
KIND = {LINKS: "graph", VIOLATIONS: "violations"}
"""The query kind that a check needs."""
NAMED = 5
"""Findings that are named; of the others there is the number."""
TRIES, PAUSE_S = 3, 0.2
"""A change that one index shows and the other one does not yet is none of the index."""


def answers(check: str, reader: IndexReader) -> bool:
    """Whether an index can be checked."""
    return KIND[check] in kinds_of(reader)


def links(reader: Any, asking: Asking) -> list[str]:
    """The findings of LINKS. Raises Timeout."""
    found = reader.dangling(asking, NAMED + 1)
    shown = [
        f"{'/'.join(one.record)} links {'/'.join(one.source)} with {'/'.join(one.target)}" for one in found[:NAMED]
    ]
    more = ["there are more"] if len(found) > NAMED else []
    return [f"{text}, and not both are there" for text in shown] + more


def violations(reader: Any, live: Any | None, asking: Asking, clock: Clock) -> list[str]:
    """The findings of VIOLATIONS; none without a live index to compare with. Raises Timeout."""
    if live is None:
        return []
    grown: list[str] = []
    for tried in range(TRIES):
        if tried:
            clock.sleep(PAUSE_S)
        now, before = reader.counts(asking), live.counts(asking)
        grown = [
            f"{rule} is violated {count} times, and {before.get(rule, 0)} times in the live index"
            for rule, count in now.items()
            if count > before.get(rule, 0)
        ]
        if not grown:
            break
    return grown[:NAMED] + ([f"so are {len(grown) - NAMED} other rules"] if len(grown) > NAMED else [])


class Member(NamedTuple):
    """An index of a group, and what it was built with."""

    name: str
    reader: IndexReader
    shards: int
    resource_types: Sequence[str]


def same_records(members: Sequence[Member], asking: Asking) -> list[str]:
    """The findings of SAME_RECORDS, for the indexes of one branch that find texts or vectors: of each with the first
    one. All are as of one LSN. Raises Timeout."""
    finding = [one for one in members if isinstance(one.reader, Marking) or "vector" in kinds_of(one.reader)]
    if len(finding) < 2:
        return [f"fewer than two members of the branch find texts or vectors: {', '.join(one.name for one in members)}"]
    found: list[str] = []
    for first, other in pairwise(finding):
        types = sorted(set(first.resource_types) ^ set(other.resource_types))
        if types:
            found.append(
                f"{first.name} and {other.name} were not built with the same resource types: {', '.join(types)}"
            )
            continue
        differing = _digest(first).differing(_digest(other))
        if differing:
            found.append(_unlike(first, other, differing[0], asking))
    return found


def _digest(member: Member) -> Digest:
    digest = Digest()
    for shard in range(member.shards):
        state, versions = member.reader.shard_versions(shard)
        _end(versions)
        digest.merge(state.digest)
    return digest


def _versions(member: Member, bucket: int, asking: Asking) -> Iterator[tuple[Key, int]]:
    slices = Slices(asking.time_limit)
    for shard in range(member.shards):
        _, versions = member.reader.shard_versions(shard)
        try:
            for resource_type, id, lsn in versions:
                slices.count()
                if bucket_of(key_hash(resource_type, id)) == bucket:
                    yield (resource_type, id), lsn
        finally:
            _end(versions)


def _unlike(first: Member, other: Member, bucket: int, asking: Asking) -> str:
    """Names a record of a bucket that differs."""
    ours, theirs = (dict(_versions(side, bucket, asking)) for side in (first, other))
    for key, lsn in ours.items():
        if key not in theirs:
            return f"{'/'.join(key)} of {first.name} is not in {other.name}"
        if theirs[key] != lsn:
            return f"{'/'.join(key)} has the LSN {theirs[key]} in {other.name}, and {lsn} in {first.name}"
    key = next(key for key in theirs if key not in ours)
    return f"{'/'.join(key)} of {other.name} is not in {first.name}"


def _end(versions: Any) -> None:
    with contextlib.suppress(AttributeError):
        versions.close()
