"""Readers: what `engine.reader` gives, and the reader of another process beside a running host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from shadowswitch.model.errors import CorruptData, EngineClosed, UnknownIndex
from shadowswitch.model.records import Hit, Record
from shadowswitch.storage import layout
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog import Catalog
from shadowswitch.storage.rows import GenerationRow


class Reader:
    """A pinned reader of one generation: it is not removed while this is open (SW-1, SW-5).

    It shows what the generation holds at each search: more and more of the journal while the generation is followed,
    never
    less. For one thread at a time. Close it, or use it as a context manager; a reader kept for long after a switch
    shows a generation that follows the live one and keeps its files from being removed.
    """

    def __init__(
        self,
        reader: IndexReader,
        generation: int,
        lsn: int,
        release: Callable[[], None],
        asked: Callable[[str], None] = lambda query: None,
        trouble: Callable[[CorruptData], None] = lambda error: None,
    ) -> None:
        self._reader: IndexReader | None = reader
        self._release = release
        self._asked = asked
        self._trouble = trouble
        self.generation = generation
        """The number of the pinned generation."""
        self.lsn = lsn
        """Every change up to here was visible when the reader was opened."""

    def search(self, query: str, limit: int = 10) -> list[Hit]:
        """The best `limit` hits, best first. Raises InvalidConfig for a limit below 1."""
        reader = self._open()
        self._asked(query)
        try:
            return reader.search(query, limit)
        except CorruptData as error:
            self._trouble(error)
            raise

    def get(self, resource_type: str, id: str) -> Record | None:
        """What the index holds of a record, with the LSN of that version, or None."""
        return self._open().get(resource_type, id)

    def count(self) -> int:
        """How many records the index holds."""
        return self._open().count()

    def scan(self) -> Iterator[Record]:
        """Everything that the index holds, in the backend's order. May take long."""
        return self._open().scan()

    def applied_lsn(self) -> int:
        """Every change up to here is visible now."""
        return self._open().applied_lsn()

    def _open(self) -> IndexReader:
        if self._reader is None:
            raise EngineClosed("the reader is closed", operation="read", hint="open another with engine.reader")
        return self._reader

    def close(self) -> None:
        """Let go of the generation. Idempotent."""
        if self._reader is not None:
            self._reader = None
            self._release()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


RETRIES = 100
"""A switch between looking and pinning sends an outside reader to the next generation; a hundred in a row do not
happen."""


@contextlib.contextmanager
def outside_reader(data: Path, catalog: Catalog, branch_name: str, index_type: str) -> Iterator[Reader]:
    """A reader in a process that does not run the engine. Pins with a lock on a file, which dies with the process.

    Looks up the live generation, pins it, and looks again: one that was marked for removal before the pin is not used.
    Raises UnknownBranch or UnknownIndex.
    """
    branch = catalog.branch(branch_name)
    for _ in range(RETRIES):
        row = catalog.index(branch.number, index_type)
        generation = catalog.generation(row.live) if row is not None and row.live else None
        if generation is None:
            raise no_index(branch_name, index_type)
        path = data / generation.path
        try:
            with layout.shared_pin(path):
                again = catalog.generation(generation.number)
                if again is None or again.role == "retiring":
                    continue
                backend = registry.backend(generation.backend)
                reader = backend.open_reader(layout.shard_paths(path, generation.shards), generation.options)
                try:
                    yield _reader_of(reader, generation)
                finally:
                    reader.close()
                return
        except FileNotFoundError:
            continue
    raise no_index(branch_name, index_type)


def _reader_of(reader: IndexReader, generation: GenerationRow) -> Reader:
    return Reader(reader, generation.number, reader.applied_lsn(), lambda: None)


def no_index(branch_name: str, index_type: str) -> UnknownIndex:
    """The error for an index that was never switched to."""
    return UnknownIndex(
        f"branch {branch_name!r} has no live {index_type}",
        object=branch_name,
        operation="read",
        hint="build one with start_build and switch to it, or rebuild",
    )
