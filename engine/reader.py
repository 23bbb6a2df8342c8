"""Readers: the reader that `engine.reader` returns, and the reader of another process beside a running host."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from shadowswitch.engine.arguments import check_seconds
from shadowswitch.engine.kinds.asked import Asked
from shadowswitch.engine.kinds.reading import ReadsKinds
from shadowswitch.engine.quality.preview import readable
from shadowswitch.engine.search.showing import Fields, Showing, check_fields
from shadowswitch.model.errors import CorruptData, EngineClosed, ShadowSwitchError, UnknownIndex
from shadowswitch.model.names import check_index_type
from shadowswitch.model.records import Hit, Record
from shadowswitch.model.search.bounds import SEARCH_TIMEOUT_S, TimeLimit, check_page
from shadowswitch.model.search.where import Where, check_types, parse_where
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader, Marked, Marking
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.filtered_search import FilteredSearch, Versions
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.generations.directory import shard_paths, shared_pin

logger = logging.getLogger("shadowswitch")
T = TypeVar("T")


class Reader(ReadsKinds):
    """A pinned reader of one generation: it is not removed while this is open (SW-1, SW-5).

    Each search shows the generation as it is then: more and more of the journal while the generation is followed,
    never less. One call at a time; a second thread waits. Close it, or use it as a context manager; a reader kept for
    long after a switch shows a generation that follows the live one and keeps its files from being removed. When the
    engine closes, the reader is closed with it: calls raise EngineClosed.
    """

    def __init__(
        self,
        reader: IndexReader,
        generation: int,
        lsn: int,
        release: Callable[[], None],
        versions: Versions,
        resource_types: Sequence[str],
        asked: Callable[[str], None] = lambda query: None,
        trouble: Callable[[CorruptData], None] = lambda error: None,
        search_timeout_s: float = SEARCH_TIMEOUT_S,
    ) -> None:
        self._reader: IndexReader | None = reader
        self._release = release
        self._note_asked = asked
        self._trouble = trouble
        self._search_timeout_s = search_timeout_s
        self._versions = versions
        self._types = resource_types
        self._clock = versions.clock
        self._lock = threading.Lock()
        self._scans: list[Iterator[Record]] = []
        self._forget: Callable[[], object] = lambda: None
        self._why: ShadowSwitchError = EngineClosed(
            "the reader is closed", operation="read", hint="open another with engine.reader"
        )
        self.generation = generation
        """The number of the pinned generation."""
        self.lsn = lsn
        """Every change up to here was visible when the reader was opened."""

    def search(
        self,
        query: str,
        limit: int = 10,
        *,
        offset: int = 0,
        resource_types: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        fields: Sequence[str] | bool | None = None,
        highlight: bool = False,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """The best `limit` hits behind the first `offset`: by score, then by resource type and id.

        `resource_types` and `where` (see `model.search.where`) leave out other records. A filter on a field that the
        index does not hold is answered from the records, as of the version that the index shows.
        A page costs a search for all hits before its end. Pages fit together while the index does not change.

        `fields`, a list of names or True for all, gives each hit these fields of its record, as of the version that was
        found. `highlight` gives each hit a `Snippet` for each field in which a word of the query was found; the hits of
        a `kv` index have none.

        `query` is in the language of `model.search.query` (docs/search.md): every string is a query. In an index that
        embeds it is a text, and finds the nearest records; in a `kv` index it is the beginning of ids.

        Raises InvalidConfig for a limit below 1, a resource type that the index was built without and a wrong filter.
        Raises Timeout for a search of more than `timeout_s` (default: `Config.search_timeout_s`): it is stopped,
        wherever it is.
        """
        check_page(limit, offset)
        types, condition = check_types(resource_types, self._types), parse_where(where)
        time_limit = self._limit(timeout_s)
        ask = partial(self._ask, query, resource_types=types, time_limit=time_limit)
        if condition is None or self._use(lambda reader: all(map(reader.holds, condition.fields))):
            search = partial(ask, limit, offset=offset, where=condition)
        else:
            search = partial(FilteredSearch(ask, self._versions, condition, time_limit).page, limit, offset)
        found = self._showing(query, fields, highlight, time_limit).of_search(search)
        self._note_asked(query)  # only one with an answer: a comparison of queries asks it again
        return found

    def show(
        self,
        query: str,
        hits: Sequence[Hit],
        *,
        fields: Sequence[str] | bool | None = None,
        highlight: bool = False,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """Hits of an earlier search of this branch with fields and highlights, see `search`.

        A hit whose version is gone (it was written again, and the journal trimmed) has neither. Raises as `search`.
        """
        time_limit = self._limit(timeout_s)
        return self._showing(query, fields, highlight, time_limit).of_hits(list(hits))

    def _showing(self, query: str, fields: Fields, highlight: bool, time_limit: TimeLimit) -> Showing:
        return Showing(query, check_fields(fields), self._marks if highlight else None, self._versions, time_limit)

    def _ask(self, query: str, limit: int, **how: Any) -> list[Hit]:
        return self._use(lambda reader: reader.search(query, limit, **how))

    def _marks(self, query: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Marked]]:
        def marks(reader: IndexReader) -> list[dict[str, Marked]]:
            return reader.marks(query, records) if isinstance(reader, Marking) else [{} for _ in records]

        return self._use(marks)

    def _limit(self, timeout_s: float | None) -> TimeLimit:
        seconds = self._search_timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        return TimeLimit(seconds, self._clock.monotonic)

    def _asked(self) -> Asked:
        return Asked(self._use, self._types, self._clock, self._search_timeout_s)

    def _filtered(
        self, search: Callable[[int], list[Hit]], where: Where, limit: int, timeout_s: float | None
    ) -> list[Hit]:
        return FilteredSearch(search, self._versions, where, self._limit(timeout_s)).page(limit, 0)

    def _shown(self, search: Callable[[], list[Hit]], fields: Fields, timeout_s: float | None) -> list[Hit]:
        return self._showing("", fields, False, self._limit(timeout_s)).of_search(search)

    def get(self, resource_type: str, id: str) -> Record | None:
        """What the index holds of a record, with the LSN of that version, or None."""
        return self._use(lambda reader: reader.get(resource_type, id))

    def count(self) -> int:
        """How many records the index holds."""
        return self._use(lambda reader: reader.count())

    def scan(self) -> Iterator[Record]:
        """Everything that the index holds, in the backend's order, each shard as of one moment. May take long."""

        def begin(reader: IndexReader) -> Iterator[Record]:
            rows = reader.scan()
            self._scans.append(rows)
            return rows

        return self._rows(self._use(begin))

    def _rows(self, rows: Iterator[Record]) -> Iterator[Record]:
        try:
            while True:
                row = self._use(lambda _: next(rows, None))
                if row is None:
                    return
                yield row
        finally:
            with contextlib.suppress(ValueError):
                self._scans.remove(rows)
            _end(rows)

    def applied_lsn(self) -> int:
        """Every change up to here is visible now."""
        return self._use(lambda reader: reader.applied_lsn())

    def _use(self, call: Callable[[IndexReader], T]) -> T:
        """One call at a time. A plain function, because a generator as context costs as much as a pin."""
        with self._lock:
            if self._reader is None:
                raise type(self._why)(self._why.message, operation="read", hint=self._why.hint)
            try:
                return call(self._reader)
            except CorruptData as error:
                self._trouble(error)
                raise

    def close(self) -> None:
        """Let go of the generation. Idempotent."""
        with self._lock:
            self._let_go()

    def shut(self, timeout_s: float, why: ShadowSwitchError | None = None) -> bool:
        """The engine closes this, behind the call that runs; False if that does not end in time.

        Later calls raise an error as `why`: by default that the engine is closed.
        """
        if not self._lock.acquire(timeout=timeout_s):
            return False
        try:
            if why is None or self._reader is not None:
                self._why = why or EngineClosed("the engine is closed", hint="open it again with Engine.open")
            self._let_go()
        finally:
            self._lock.release()
        return True

    def when_dropped(self, note: Callable[[tuple[int, Callable[[], None]]], None]) -> None:
        """Call `note` with generation and release when this is dropped without `close`. From the garbage collector: on
        any thread, inside any call, so `note` takes no lock."""
        finalizer = weakref.finalize(self, note, (self.generation, self._release))
        finalizer.atexit = False
        self._forget = finalizer.detach

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader = None
            self._forget()
            while self._scans:
                _end(self._scans.pop())
            self._release()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(rows: Iterator[Record]) -> None:
    """End a scan at any point of it, so that it holds nothing any more."""
    close = getattr(rows, "close", None)
    if close is not None:
        close()


