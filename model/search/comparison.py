"""What `compare` gives: the same queries asked of the live index and of a shadow, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from shadowswitch.model.records import Hit
from shadowswitch.model.search.relevance import Key, Move, Verdict, moves


def keys_of(hits: Sequence[Hit]) -> list[Key]:
    """Which records the hits are, in their order."""
    return [(hit.resource_type, hit.id) for hit in hits]


class BothNdcg(msgspec.Struct, frozen=True):
    """nDCG of the first ten hits, 0 to 1: how near their order is to the best one."""

    live: float
    shadow: float


class ComparisonRow(msgspec.Struct, frozen=True):
    """One query, asked of both indexes.

    `overlap` is the share of the hits that both have, `rbo` the likeness of their order (1: the same). `ndcg` is None
    for a query without judgments. `stopped` says why a search gave no hits: its time, or a bound of the index.
    """

    query: str
    live: list[Hit]
    shadow: list[Hit]
    overlap: float
    rbo: float
    ndcg: BothNdcg | None
    live_ms: float
    shadow_ms: float
    pinned: bool = False
    stopped: str = ""

    @property
    def vanished(self) -> list[Key]:
        """The hits of the live index that the shadow does not have among as many."""
        shadow = set(keys_of(self.shadow))
        return [key for key in keys_of(self.live) if key not in shadow]

    @property
    def new(self) -> list[Key]:
        """The hits of the shadow that the live index does not have among as many."""
        live = set(keys_of(self.live))
        return [key for key in keys_of(self.shadow) if key not in live]

    @property
    def moved(self) -> list[Move]:
        """The hits of both at another rank in the shadow."""
        return moves(keys_of(self.live), keys_of(self.shadow))


class ZeroResults(msgspec.Struct, frozen=True):
    """Queries without a hit: in the live index, in the shadow, and those with hits in the live index only."""

    live: int
    shadow: int
    lost: int


class AskedFrom(StrEnum):
    """Where the queries of a comparison come from."""

    CALLER = "caller"
    JUDGMENTS = "judgments"
    READERS = "readers"
    """The last queries of the readers of the live index."""


class Summary(msgspec.Struct, frozen=True):
    """The means over all queries that were asked. The milliseconds are medians."""

    asked_from: AskedFrom
    queries: int
    left_out: int
    """Queries for which there was no time, or which are beyond the most that one comparison asks."""
    overlap: float
    rbo: float
    ndcg: BothNdcg | None
    live_ms: float
    shadow_ms: float
    zero_results: ZeroResults
    verdict: Verdict
    wrong_judgments: list[str] = []
    """The first ten judgments that are left out, with what is wrong."""
    judgments_left_out: int = 0


class Mirrored(msgspec.Struct, frozen=True):
    """The queries of live readers that were asked of the shadow, too, since the engine was opened: how many, the mean
    overlap of the hits, those without a hit in the live index, in the shadow, in the shadow alone (`lost`), and the
    means of the milliseconds."""

    queries: int
    overlap: float
    live_zero: int
    shadow_zero: int
    lost: int
    live_ms: float
    shadow_ms: float


class Comparison(msgspec.Struct, frozen=True):
    """A shadow beside the live index. `rows` are at most 200: all queries of the caller, or the judged queries that
    lose most, or the last queries of readers. `summary` is over all that were asked."""

    shadow_index_id: str
    branch_name: str
    index_type: str
    live_generation: int
    shadow_generation: int
    rows: list[ComparisonRow]
    summary: Summary
    mirrored: Mirrored | None = None
    """With `Config.mirror_share`: what live queries say so far."""

    @property
    def verdict(self) -> Verdict:
        """Is the shadow better?"""
        return self.summary.verdict
