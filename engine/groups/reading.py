"""Reading several indexes of a branch together: a view with a reader of each, all as of one LSN.

    pin      the live generation of each, at one look at all pointers: none is seen half moved by a group
    near     the followers of each pause, and each catches up with the head of the branch
    hold     the writers of all are locked, in the order of their numbers. The LSN is chosen; the pointers are looked at
             again, and if one moved, all begins anew (SW-2: no generation is brought ahead of the one that is live now)
    freeze   each applies what is missing up to that LSN, and its reader begins a read transaction in each shard
    release  writers and followers go on; the view shows that LSN for as long as it is open

An open view keeps what it shows: the log of an `fts5` shard grows, and LMDB uses no page of a `kv` shard again. So a
view has an age at which the engine closes it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.live_index import LiveIndex, LiveIndexes
from shadowswitch.engine.arguments import check_seconds, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.indexes import IndexCalls
from shadowswitch.engine.reader import OpenReaders, Reader
from shadowswitch.engine.search.asking import ask_all
from shadowswitch.model.errors import CorruptData, EngineClosed, InvalidConfig, Timeout, UnknownIndex
from shadowswitch.model.names import check_index_type
from shadowswitch.model.search.bounds import SEARCH_TIMEOUT_S, TimeLimit, check_page
from shadowswitch.model.search.merged import MergedHit
from shadowswitch.storage.backends.protocol import FreezingReader
from shadowswitch.storage.catalog.filtered_search import Versions
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.generations.generation import Generation

logger = logging.getLogger("shadowswitch")

AGE_S_MAX = 3600.0
SHUT_S = 0.2
"""The wait for the call that runs in a reader of a view that is too old; the next look closes the others."""
LATE = "try again, or with more time (timeout_s)"


class GroupView:
    """The readers of several indexes of a branch, by index type; every one shows the branch as of `lsn`.

    Close it, or use it as a context manager. A view that is older than `max_age_s` is closed by the engine, within a
    second or two: from then on its readers raise Timeout. One call at a time for each reader.
    """

    def __init__(self, branch: str, lsn: int, readers: Mapping[str, Reader], expires: float, max_age_s: float) -> None:
        self.branch = branch
        self.lsn = lsn
        """Every reader shows every change up to here, and none behind it."""
        self.expired = False
        """The engine has closed the view, because it was open for longer than its age."""
        self._readers = dict(readers)
        self._expires = expires
        self._max_age_s = max_age_s

    def __getitem__(self, index_type: str) -> Reader:
        return self._readers[index_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def search(
        self,
        query: str,
        index_types: Sequence[str] | None = None,
        limit: int = 10,
        *,
        resource_types: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        fields: Sequence[str] | bool | None = None,
        highlight: bool = False,
        timeout_s: float = SEARCH_TIMEOUT_S,
    ) -> list[MergedHit]:
        """The best records of several indexes of the view, all as of its LSN, by their rank in each: texts by their
        words, vectors by the nearest to the embedded query. By default of every index of the view.

        As `Engine.search_many`. Raises UnknownIndex for one that is not in the view, Timeout, and as `Reader.search`.
        """
        check_page(limit, 0)
        unknown = [one for one in index_types or () if one not in self._readers]
        if unknown:
            what = f"the view has no {', '.join(map(str, unknown))}"
            raise UnknownIndex(what, operation="search", hint=f"it has {', '.join(self)}")
        limit_s = TimeLimit(check_seconds("timeout_s", timeout_s), SYSTEM.monotonic)

        def left_s() -> float:
            limit_s.check()
            return limit_s.left_s

        readers = {(self.branch, one): self._readers[one] for one in index_types or self}
        return ask_all(readers, query, limit, resource_types, where, fields, highlight, left_s)

    def expire(self, now: float) -> bool:
        """Close the view if it is too old (monotonic); True once that is done. On the thread of the timers."""
        if now < self._expires:
            return False
        why = Timeout(
            f"the view of branch {self.branch!r} was open for longer than {self._max_age_s:g} s (max_age_s), so the"
            " engine closed it",
            hint="open another with read_group; a longer max_age_s keeps more of the disk",
        )
        self.expired = True
        closed = [reader.shut(SHUT_S, why) for reader in self._readers.values()]
        return all(closed)

    def close(self) -> None:
        """Let go of all generations. Idempotent."""
        for reader in self._readers.values():
            reader.close()

    def __enter__(self) -> GroupView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenViews:
    """The open views of an engine, which end at their age. Any thread."""

    def __init__(self, context: EngineContext) -> None:
        self._clock = context.clock
        self._metrics = context.metrics
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[GroupView] = weakref.WeakSet()

    def add(self, view: GroupView) -> None:
        """Note a new view."""
        with self._lock:
            self._open.add(view)

    def expire(self) -> None:
        """Close the views that are too old. Each second, on the thread of the timers."""
        if not self._open:
            return
        now = self._clock.monotonic()
        with self._lock:
            views = list(self._open)
        for view in views:
            was = view.expired
            done = view.expire(now)
            if view.expired and not was:
                self._metrics.count("group_views_expired")
                logger.warning("a view of branch %r was not closed within its max_age_s", view.branch)
            if done:
                with self._lock:
                    self._open.discard(view)


class GroupReading:
    """Opens views. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        branches: BranchDirectory,
        indexes: LiveIndexes,
        calls: IndexCalls,
        readers: OpenReaders,
        views: OpenViews,
        damaged: Callable[[int, CorruptData], None],
    ) -> None:
        """A reader that meets damage calls `damaged` with the number of its generation."""
        self._context = context
        self._catalog = context.catalog
        self._clock = context.clock
        self._branches = branches
        self._indexes = indexes
        self._calls = calls
        self._readers = readers
        self._views = views
        self._damaged = damaged

    def read_group(
        self,
        branch: str,
        index_types: Sequence[str],
        min_lsn: int | None = None,
        max_age_s: float = 30,
        timeout_s: float = 5,
    ) -> GroupView:
        """Readers of several live indexes of a branch, all as of one LSN: at least the head at the call, and `min_lsn`.

        `view.lsn` is that LSN, `view["SEARCH_INDEX"]` a Reader. A view never shows a group half switched. Writers go on
        meanwhile; the indexes are not followed for the moment in which the view is opened. After `max_age_s` the engine
        closes the view. Raises UnknownIndex, InvalidConfig for an index that shows no moment (an external one), Timeout
        when an index does not reach the LSN in `timeout_s`, and as `reader`.
        """
        row = self._branches.row(branch)
        wanted = _checked(index_types)
        max_age_s = _age(max_age_s)
        deadline = self._clock.monotonic() + check_seconds("timeout_s", timeout_s)
        if min_lsn is not None:
            check_whole("min_lsn", min_lsn, 0)
            self._calls.check_reached(row, min_lsn)
        indexes = [self._indexes.of(row.number, index_type) for index_type in wanted]
        for index in indexes:
            if index.live is None:  # the first reader of a fork
                self._calls.is_made(row, index.index_type, deadline - self._clock.monotonic())
        while True:
            with ExitStack() as opened:
                pinned = self._pin(branch, indexes, opened)
                frozen = [(one, self._opened(one, opened)) for one in pinned]
                whole = len(pinned) == len(indexes)
                lsn = self._freeze(row.number, indexes, frozen, deadline) if whole else None
                if lsn is not None:
                    opened.pop_all()
            if lsn is not None:
                return self._view(branch, row.number, lsn, frozen, max_age_s)
            if self._clock.monotonic() > deadline:
                raise Timeout(f"switches of branch {branch!r} came one after the other", operation="read", hint=LATE)

    def _pin(self, branch: str, indexes: list[LiveIndex], opened: ExitStack) -> list[Generation]:
        """The live generations at one moment, pinned; fewer if a pointer moved and its generation is closed."""
        with self._indexes.together:
            lives = [index.live for index in indexes]
            held = [live is not None and live.pin() for live in lives]
        found = []
        for index, live, is_held in zip(indexes, lives, held, strict=True):
            if live is not None and is_held:
                opened.callback(live.unpin)
                found.append(live)
            elif live is None:
                raise self._calls.not_served(self._branches.row(branch), index.index_type)
            elif index.live is live:
                raise EngineClosed("the engine is closed", operation="read", hint="open it again")
        return found

    def _opened(self, generation: Generation, opened: ExitStack) -> FreezingReader:
        try:
            reader = generation.open_freezing()
        except CorruptData as error:
            self._damaged(generation.row.number, error)
            raise
        opened.callback(reader.close)
        return reader

    def _freeze(
        self,
        branch: int,
        indexes: list[LiveIndex],
        frozen: list[tuple[Generation, FreezingReader]],
        deadline: float,
    ) -> int | None:
        """The LSN that all show from now on; None if a live pointer moved first. Raises Timeout, CorruptData."""
        clock, in_order = self._clock, sorted((one for one, _ in frozen), key=lambda one: one.row.number)
        with ExitStack() as held:
            begun = clock.monotonic()
            for one in in_order:
                held.enter_context(one.writer.pause_apply(deadline - clock.monotonic()))
            head, _ = self._catalog.head(branch)
            if not self._are_live(indexes, frozen):
                return None
            for one in in_order:
                one.writer.apply_until(head, deadline)
            for one in in_order:
                held.enter_context(one.writer.locked(deadline))
            lsn = max(head, *(one.applied_lsn for one in in_order))
            if not self._are_live(indexes, frozen):
                return None
            for one, reader in frozen:
                one.writer.apply_locked(lsn)
                reader.freeze()
        for one in in_order:
            one.advanced()
        self._context.metrics.observe("group_read_held", (clock.monotonic() - begun) * 1000)
        return lsn

    def _are_live(self, indexes: list[LiveIndex], frozen: list[tuple[Generation, FreezingReader]]) -> bool:
        with self._indexes.together:
            return all(index.live is one for index, (one, _) in zip(indexes, frozen, strict=True))

    def _view(
        self, name: str, branch: int, lsn: int, frozen: list[tuple[Generation, FreezingReader]], max_age_s: float
    ) -> GroupView:
        readers = {one.row.index_type: self._reader(branch, lsn, one, reader) for one, reader in frozen}
        view = GroupView(name, lsn, readers, self._clock.monotonic() + max_age_s, max_age_s)
        try:
            for reader in readers.values():
                self._readers.add(reader)
        except BaseException:
            view.close()
            raise
        self._views.add(view)
        self._context.metrics.count("group_views")
        return view

    def _reader(self, branch: int, lsn: int, live: Generation, frozen: FreezingReader) -> Reader:
        def release() -> None:
            frozen.close()
            live.unpin()

        number, versions = live.row.number, Versions(self._catalog, branch, self._clock)
        return Reader(
            frozen, number, lsn, release, versions, live.row.resource_types, live.asked.append,
            partial(self._damaged, number), self._context.config.search_timeout_s,
        )  # fmt: skip


def _checked(index_types: Sequence[str]) -> list[str]:
    if isinstance(index_types, str) or not isinstance(index_types, Sequence) or not index_types:
        raise InvalidConfig(f"index_types is a list of index types, not {index_types!r:.80}", operation="read_group")
    wanted = [check_index_type(one) for one in index_types]
    if len(set(wanted)) < len(wanted):
        raise InvalidConfig(f"an index type stands twice in {wanted}", operation="read_group")
    return wanted


def _age(max_age_s: float) -> float:
    if not 0 < check_seconds("max_age_s", max_age_s) <= AGE_S_MAX:
        raise InvalidConfig(f"max_age_s must be above 0 and at most {AGE_S_MAX:g}, not {max_age_s!r:.80}")
    return float(max_age_s)
