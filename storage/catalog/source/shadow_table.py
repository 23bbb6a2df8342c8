"""Shadows by page and by number: what is read costs as much as what is asked for, however many shadows there are.

The key of a row is the shadow's id, which has no order. So the engine keeps order, branch and state of each shadow in
memory: about 300 bytes each. Nothing is stored. The first look, at the start, reads the head of every row, each later
one the rows that transactions have put or removed since (`DirtySet.take_shadows`). Only for a catalog that no other
process writes. Rows of ended shadows stay for days, so a start reads no more of a shadow at rest than its head.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import lmdb

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowHead, ShadowRow, decode_shadow_head
from shadowswitch.storage.clock import Moment

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
    rests: Moment | None
    """The end of a shadow at rest."""


def shadow_heads(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[ShadowHead]:
    """The head of every shadow, in no order, valid inside the transaction. Costs 4 us each. Raises CorruptData."""
    return (decode_shadow_head(value) for _, value in txn.cursor(catalog.db["shadows"]))


def stored_shadows(catalog: Catalog, wanted: Callable[[ShadowHead], bool]) -> list[ShadowRow]:
    """The shadows with such a head, oldest first; no other row is decoded. Raises CorruptData.

    For a catalog without a ShadowTable: its cost grows with the number of all shadows.
    """
    with catalog.read() as txn:
        values = ((value, decode_shadow_head(value)) for _, value in txn.cursor(catalog.db["shadows"]))
        found = [catalog.lists.shadow(value, txn) for value, head in values if wanted(head)]
    return sorted(found, key=lambda row: row.generation)


class ShadowTable:
    """The shadows of a catalog by generation number, of each branch and in each state. Any thread."""

    def __init__(self, catalog: Catalog, dropped: set[int]) -> None:
        """`dropped` are the branches whose shadows count no more. It may grow."""
        self._catalog = catalog
        self.dropped = dropped
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._known: dict[str, _Known] = {}
        self._names: dict[int, str] = {}
        self._lists: dict[tuple[int | None, ShadowState | None], list[Place]] = {}
        """The places in ascending order by branch and state; None: any."""
        self._unsound: set[int] = set()
        self._standing: set[Place] = set()
        self._token = 0

    def unsound(self) -> set[int]:
        """The generations with an error. Raises CorruptData."""
        with self._lock:
            self._look()
            return self._unsound.copy()

    def standing(self, states: Collection[ShadowState] = tuple(ShadowState)) -> list[ShadowRow]:
        """The shadows in these states that are not at rest, also of dropped branches, oldest first.

        Costs as much as there are of them. Raises CorruptData.
        """
        with self._lock:
            self._look()
            ids = [id for _, id in sorted(self._standing)]
        return [row for start in range(0, len(ids), SLICE) for row in self._read(ids[start : start + SLICE], states)]

    def at_rest(self) -> dict[str, Moment]:
        """The ended shadows whose files are gone, with the moment of that. Decodes no row. Raises CorruptData."""
        with self._lock:
            self._look()
            return {id: known.rests for id, known in self._known.items() if known.rests is not None}

    def token(self) -> int:
        """No shadow has, or had since the start, a higher token. Decodes no row. Raises CorruptData."""
        with self._lock:
            self._look()
            return self._token

    def ids_of(self, branch: int) -> list[str]:
        """The ids of the shadows of a branch, also of a dropped one. Decodes no row. Raises CorruptData."""
        with self._lock:
            self._look()
            return [id for _, id in self._lists.get((branch, None), ())]

    def count(self, branch: int | None = None) -> dict[str, int]:
        """How many shadows there are by state, of one branch or of all; O(1). Raises CorruptData."""
        with self._lock:
            self._look()
            return self._count(branch)

    def count_by_branch(self) -> dict[str, dict[str, int]]:
        """How many shadows there are by the name of the branch and the state. Costs 2 us for each of these branches."""
        with self._lock:
            self._look()
            names = {number: name for number, name in self._names.items() if number not in self.dropped}
            branches = {name: self._count(number) for number, name in names.items()}  # a name may be given again
        return {name: counts for name, counts in branches.items() if counts}

    def _count(self, branch: int | None) -> dict[str, int]:
        gone = [number for number in list(self.dropped) if number in self._names]
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
                names = [self._names[number] if number not in self.dropped else None for number in branches]
            if not places:
                return
            at = places[-1]
            if wanted is not None:  # outside of the lock: it is a function of the caller
                for name in {name for name in names if name is not None and name not in reached}:
                    reached[name] = wanted(name)
            ids = [
                id for (_, id), name in zip(places, names, strict=True) if name is not None and reached.get(name, True)
            ]
            for row in self._read(ids, tuple(ShadowState) if state is None else (state,)):
                limit = limit - 1 if limit is not None else None
                yield row

    def _read(self, ids: list[str], states: Collection[ShadowState]) -> list[ShadowRow]:
        """These shadows, without those that have left these states."""
        if not ids:
            return []
        with self._catalog.read() as txn:
            values = [txn.get(id.encode(), db=self._catalog.db["shadows"]) for id in ids]
            found = [self._catalog.lists.shadow(value, txn) for value in values if value is not None]
        return [row for row in found if row.state in states]

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
                    self._fill(map(self._note, shadow_heads(self._catalog, txn)))
                    return
                for id in changed:
                    value = txn.get(id.encode(), db=self._catalog.db["shadows"])
                    self._remove(id)
                    if value is not None:
                        known = self._note(decode_shadow_head(value))
                        for key in _keys(known.branch, known.state):
                            insort(self._lists.setdefault(key, []), known.place)
        except BaseException:
            self._catalog.dirty.forget_shadows()
            raise

    def _fill(self, shadows: Iterable[_Known]) -> None:
        alike: dict[tuple[int, ShadowState], list[Place]] = {}
        for known in shadows:
            alike.setdefault((known.branch, known.state), []).append(known.place)
        for (branch, state), places in alike.items():
            places.sort()
            for key in _keys(branch, state):
                self._lists.setdefault(key, []).extend(places)
        for places in self._lists.values():
            places.sort()  # of a few ascending runs

    def _note(self, head: ShadowHead) -> _Known:
        rests = head.ended_at if head.at_rest else None
        known = _Known((head.generation, head.id), head.branch, head.state, head.error is not None, rests)
        self._known[head.id] = known
        if known.unsound:
            self._unsound.add(head.generation)
        if rests is None:
            self._standing.add(known.place)
        self._names[head.branch] = head.branch_name
        self._token = max(self._token, head.token)
        return known

    def _remove(self, id: str) -> None:
        known = self._known.pop(id, None)
        if known is None:
            return
        self._standing.discard(known.place)
        if known.unsound:
            self._unsound.discard(known.place[0])
        for key in _keys(known.branch, known.state):
            places = self._lists[key]
            del places[bisect_left(places, known.place)]
            if not places:
                del self._lists[key]
        if (known.branch, None) not in self._lists:
            del self._names[known.branch]


def _keys(branch: int, state: ShadowState) -> list[tuple[int | None, ShadowState | None]]:
    return [(None, None), (None, state), (branch, None), (branch, state)]
