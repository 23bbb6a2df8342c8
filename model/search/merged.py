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
    """A hit of one of several indexes. `score` orders the list; `hit.score` is that of its own index."""

    branch_name: str
    index_type: str
    score: float
    hit: Hit


class SearchPage(msgspec.Struct, frozen=True):
    """Some hits of a search; `cursor` is the argument for the next page, None at the end."""

    hits: list[Hit]
    cursor: str | None
    lsn: int
    """Every change up to here was visible when the first page was made."""
    generation: int


def merge_by_rank(found: Mapping[Index, Sequence[Hit]], limit: int) -> list[MergedHit]:
    """The best hits of all lists, by reciprocal rank: the first of a list has 1/61, the second 1/62.

    Scores of different indexes do not compare: their texts, weights and backends differ. Equal ranks are in the order
    of branch, index type and key. Cormack, Clarke, Buettcher: Reciprocal Rank Fusion, SIGIR 2009.
    """
    merged = [
        MergedHit(branch, index_type, 1 / (RANK_K + rank), hit)
        for (branch, index_type), hits in found.items()
        for rank, hit in enumerate(hits, 1)
    ]
    merged.sort(key=lambda one: (-one.score, one.branch_name, one.index_type, one.hit.resource_type, one.hit.id))
    return merged[:limit]
