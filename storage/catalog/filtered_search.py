"""The fields of hits, and filters on those that an index does not hold: as of the version that the index shows.

The index names the version of a hit by its LSN. The record of that LSN is in the catalog while it is the newest one;
after that it is in the journal until it is trimmed. Where neither has it, a later version was written that the index
does not show yet: the search is made again until it does. So a filter is never answered from another version.

The windows of hits grow until enough of them pass, or there are no more. Each answer is made from one window, that is
from one search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from shadowswitch.model.errors import Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.search.where import Where
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import get_record, read_version
from shadowswitch.storage.clock import Clock

WINDOW_MIN = 64
GROWTH = 8
"""The searches before the last one cost together a seventh of it."""
SLICE_HITS = 64
"""Hits looked up before another thread gets the GIL: about a millisecond."""
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

    def fields(self, hit: Hit) -> Mapping[str, Any]:
        """The fields of a record as of the version of a hit. Raises Behind, CorruptData."""
        record = get_record(self._catalog, self._branch, hit.resource_type, hit.id.encode())
        if record is not None and record.lsn == hit.lsn:
            return record.fields
        fields = read_version(self._catalog, self._branch, hit.resource_type, hit.id, hit.lsn)
        if fields is None:
            raise Behind
        return fields


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
        self._looked_up = 0

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
        passed = []
        for hit in hits:
            if self._passes(hit):
                passed.append(hit)
                if len(passed) == wanted:
                    break
        return passed

    def _passes(self, hit: Hit) -> bool:
        key = (hit.resource_type, hit.id, hit.lsn)
        known = self._known.get(key)
        if known is None:
            self._looked_up += 1
            if self._looked_up % SLICE_HITS == 0:
                self._time_limit.check()
                self._versions.clock.sleep(0)
            known = self._known[key] = self._where.matches(self._versions.fields(hit))
        return known
