"""The generations that are open in this process. One object for each engine."""

from __future__ import annotations

import threading
from pathlib import Path

from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import GenerationWriter


class OpenGenerations:
    """Open generations by number. Any thread."""

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self._root = root
        self._catalog = catalog
        self._open: dict[int, Generation] = {}
        self.unread: dict[int, str] = {}
        """Generations that the start could not read, with the reason; nothing was decided about them."""
        self._lock = threading.Lock()

    def open(self, row: GenerationRow) -> Generation:
        """Open a generation's shards for writing. Raises CorruptData when it is not sound."""
        path = data_directory.inside(self._root, row.path)
        if not row.opaque:
            data_directory.refuse_links(path)
        backend = registry.backend(row.backend)
        generation = Generation(row, path, backend, GenerationWriter(self._catalog, row, path, backend))
        with self._lock:
            self._open[row.number] = generation
        return generation

    def get(self, number: int) -> Generation | None:
        """The generation of that number, if it is open."""
        return self._open.get(number)

    def all(self) -> list[Generation]:
        """Every open generation."""
        return list(self._open.values())

    def close(self) -> None:
        """Close every open generation."""
        for generation in self.all():
            generation.close()

    def forget(self, number: int) -> None:
        """The generation is closed, or will be by the caller."""
        with self._lock:
            self._open.pop(number, None)
