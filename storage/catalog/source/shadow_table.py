"""Shadows by page and by number: what is read costs as much as what is asked for, however many shadows there are.

The key of a row is the shadow's id, which has no order. So the engine keeps order, branch and state of each shadow in
memory: about 300 bytes each. Nothing is stored. The first look reads every row, each later one the rows that
transactions have put or removed since (`DirtySet.take_shadows`). Only for a catalog that no other process writes.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowRow

SLICE = 500
"""Rows that one transaction reads."""
Place = tuple[int, str]
"""Generation number and shadow id: the place of a shadow in every list."""

BEHIND = "\U0010ffff"
"""No id of a shadow is behind this text."""


class _Known(NamedTuple):
    place: Place
    branch: int
    state: ShadowState
    unsound: bool


class ShadowTable:
    """The shadows of a catalog by generation number, of each branch and in each state. Any thread."""

    def __init__(self, catalog: Catalog, dropped: Collection[int]) -> None:
        """`dropped` are the branches whose shadows count no more. It may grow."""
        self._catalog = catalog
        self._dropped = dropped
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._known: dict[str, _Known] = {}
        self._names: dict[int, str] = {}
        self._lists: dict[tuple[int | None, ShadowState | None], list[Place]] = {}
        """The places in ascending order by branch and state; None: any."""
        self._unsound: set[int] = set()

    def unsound(self) -> set[int]:
        """The generations with an error. Raises CorruptData."""
        with self._lock:
            self._look()
            return self._unsound.copy()

    def count(self, branch: int | None = None) -> dict[str, int]:
        """How many shadows there are by state, of one branch or of all; O(1). Raises CorruptData."""
        with self._lock:
            self._look()
            return self._count(branch)

    def count_by_branch(self) -> dict[str, dict[str, int]]:
        """How many shadows there are by the name of the branch and the state. Costs 2 us for each of these branches."""
        with self._lock:
            self._look()
            names = {number: name for number, name in self._names.items() if number not in self._dropped}
            branches = {name: self._count(number) for number, name in names.items()}  # a name may be given again
        return {name: counts for name, counts in branches.items() if counts}

    def _count(self, branch: int | None) -> dict[str, int]:
        gone = [number for number in list(self._dropped) if number in self._names]
        if branch in gone:
            return {}
        numbers = {state: self._number(branch, state) for state in ShadowState}
        if branch is None:
            numbers = {state: all - sum(self._number(one, state) for one in gone) for state, all in numbers.items()}
        return {str(state): number for state, number in numbers.items() if number}

    def _number(self, branch: int | None, state: ShadowState) -> int:
        return len(self._lists.get((branch, state), ()))

    def pages(
        self,
        branch: int | None = None,
        state: ShadowState | None = None,
        after: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
        wanted: Callable[[str], bool] | None = None,
    ) -> Iterator[ShadowRow]:
        """Up to `limit` shadows behind generation `after`, oldest first, or newest first; 0: from the first one.

        `wanted` is asked for the name of a branch: other shadows are not read. Raises CorruptData.
        """
        reached: dict[str, bool] = {}
        at: Place | None = (after, "" if newest_first else BEHIND) if after else None
        while limit is None or limit > 0:
            with self._lock:
                self._look()
                places = self._slice(branch, state, at, min(limit or SLICE, SLICE), newest_first)
                branches = [self._known[id].branch for _, id in places]
                names = [self._names[number] if number not in self._dropped else None for number in branches]
            if not places:
                return
            at = places[-1]
            if wanted is not None:  # outside of the lock: it is a function of the caller
                for name in {name for name in names if name is not None and name not in reached}:
                    reached[name] = wanted(name)
            ids = [
                id for (_, id), name in zip(places, names, strict=True) if name is not None and reached.get(name, True)
            ]
            for row in self._read(ids):
                if state in (None, row.state):
                    limit = limit - 1 if limit is not None else None
                    yield row

    def _read(self, ids: list[str]) -> list[ShadowRow]:
        if not ids:
            return []
        with self._catalog.read() as txn:
            values = [txn.get(id.encode(), db=self._catalog.db["shadows"]) for id in ids]
            return [self._catalog.lists.shadow(value, txn) for value in values if value is not None]

    def _slice(
        self, branch: int | None, state: ShadowState | None, at: Place | None, number: int, newest_first: bool
    ) -> list[Place]:
        places = self._lists.get((branch, state), [])
        if newest_first:
            end = bisect_left(places, at) if at is not None else len(places)
            return places[max(0, end - number) : end][::-1]
        begin = bisect_right(places, at) if at is not None else 0
        return places[begin : begin + number]

    # -- what transactions have changed --------------------------------------------------------------------------------

    def _look(self) -> None:
        changed = self._catalog.dirty.take_shadows()
        if changed is not None and not changed:
            return
        try:
            with self._catalog.read() as txn:
                if changed is None:
                    self._forget()
                    for _, row in txn.cursor(self._catalog.db["shadows"]):
                        self._place(self._catalog.lists.shadow(row, txn))
                    return
                for id in changed:
                    value = txn.get(id.encode(), db=self._catalog.db["shadows"])
                    self._remove(id)
                    if value is not None:
                        self._place(self._catalog.lists.shadow(value, txn))
        except BaseException:
            self._catalog.dirty.forget_shadows()
            raise

    def _place(self, row: ShadowRow) -> None:
        unsound = row.error is not None
        known = self._known[row.id] = _Known((row.generation, row.id), row.branch, row.state, unsound)
        if unsound:
            self._unsound.add(row.generation)
        self._names[row.branch] = row.branch_name
        for key in _keys(known):
            insort(self._lists.setdefault(key, []), known.place)

    def _remove(self, id: str) -> None:
        known = self._known.pop(id, None)
        if known is None:
            return
        if known.unsound:
            self._unsound.discard(known.place[0])
        for key in _keys(known):
            places = self._lists[key]
            del places[bisect_left(places, known.place)]
            if not places:
                del self._lists[key]
        if (known.branch, None) not in self._lists:
            del self._names[known.branch]


def _keys(known: _Known) -> list[tuple[int | None, ShadowState | None]]:
    return [(branch, state) for branch in (None, known.branch) for state in (None, known.state)]
