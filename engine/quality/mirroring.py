"""Mirroring: a share of the queries of live readers is asked of the newest BUILT shadow of the index as well.

A reader notes a query and goes on. Every two seconds a worker process asks both indexes what was noted since, as
`compare` does, so that neither readers nor the host are busy with it. What is noted while there is no BUILT shadow, or
beyond the most of one round, is dropped: mirroring never queues up.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from shadowswitch.actors.kit.service_thread import ServiceThread
from shadowswitch.actors.switch.comparison import is_unicode
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError
from shadowswitch.model.search.comparison import ComparisonRow, Mirrored

logger = logging.getLogger("shadowswitch")

PERIOD_S = 2.0
QUERIES_MAX = 100
"""Of one index, in one round."""
SHADOWS_MAX = 100
"""The sums of the last shadows are kept."""
JOIN_S = 5.0

Index = tuple[int, str]
"""The number of a branch, and an index type."""
Ask = Callable[[Index, Sequence[str]], "tuple[str, list[ComparisonRow]] | None"]
"""Asks both indexes; the id of the shadow and the rows, or None without a BUILT shadow."""


class Mirrors(ServiceThread):
    """The mirrored queries of an engine. `note` and `of`: any thread."""

    def __init__(self, share: float) -> None:
        super().__init__("mirror")
        self._share = share
        self._chance = random.Random()
        self._lock = threading.Lock()
        self._noted: dict[Index, deque[str]] = {}
        self._sums: dict[str, Mirrored] = {}
        self._ask: Ask = lambda index, queries: None
        self._ended = threading.Event()

    def begin(self, ask: Ask) -> None:
        """Start the thread, if anything is to be mirrored."""
        self._ask = ask
        if self._share > 0:
            self.start()

    def note(self, index: Index, query: str) -> None:
        """A reader of the live index has asked a query: about a microsecond."""
        if self._share > 0 and self._chance.random() < self._share and is_unicode(query) and query.strip():
            with self._lock:
                self._noted.setdefault(index, deque(maxlen=QUERIES_MAX)).append(query)

    def of(self, shadow_index_id: str) -> Mirrored | None:
        """What the mirrored queries of a shadow say so far."""
        with self._lock:
            return self._sums.get(shadow_index_id)

    def close(self) -> None:
        """End behind the round that runs; the engine ends its worker. Idempotent."""
        self._ended.set()
        if self._share > 0:
            self.join(JOIN_S)

    def run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            with self._lock:
                noted, self._noted = self._noted, {}
            for index, queries in noted.items():
                if self._ended.is_set():
                    return
                self._round(index, list(queries))

    def _round(self, index: Index, queries: list[str]) -> None:
        try:
            found = self._ask(index, queries)
        except EngineClosed:
            return
        except ShadowSwitchError as error:  # a switch, a cancel, a shadow that is damaged: it says so elsewhere
            logger.info("queries of %s were not mirrored: %s", index[1], error)
            return
        if found is not None:
            with self._lock:
                id, rows = found
                self._sums[id] = added(self._sums.pop(id, None), rows)
                while len(self._sums) > SHADOWS_MAX:
                    del self._sums[next(iter(self._sums))]


def added(sums: Mirrored | None, rows: Sequence[ComparisonRow]) -> Mirrored:
    """The sums with more queries."""
    sums = sums or Mirrored(0, 0.0, 0, 0, 0, 0.0, 0.0)
    count = sums.queries + len(rows)
    if not rows:
        return sums

    def mean(before: float, values: Sequence[float]) -> float:
        return (before * sums.queries + sum(values)) / count

    return msgspec.structs.replace(
        sums,
        queries=count,
        overlap=mean(sums.overlap, [row.overlap for row in rows]),
        live_zero=sums.live_zero + sum(not row.live for row in rows),
        shadow_zero=sums.shadow_zero + sum(not row.shadow for row in rows),
        lost=sums.lost + sum(bool(row.live) and not row.shadow for row in rows),
        live_ms=mean(sums.live_ms, [row.live_ms for row in rows]),
        shadow_ms=mean(sums.shadow_ms, [row.shadow_ms for row in rows]),
    )