class OpenReaders:
    """The open readers of an engine; none of them outlives it. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._dropped: deque[tuple[int, Callable[[], None]]] = deque()
        self._closed = False

    def add(self, reader: Reader) -> None:
        """Note a new reader. When the engine has closed meanwhile, closes the reader and raises EngineClosed."""
        with self._lock:
            if not self._closed:
                self._open.add(reader)
                reader.when_dropped(self._dropped.append)
                return
        reader.close()
        raise EngineClosed("the engine is closed", operation="read", hint="open it again with Engine.open")

    def reclaim(self) -> None:
        """Let go of what readers held that were dropped without `close`."""
        dropped: Counter[int] = Counter()
        while self._dropped:
            generation, release = self._dropped.popleft()
            release()
            dropped[generation] += 1
        for generation, times in dropped.items():
            logger.warning("readers of generation %d dropped without close(): %d", generation, times)

    def shut(self, timeout_s: float) -> None:
        """Close all readers, each behind the call that runs in it, in `timeout_s` seconds together."""
        with self._lock:
            self._closed = True
            readers = list(self._open)
        deadline = self._clock.monotonic() + timeout_s
        for reader in readers:
            if not reader.shut(max(0.0, deadline - self._clock.monotonic())):
                logger.warning("a reader of generation %d is still at work while the engine closes", reader.generation)
        self.reclaim()


RETRIES = 100
"""A switch between the look-up and the pin sends an outside reader to the next generation; a hundred in a row do not
happen."""


@contextlib.contextmanager
def outside_reader(
    data: Path, catalog: Catalog, branch_name: str, index_type: str, shadow_index_id: str | None = None
) -> Iterator[Reader]:
    """A reader in a process that does not run the engine. Pins with a lock on a file, which dies with the process.

    Looks up the live generation, or that of a shadow, pins it, and looks again: a generation that was marked for
    removal before the pin is not used.
    Raises InvalidName, UnknownBranch or UnknownIndex; of a shadow, as `engine.quality.preview.readable`.
    """
    branch = catalog.branch(branch_name)
    check_index_type(index_type)
    for _ in range(RETRIES):
        generation = _outside_generation(catalog, branch, index_type, shadow_index_id)
        path = data / generation.path
        try:
            with shared_pin(path):
                again = catalog.generation(generation.number)
                if again is None or again.role == "retiring":
                    continue
                backend = registry.backend(generation.backend)
                reader = backend.open_reader(shard_paths(path, generation.shards), generation.query_options)
                try:
                    versions = Versions(catalog, branch.number, SYSTEM)
                    lsn, types = reader.applied_lsn(), generation.resource_types
                    yield Reader(reader, generation.number, lsn, lambda: None, versions, types)
                finally:
                    reader.close()
                return
        except FileNotFoundError:
            continue
    raise no_index(branch_name, index_type)


def _outside_generation(
    catalog: Catalog, branch: BranchRow, index_type: str, shadow_index_id: str | None
) -> GenerationRow:
    if shadow_index_id is not None:
        return readable(catalog, branch, index_type, shadow_index_id)
    row = catalog.index(branch.number, index_type)
    generation = catalog.generation(row.live) if row is not None and row.live else None
    if generation is None:
        raise no_index(branch.name, index_type)
    return generation


def no_index(branch_name: str, index_type: str) -> UnknownIndex:
    """The error for an index that was never switched to."""
    return UnknownIndex(
        f"branch {branch_name!r} has no live {index_type}",
        object=branch_name,
        operation="read",
        hint="build one with start_build and switch to it, or rebuild",
    )
