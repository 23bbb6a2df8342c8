"""The order of searches whose pages are being read: it stays as it was at the first page, whatever is written."""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from shadowswitch.engine.search.showing import Fields
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.records import Hit
from shadowswitch.storage.clock import Clock

HITS_MAX = 1000
"""The hits that one search holds: about 0.2 MB."""
SEARCHES_MAX = 100
"""The oldest one is let go for a new one."""
KEPT_S = 300.0
"""A search is let go so long after its last page."""


_PLACE = re.compile("[0-9]{1,5}")


class Held(NamedTuple):
    """A search: its hits behind the first page, and how they are shown."""

    branch: str
    index_type: str
    query: str
    fields: Fields
    highlight: bool
    hits: Sequence[Hit]
    limit: int
    lsn: int
    generation: int


class HeldPages:
    """The searches by cursor. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[Held, float]] = OrderedDict()

    def hold(self, held: Held) -> str:
        """The cursor of the next page."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._forget()
            while len(self._held) >= SEARCHES_MAX:
                self._held.popitem(last=False)
            self._held[name] = held, self._clock.monotonic() + KEPT_S
        return f"{name}.0"

    def page(self, cursor: str, branch: str | None = None) -> tuple[Held, list[Hit], str | None]:
        """The search of a cursor, the hits of its page, and the next cursor. A page may be asked for again.

        Raises InvalidConfig, also for a cursor of another branch than `branch`.
        """
        name, _, place = cursor.rpartition(".") if isinstance(cursor, str) else ("", "", "")
        with self._lock:
            self._forget()
            found = self._held.get(name)
            is_other = found is not None and branch not in (None, found[0].branch)
            if found is None or is_other or not _PLACE.fullmatch(place):
                raise InvalidConfig(
                    f"the cursor {cursor!r:.60} is of no search whose pages are held",
                    operation="search",
                    hint=f"search again from the first page: an order is held for {KEPT_S:.0f} s",
                )
            held = found[0]
            self._held[name] = held, self._clock.monotonic() + KEPT_S
            self._held.move_to_end(name)
        begin, end = int(place), int(place) + held.limit
        return held, list(held.hits[begin:end]), f"{name}.{end}" if end < len(held.hits) else None

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._held and next(iter(self._held.values()))[1] <= now:
            self._held.popitem(last=False)
