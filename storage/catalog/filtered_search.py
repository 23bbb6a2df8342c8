"""The fields of hits, and filters on those that an index does not hold: as of the version that the index shows.

The index names the version of a hit by its LSN. The record of that LSN is in the catalog while it is the newest one;
after that it is in the journal until it is trimmed. Where neither has it, a later version was written that the index
does not show yet: the search is made again until it does. So a filter is never answered from another version.

The windows of hits grow until enough of them pass, or there are no more. Each answer is made from one window, that is
from one search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from shadowswitch.model.errors import Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.search.where import Where
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import get_records, read_version
from shadowswitch.storage.clock import Clock

WINDOW_MIN = 256
"""Enough for a page of ten where a tenth passes: a second search costs more than the rows of a larger first one."""
GROWTH = 8
"""The searches before the last one cost together a seventh of it."""
SLICE_HITS = 64
"""Hits looked up in one transaction, before another thread gets the GIL: about half a millisecond."""
PAUSE_S = 0.02
"""Until the index is asked again whether it shows a later version."""

Key = tuple[str, str, int]
T = TypeVar("T")


class Behind(Exception):
    """The version of a hit is gone: a later one was written, which the index does not show yet."""


class Versions:
    """The records of one branch, by version. Any thread."""

    def __init__(self, catalog: Catalog, branch: int, clock: Clock) -> None:
        self._catalog = catalog
        self._branch = branch
        self.clock = clock

    def of(self, hits: Sequence[Hit], time_limit: TimeLimit) -> Iterator[Mapping[str, Any] | None]:
        """The fields of each record as of the version of its hit; None where that version is gone.

        Raises CorruptData, Timeout.
        """
        for first in range(0, len(hits), SLICE_HITS):
            if first:
                time_limit.check()
                self.clock.sleep(0)
            part = hits[first : first + SLICE_HITS]
            records = get_records(self._catalog, self._branch, [(hit.resource_type, hit.id.encode()) for hit in part])
            for hit, record in zip(part, records, strict=True):
                if record is not None and record.lsn == hit.lsn:
                    yield record.fields
                else:
                    yield read_version(self._catalog, self._branch, hit.resource_type, hit.id, hit.lsn)


def answered(ask: Callable[[], T], versions: Versions, time_limit: TimeLimit) -> T:
    """The answer of `ask`, which is asked again while it raises Behind. Raises Timeout."""
    behind = False
    while True:
        try:
            if behind:
                time_limit.check()
            return ask()
        except Behind:
            behind = True
            versions.clock.sleep(PAUSE_S)
        except Timeout as late:
            if not behind:
                raise
            raise Timeout(
                "a record was written again, and the index does not show that yet: the search cannot read its fields",
                operation="search",
                hint="try again; a reader that was opened before a switch may follow no more, so open another",
            ) from late


class FilteredSearch:
    """One search with a filter on fields that the index does not hold. One thread."""

    def __init__(
        self, search: Callable[[int], list[Hit]], versions: Versions, where: Where, time_limit: TimeLimit
    ) -> None:
        """`search` gives the best hits, of a number of them, with every other filter applied."""
        self._search = search
        self._versions = versions
        self._where = where
        self._time_limit = time_limit
        self._known: dict[Key, bool] = {}

    def page(self, limit: int, offset: int) -> list[Hit]:
        """The best hits that pass, behind the first `offset`. Raises Timeout, CorruptData."""
        wanted = offset + limit
        window = max(WINDOW_MIN, 2 * wanted)
        while True:
            hits, passed = answered(partial(self._window, window, wanted), self._versions, self._time_limit)
            if len(passed) == wanted or len(hits) < window:
                return passed[offset:]
            window *= GROWTH

    def _window(self, window: int, wanted: int) -> tuple[list[Hit], list[Hit]]:
        hits = self._search(window)
        return hits, self._passing(hits, wanted)

    def _passing(self, hits: list[Hit], wanted: int) -> list[Hit]:
        unknown = [hit for hit in hits if _key(hit) not in self._known]
        fields = self._versions.of(unknown, self._time_limit)
        passed = []
        for hit in hits:
            if self._passes(hit, fields):
                passed.append(hit)
                if len(passed) == wanted:
                    break
        return passed

    def _passes(self, hit: Hit, fields: Iterator[Mapping[str, Any] | None]) -> bool:
        """`fields` gives those of the next hit that is not known."""
        known = self._known.get(_key(hit))
        if known is None:
            found = next(fields)
            if found is None:
                raise Behind
            known = self._known[_key(hit)] = self._where.matches(found)
        return known


def _key(hit: Hit) -> Key:
    return hit.resource_type, hit.id, hit.lsn
