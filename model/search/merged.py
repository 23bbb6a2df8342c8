"""Hits of several indexes in one list, and hits by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shadowswitch.model.records import Hit

RANK_K = 60
"""So much weighs a rank less than the one before: the constant of the paper."""
Index = tuple[str, str]
"""A branch and an index type."""


class MergedHit(msgspec.Struct, frozen=True):
    """A record that one or several indexes of a branch find. `score` orders the list; `hit` is that of `index_type`,
    in which the record has its best rank, and `hit.score` that of this index. `index_types` are all that find it."""

    branch_name: str
    index_type: str
    score: float
    hit: Hit
    index_types: tuple[str, ...] = ()


class SearchPage(msgspec.Struct, frozen=True):
    """Some hits of a search; `cursor` is the argument for the next page, None at the end."""

    hits: list[Hit]
    cursor: str | None
    lsn: int
    """Every change up to here was visible when the first page was made."""
    generation: int


def merge_by_rank(found: Mapping[Index, Sequence[Hit]], limit: int) -> list[MergedHit]:
    """The best records of all lists, by reciprocal rank: the first of a list has 1/61, the second 1/62.

    A record has the sum of what it has in the indexes of its branch.

    Scores of different indexes do not compare: their texts, weights and backends differ. Equal sums are in the order
    of branch, index type and key. Cormack, Clarke, Buettcher: Reciprocal Rank Fusion, SIGIR 2009.
    """
    ranked: dict[tuple[str, str, str], list[tuple[int, str, Hit]]] = {}
    for (branch, index_type), hits in found.items():
        for rank, hit in enumerate(hits, 1):
            ranked.setdefault((branch, hit.resource_type, hit.id), []).append((rank, index_type, hit))
    merged = []
    for (branch, _, _), places in ranked.items():
        _, index_type, hit = min(places, key=lambda place: place[:2])
        score = sum(1 / (RANK_K + rank) for rank, _, _ in places)
        merged.append(MergedHit(branch, index_type, score, hit, tuple(place[1] for place in places)))
    merged.sort(key=lambda one: (-one.score, one.branch_name, one.index_type, one.hit.resource_type, one.hit.id))
    return merged[:limit]
