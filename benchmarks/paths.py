"""The usual alternative: an fts5 index in a directory that a host opens by its path. Shared by all baselines.

The same SQLite FTS5 code as the `fts5` backend, so that only the way of switching differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Delete, Hit, Item, Put
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends.fts5 import store as fts5_store
from shadowswitch.storage.backends.fts5.backend import Fts5Backend
from shadowswitch.storage.backends.fts5.reader import Fts5Reader
from shadowswitch.storage.backends.fts5.writer import Fts5Writer
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records

BACKEND = Fts5Backend()
OPTIONS: dict[str, Any] = BACKEND.configure({"tokenizer": "porter"})
SHARD = "shard-000"


def item_of(change: Put | Delete, lsn: int) -> Item:
    """A change in the form that a backend applies."""
    fields = change.fields if isinstance(change, Put) else None
    return Item(lsn, change.resource_type, change.id, key_hash(change.resource_type, change.id), fields)


class PathIndex:
    """An index at a path: one writer, and readers that resolve the path again at each read."""

    def __init__(self, path: Path, durable: bool = False) -> None:
        self.path = path
        self.lock = threading.RLock()
        """Held while a change is applied, and during a switch."""
        self._durable = durable
        self._local = threading.local()
        self._readers: list[Fts5Reader] = []
        self.writer: Fts5Writer
        self.open()

    def open(self) -> None:
        """Resolve the path and open the writer there."""
        self._real = Path(os.path.realpath(self.path))
        self.writer = BACKEND.open_writer(self._real / SHARD, OPTIONS)

    def apply(self, items: Sequence[Item]) -> None:
        """Apply changes at once. Per-key LSNs decide (BK-2), the shard's own position stays where the copy ended."""
        with self.lock:
            self.writer.apply(items, 0)
            if self._durable:
                fts5_store.sync_wal(self._real / SHARD)

    def reader(self) -> Fts5Reader:
        """This thread's reader. Raises OSError while the path leads nowhere."""
        inode = os.stat(self.path).st_ino
        known = getattr(self._local, "reader", None)
        if known is None or known[0] != inode:
            opened = BACKEND.open_reader([Path(os.path.realpath(self.path)) / SHARD], OPTIONS)
            self._readers.append(opened)
            known = self._local.reader = (inode, opened)
        found: Fts5Reader = known[1]
        return found

    def search(self, query: str, limit: int = 10) -> list[Hit]:
        """The best hits."""
        return self.reader().search(query, limit)

    def close(self) -> None:
        """Close the writer and every reader."""
        self.writer.close()
        for reader in self._readers:
            reader.close()


def create(path: Path) -> Path:
    """An empty index directory."""
    path.mkdir(parents=True)
    BACKEND.create_shard(path / SHARD, OPTIONS)
    return path


def point_link(link: Path, target: Path) -> None:
    """Make a symbolic link lead to a directory, in one system call."""
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, link)


def copy_in_process(data: Path, branch: str, path: Path, nice: int = 10) -> None:
    """Build a copy of a branch's records in a process of its own, as the engine's workers do; nothing is caught up."""
    command = [sys.executable, "-m", "benchmarks.paths", str(data), branch, str(path), str(nice)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the copy failed: {done.stderr[-2000:]}")


def copy_records(
    catalog: Catalog, branch: int, backend: Backend, options: dict[str, Any], shard: Path, flush_rows: int = 10_000
) -> int:
    """Load all records of a branch into an empty shard, straight and paced as a build does; returns how many."""
    writer = backend.open_writer(shard, options)
    rows = unflushed = 0
    for number, name in sorted(catalog.types().items()):
        cursor, done = b"", False
        while not done:
            piece = read_records(catalog, branch, number, name, range(64), cursor, 1000)
            cursor, done = piece.cursor, piece.done
            if piece.items:
                writer.load(piece.items, cursor)
                rows += len(piece.items)
                unflushed += len(piece.items)
            if unflushed >= flush_rows:
                writer.flush()
                unflushed = 0
    writer.finish_load(0)  # so that only the LSN stored for a key decides about a later change
    writer.flush()
    writer.close()
    return rows


def main() -> None:
    """The process of `copy_in_process`: DATA BRANCH PATH NICE."""
    data, branch, path, nice = sys.argv[1:]
    os.nice(int(nice))
    catalog = Catalog(Path(data) / data_directory.CATALOG, readonly=True)
    copy_records(catalog, catalog.branch(branch).number, BACKEND, OPTIONS, create(Path(path)) / SHARD)


if __name__ == "__main__":
    main()
