"""The `fts5` backend: full-text search with SQLite FTS5, the default for SEARCH_INDEX. No server, no extra install.

The modules: `options` (options, and the text of a record), `extra` (parts of words), `query`, `store` (the file, its
schema, its errors), `writer`, `reader`, `check`, `copy`, `seed`.

Durability: WAL with `synchronous=NORMAL`. A commit does not wait for the disk. A power cut costs only the newest
transactions, which the journal restores. Checkpoints happen in `flush` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.fts5 import check as fts5_check
from shadowswitch.storage.backends.fts5 import options as fts5_options
from shadowswitch.storage.backends.fts5 import seed as fts5_seed
from shadowswitch.storage.backends.fts5 import store as fts5_store
from shadowswitch.storage.backends.fts5.copy import Fts5Snapshot
from shadowswitch.storage.backends.fts5.frozen import Fts5FreezingReader
from shadowswitch.storage.backends.fts5.options import Layout, layout_of
from shadowswitch.storage.backends.fts5.reader import Fts5Reader
from shadowswitch.storage.backends.fts5.writer import Fts5Writer
from shadowswitch.storage.backends.protocol import Reuse
from shadowswitch.storage.reading import Count


class Fts5Backend:
    """See `protocol.Backend`. Stateless."""

    name = "fts5"
    version = 1
    torn_by_power_cut = False

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        return fts5_options.configure(build_config)

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        return layout_of(options).project(fields)

    def chosen_fields(self, options: Mapping[str, Any]) -> list[str]:
        return list(options["columns"] or ())

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        fts5_store.create(path, options)

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> Fts5Writer:
        with fts5_store.translated("open shard", path):
            fts5_store.refuse_cut(path)
        connection = fts5_store.open_existing(path, options, "rw")
        try:
            with fts5_store.translated("open shard", path):
                return Fts5Writer(connection, path, Layout(options))
        except BaseException:
            connection.close()
            raise

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> Fts5Reader:
        return Fts5Reader(shards, options)

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> Fts5FreezingReader:
        return Fts5FreezingReader(shards, options)

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return fts5_check.check(path, options)

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        return fts5_check.check(path, options, looked)

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> Fts5Snapshot:
        return Fts5Snapshot(shards, options)

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return []  # the one file of a shard changes with every checkpoint

    def plan(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
        return fts5_seed.plan(old, new)

    def seed(
        self, source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]
    ) -> None:
        fts5_seed.seed(source, old, target, new, rest)
