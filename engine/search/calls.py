"""Search: the calls beyond one answer of one index. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shadowswitch.engine.arguments import check_seconds
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.reader import Reader
from shadowswitch.engine.search.held_pages import HITS_MAX, Held, HeldPages
from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import check_page
from shadowswitch.model.search.merged import Index, MergedHit, SearchPage, merge_by_rank
from shadowswitch.storage.clock import Clock

INDEXES_MAX = 100
SEARCH_INDEX = "SEARCH_INDEX"
OpenReader = Callable[..., Reader]
"""As `Engine.reader`."""


class SearchCalls:
    """See the module."""

    def __init__(self, state: OpenState, reader: OpenReader, clock: Clock, search_timeout_s: float) -> None:
        self._state = state
        self._reader = reader
        self._clock = clock
        self._search_timeout_s = search_timeout_s
        self._pages = HeldPages(clock)

    def search_many(
        self,
        query: str,
        indexes: Sequence[str | Index],
        limit: int = 10,
        *,
        resource_types: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        fields: Sequence[str] | bool | None = None,
        highlight: bool = False,
        timeout_s: float | None = None,
    ) -> list[MergedHit]:
        """The best hits of several indexes, in one list, by their rank in each (see `model.search.merged`): of texts by
        their words, and of a vector index that embeds by the nearest. A record that several indexes of a branch find is
        one hit.

        `indexes` are names of branches, whose SEARCH_INDEX is meant, or pairs of branch and index type. Each answers as
        it is at its own moment. `timeout_s` is for all of them. The rest is as in `Reader.search`.

        Raises as `Engine.reader` and `Reader.search`, and InvalidConfig for no index, or more than 100.
        """
        self._state.check()
        check_page(limit, 0)
        wanted = check_indexes(indexes)
        deadline = self._deadline(timeout_s)
        found: dict[Index, list[Hit]] = {}
        for branch, index_type in wanted:
            left_s = self._left(deadline)
            with self._reader(branch, index_type, None, left_s) as reader:
                found[branch, index_type] = reader.search(
                    query, limit, resource_types=resource_types, where=where, fields=fields, highlight=highlight,
                    timeout_s=self._left(deadline),
                )  # fmt: skip
        return merge_by_rank(found, limit)

    def search_pages(
        self,
        branch: str,
        index_type: str,
        query: str,
        limit: int = 10,
        *,
        resource_types: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        fields: Sequence[str] | bool | None = None,
        highlight: bool = False,
        min_lsn: int | None = None,
        timeout_s: float | None = None,
    ) -> SearchPage:
        """The first page of a search whose order stays: later pages neither repeat nor miss a hit, whatever is written.

        `next_page` of its `cursor` gives the next one, up to 1,000 hits. The order is held in memory for 300 s behind
        the last page, and until the engine closes; of more than 100 searches the oldest is let go. A later page shows
        each hit as it was found: its fields are those of that version, and are left out once that is gone. The rest is
        as in `Reader.search`. Raises as `Engine.reader` and `Reader.search`.
        """
        self._state.check()
        check_page(limit, 0)
        deadline = self._deadline(timeout_s)
        with self._reader(branch, index_type, min_lsn, self._left(deadline)) as reader:
            hits = reader.search(
                query, max(limit, HITS_MAX), resource_types=resource_types, where=where, timeout_s=self._left(deadline)
            )
            first, later = hits[:limit], hits[limit:]
            shown = reader.show(query, first, fields=fields, highlight=highlight)
            held = Held(branch, index_type, query, fields, highlight, later, limit, reader.lsn, reader.generation)
        cursor = self._pages.hold(held) if later else None
        return SearchPage(shown, cursor, held.lsn, held.generation)

    def next_page(self, cursor: str, branch: str | None = None) -> SearchPage:
        """The page of a cursor, which may be asked for again.

        Raises InvalidConfig for a cursor that is not held any more, or of another branch than `branch`, and as
        `Engine.reader`.
        """
        self._state.check()
        held, hits, behind = self._pages.page(cursor, branch)
        with self._reader(held.branch, held.index_type) as reader:
            shown = reader.show(held.query, hits, fields=held.fields, highlight=held.highlight)
        return SearchPage(shown, behind, held.lsn, held.generation)

    def _deadline(self, timeout_s: float | None) -> float:
        seconds = self._search_timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        return self._clock.monotonic() + seconds

    def _left(self, deadline: float) -> float:
        left_s = deadline - self._clock.monotonic()
        if left_s <= 0:
            raise Timeout("the search of several indexes took too long", operation="search", hint="name fewer indexes")
        return left_s


def check_indexes(indexes: Sequence[str | Index]) -> list[Index]:
    """The indexes of a merged search, each once. Raises InvalidConfig."""
    hint = 'name branches, or pairs of branch and index type: ["main", ("main", "GRAPH_INDEX")]'
    if isinstance(indexes, str) or not isinstance(indexes, Sequence):
        raise InvalidConfig("indexes is no list", operation="search", hint=hint)
    found: dict[Index, None] = {}
    for one in indexes:
        pair = (one, SEARCH_INDEX) if isinstance(one, str) else tuple(one) if isinstance(one, Sequence) else ()
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InvalidConfig(f"{one!r:.80} is no index", operation="search", hint=hint)
        found[pair[0], pair[1]] = None
    if not 1 <= len(found) <= INDEXES_MAX:
        raise InvalidConfig(f"{len(found)} indexes", operation="search", hint=f"name 1 to {INDEXES_MAX}")
    return list(found)
