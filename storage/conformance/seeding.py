"""Shards that begin with the rows of another one; for backends that are `Seeding`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from shadowswitch.model.digest import BUCKETS
from shadowswitch.storage.backends.protocol import SEEDED, Backend, Reuse, SeedableWriter, Seeding, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, item


class Seeds(Shards):
    """`plan`, `seed`, `versions` and `amend`."""

    @pytest.fixture
    def seeding(self, backend: Backend) -> Seeding:
        if not isinstance(backend, Seeding):
            pytest.skip("a build of this backend begins from the records")
        return backend

    @pytest.fixture
    def target(self, backend: Backend, options: dict[str, Any], path: Path) -> Path:
        """An empty shard of another generation, opened once."""
        target = path.parent.parent / "other" / "shard-000"
        target.parent.mkdir()
        backend.create_shard(target, options)
        backend.open_writer(target, options).close()
        return target

    @pytest.fixture
    def seeded(
        self, seeding: Seeding, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter, target: Path
    ) -> Iterator[tuple[SeedableWriter, Expected]]:
        """A shard that was seeded with 300 rows, beside a writer that goes on, and what it must hold."""
        batches, expected = Batches(71, self.fields_for), Expected()
        items = batches.puts(300)
        for shard in (writer, expected):
            shard.load(items, b"c")
            shard.finish_load(batches.lsn)
        seeding.seed(path, options, target, options, lambda: None)
        writer.apply(batches.changes(100), batches.lsn)
        expected.applied_lsn, expected.cursor, expected.loaded = 0, SEEDED, False
        with closing(backend.open_writer(target, options)) as opened:
            yield cast(SeedableWriter, opened), expected
        assert backend.check(target, options) == []

    def test_the_same_options_take_over_everything(self, seeding: Seeding, options: dict[str, Any]) -> None:
        assert seeding.plan(options, options) is Reuse.COPY

    def test_a_seeded_shard_has_the_rows_and_is_not_loaded(
        self, backend: Backend, options: dict[str, Any], target: Path, seeded: tuple[SeedableWriter, Expected]
    ) -> None:
        self.assert_same(backend, options, target, *seeded)

    def test_versions_has_every_row_of_its_buckets(self, seeded: tuple[SeedableWriter, Expected]) -> None:
        writer, expected = seeded
        rows = {(*key, lsn) for key, (lsn, _) in expected.rows.items()}
        by_bucket = [set(writer.versions([bucket])) for bucket in range(BUCKETS)]
        assert set.union(*by_bucket) == rows
        assert sum(map(len, by_bucket)) == len(rows), "two buckets have the same row"
        assert sorted(writer.versions(range(BUCKETS))) == sorted(rows)

    def test_amend_overrides_newer_rows_and_removes(
        self, backend: Backend, options: dict[str, Any], target: Path, seeded: tuple[SeedableWriter, Expected]
    ) -> None:
        writer, expected = seeded
        first, second, *_ = sorted(expected.rows)
        older = item(1, *first, self.fields_for("amended"))
        writer.amend([older, item(1, *second, None), item(2, "file", "new", self.fields_for("new")),
                      item(3, "file", "never", None)])  # fmt: skip
        expected.rows |= {first: (1, older.fields or {}), ("file", "new"): (2, self.fields_for("new"))}
        del expected.rows[second]
        self.assert_same(backend, options, target, writer, expected)

    def test_a_seeded_shard_follows_from_the_lsn_of_its_load(
        self, backend: Backend, options: dict[str, Any], target: Path, seeded: tuple[SeedableWriter, Expected]
    ) -> None:
        writer, expected = seeded
        low = 2
        for shard in (writer, expected):
            shard.finish_load(low)
            shard.apply([item(low + 1, "file", "later", self.fields_for("later"))], low + 1)
        self.assert_same(backend, options, target, writer, expected)
