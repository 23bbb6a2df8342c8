"""The `tantivy` backend: full-text search with Tantivy, several times faster than `fts5` on large indexes.

The modules: `options`, `words` (the Tantivy index), `delta` (rows that are not in it yet), `plan` and `matching`
(queries), `writer`, `carry` (from the rows into the words), `reader`, `check`, `copies`.

The rows are in SQLite, as those of `fts5` are, and so is the state of the shard: LSN, digest and durability are the
same. The words are derived from the rows: a writer that finds them missing or damaged makes them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.protocol import Reuse
from shadowswitch.storage.backends.tantivy import check as tantivy_check
from shadowswitch.storage.backends.tantivy import copies, delta, words
from shadowswitch.storage.backends.tantivy import options as tantivy_options
from shadowswitch.storage.backends.tantivy.copies import TantivySnapshot
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.backends.tantivy.reader import TantivyFreezingReader, TantivyReader
from shadowswitch.storage.backends.tantivy.writer import TantivyWriter, new_uid
from shadowswitch.storage.reading import Count


class TantivyBackend:
    """See `protocol.Backend`. Stateless."""

    name = "tantivy"
    version = 1
    torn_by_power_cut = False

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        return tantivy_options.configure(build_config)

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        return WordsLayout(options).project(fields)

    def chosen_fields(self, options: Mapping[str, Any]) -> list[str]:
        return list(options["columns"] or ())

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        layout, uid = WordsLayout(options), new_uid()
        store.create(path, options, (layout.columns, delta.schema(uid)))
        words.create(path, layout, uid)
        with store.translated("create shard", path):
            store.sync_directory(path)

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> TantivyWriter:
        with store.translated("open shard", path):
            store.refuse_cut(path)
        connection = store.open_existing(path, options, "rw")
        try:
            with store.translated("open shard", path):
                return TantivyWriter(connection, path, options, WordsLayout(options))
        except BaseException:
            connection.close()
            raise

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> TantivyReader:
        return TantivyReader(shards, options)

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> TantivyFreezingReader:
        return TantivyFreezingReader(shards, options)

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return tantivy_check.check(path, options)

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        return tantivy_check.check(path, options, looked)

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> TantivySnapshot:
        return TantivySnapshot(shards, options)

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return []  # a commit of the words replaces some of them

    def plan(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
        return tantivy_options.plan(old, new)

    def seed(
        self, source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]
    ) -> None:
        copies.seed(source, old, target, new, rest)
