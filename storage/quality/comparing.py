"""The task of a worker: ask the live index and a shadow the same queries in turn, measure both, and judge.

Judged queries come in an order by chance, the pinned ones first: where there is no time for all, those that were asked
are a fair sample.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shadowswitch.model.errors import CorruptData, InvalidConfig, Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.search.comparison import (
    AskedFrom,
    BothNdcg,
    ComparisonRow,
    Summary,
    ZeroResults,
    keys_of,
)
from shadowswitch.model.search.judgments import Judgments
from shadowswitch.model.search.relevance import NDCG_HITS, SEED, Measured, judge, ndcg, overlap, rbo
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.quality.judgments import read_judgments
from shadowswitch.storage.reading import Count, Note, no_look, no_note

QUERIES_MAX = 1000
WARM_WORD = "qzxjkvq"
"""Finds nothing: the first query that counts does not pay for the open."""


class Side(msgspec.Struct, frozen=True):
    """An index that is asked."""

    path: str
    shards: int
    backend: str
    options: dict[str, object]


class CompareSides(msgspec.Struct, frozen=True, tag=True):
    """To a worker: compare two indexes of a branch. `queries` None: the judged ones, or else `asked`."""

    live: Side
    shadow: Side
    branch: int
    queries: list[str] | None
    asked: list[str]
    limit: int
    rows_max: int
    budget_s: float
    """The time for reading judgments and for queries."""
    search_timeout_s: float


class SidesCompared(msgspec.Struct, frozen=True, tag=True):
    """Some rows, and the summary over all; None where no query was asked, for there was none, or no time for it."""

    rows: list[ComparisonRow]
    summary: Summary | None
    queries: int
    """Those that there were."""


class _Asking:
    """One comparison. One thread."""

    def __init__(self, task: CompareSides, clock: Clock, reading: Note) -> None:
        self._task = task
        self._clock = clock
        self._reading = reading
        begun = clock.monotonic()
        self._ends, self._middle = begun + task.budget_s, begun + task.budget_s / 2

    def is_past_middle(self) -> bool:
        """Is the time for judgments over?"""
        return self._clock.monotonic() >= self._middle

    def is_late(self) -> bool:
        """Is the time for queries over?"""
        return self._clock.monotonic() >= self._ends

    @contextlib.contextmanager
    def opened(self, side: Side) -> Iterator[IndexReader]:
        """A reader of an index, warm."""
        self._reading(Path(side.path))
        paths = shard_paths(Path(side.path), side.shards)
        with contextlib.closing(registry.backend(side.backend).open_reader(paths, side.options)) as reader:
            with contextlib.suppress(Timeout, InvalidConfig):
                self._search(side, reader, WARM_WORD)
            yield reader

    def _search(self, side: Side, reader: IndexReader, query: str) -> list[Hit]:
        self._reading(Path(side.path))
        left_s = max(0.001, min(self._task.search_timeout_s, self._ends - self._clock.monotonic()))
        try:
            most = max(self._task.limit, NDCG_HITS)
            return reader.search(query, most, time_limit=TimeLimit(left_s, self._clock.monotonic))
        except CorruptData as error:
            raise CorruptData(error.message, object=side.path, hint=error.hint) from error

    def ask(self, side: Side, reader: IndexReader, query: str) -> tuple[list[Hit], float, str]:
        """The hits, the milliseconds, and why there are none: the search was stopped, or refused by the index."""
        begun, stopped = self._clock.monotonic(), ""
        try:
            hits = self._search(side, reader, query)
        except (Timeout, InvalidConfig) as error:
            hits, stopped = [], error.message
        return hits, (self._clock.monotonic() - begun) * 1000, stopped


def compare_sides(
    catalog: Catalog, task: CompareSides, clock: Clock, reading: Note = no_note, looked: Count = no_look
) -> SidesCompared:
    """Ask as many queries as there is time for. Raises CorruptData with the path of the index."""
    asking = _Asking(task, clock, reading)
    judgments = read_judgments(catalog, task.branch, looked, asking.is_past_middle)
    queries, asked_from = _chosen(task, judgments)
    rows, measured = [], []
    with asking.opened(task.live) as live, asking.opened(task.shadow) as shadow:
        for number, query in enumerate(queries[:QUERIES_MAX]):
            if asking.is_late():
                break
            row, found = _row(asking, task, judgments, query, live, shadow, live_first=number % 2 == 0)
            if row.stopped and asking.is_late():
                break  # by the end of the comparison, and not by that of a search
            rows.append(row)
            measured.append(found)
            looked(0)
    if not rows:
        return SidesCompared([], None, len(queries))
    summary = _summary(rows, measured, judgments, asked_from, len(queries) - len(rows))
    if asked_from == AskedFrom.JUDGMENTS:
        rows.sort(key=lambda row: row.ndcg.shadow - row.ndcg.live if row.ndcg is not None else 0.0)
    return SidesCompared(rows[: task.rows_max], summary, len(queries))


def _chosen(task: CompareSides, judgments: Judgments) -> tuple[list[str], AskedFrom]:
    if task.queries is not None:
        return list(dict.fromkeys(task.queries)), AskedFrom.CALLER
    judged = judgments.judged()
    if not judged:
        return list(dict.fromkeys(task.asked)), AskedFrom.READERS
    pinned = [query for query in judged if query in judgments.pinned]
    others = judged[len(pinned) :]
    random.Random(SEED).shuffle(others)
    return pinned + others, AskedFrom.JUDGMENTS


def _row(
    asking: _Asking, task: CompareSides, judgments: Judgments, query: str, live: IndexReader, shadow: IndexReader,
    live_first: bool,
) -> tuple[ComparisonRow, Measured]:  # fmt: skip
    """The index that is asked first changes from query to query, so that neither finds the other's pages warm."""
    if live_first:
        before, after = asking.ask(task.live, live, query), asking.ask(task.shadow, shadow, query)
    else:
        after, before = asking.ask(task.shadow, shadow, query), asking.ask(task.live, live, query)
    grades = judgments.grades.get(query, {})
    gained = [ndcg(keys_of(hits), grades) for hits, _, _ in (before, after)]
    both = BothNdcg(gained[0], gained[1]) if gained[0] is not None and gained[1] is not None else None
    old, new = before[0][: task.limit], after[0][: task.limit]
    one, other, pinned = keys_of(old), keys_of(new), query in judgments.pinned
    whys = [f"{name}: {why}" for name, why in (("live", before[2]), ("shadow", after[2])) if why]
    row = ComparisonRow(
        query, old, new, overlap(one, other), rbo(one, other), both, before[1], after[1], pinned, "; ".join(whys)
    )
    return row, Measured(query, len(one), len(other), gained[0], gained[1], pinned)


def _summary(
    rows: list[ComparisonRow], measured: list[Measured], judgments: Judgments, asked_from: AskedFrom, left_out: int
) -> Summary:
    judged = [row.ndcg for row in rows if row.ndcg is not None]
    mean, median = statistics.fmean, statistics.median
    both = BothNdcg(mean(one.live for one in judged), mean(one.shadow for one in judged)) if judged else None
    empty = [(not row.live, not row.shadow) for row in rows]
    return Summary(
        asked_from=asked_from,
        queries=len(rows),
        left_out=left_out,
        overlap=mean(row.overlap for row in rows),
        rbo=mean(row.rbo for row in rows),
        ndcg=both,
        live_ms=median(row.live_ms for row in rows),
        shadow_ms=median(row.shadow_ms for row in rows),
        zero_results=ZeroResults(
            sum(live for live, _ in empty),
            sum(shadow for _, shadow in empty),
            sum(shadow and not live for live, shadow in empty),
        ),
        verdict=judge(measured),
        wrong_judgments=judgments.wrong,
        judgments_left_out=judgments.left_out,
    )
