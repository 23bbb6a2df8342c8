"""Buckets: emptying and replacing one, and finding altered rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.digest import BUCKETS, bucket_of, key_hash
from shadowswitch.storage.backends.protocol import Backend, Counting, IndexReader, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, assert_holds, item, rows_of

MANY = 10_000
"""More rows than a backend is likely to read at once."""


class Repairing(Shards):
    """`repair_bucket` and `check` (BK-3)."""

    def _filled(self, writer: ShardWriter, seed: int) -> tuple[Batches, Expected]:
        batches, expected = Batches(seed, self.fields_for), Expected()
        items = batches.puts(300)
        for shard in (writer, expected):
            shard.load(items, b"c")
            shard.finish_load(batches.lsn)
        return batches, expected

    def test_a_shard_of_many_rows_has_each_once_and_loses_only_those_of_an_emptied_bucket(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        items = [item(lsn, "t", f"id-{lsn}", self.fields_for("elm")) for lsn in range(1, MANY + 1)]
        writer.load(items, b"c")
        rows = sorted((one.resource_type, one.id, one.lsn) for one in items)
        assert rows_of(reader) == rows
        bucket = bucket_of(items[0].key_hash)
        writer.repair_bucket(bucket, [])
        assert rows_of(reader) == [row for row in rows if bucket_of(key_hash(row[0], row[1])) != bucket]

    def test_a_long_check_shows_that_it_goes_on(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        if not isinstance(backend, Counting):
            pytest.skip("the check of this backend shows nothing before its end")
        writer.load([item(lsn, "t", f"id-{lsn}", self.fields_for("elm")) for lsn in range(1, MANY + 1)], b"c")
        looked: list[int] = []
        assert backend.check_counting(path, options, looked.append) == []
        assert looked

    def test_emptying_a_bucket_removes_its_rows_and_no_others(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        _, expected = self._filled(writer, 32)
        for bucket in (0, 17, BUCKETS - 1, 17):
            for shard in (writer, expected):
                shard.repair_bucket(bucket, [])
        self.assert_same(backend, options, path, writer, expected)

    def test_a_repaired_bucket_holds_exactly_the_given_items(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, expected = self._filled(writer, 33)
        fresh = [one for one in batches.changes(400) if one.fields is not None]
        for bucket in (3, 40, BUCKETS - 1):
            items = [one for one in fresh if bucket_of(one.key_hash) == bucket]
            for shard in (writer, expected):
                shard.repair_bucket(bucket, items)
        assert writer.state().applied_lsn < batches.lsn
        self.assert_same(backend, options, path, writer, expected)

    def test_a_repair_may_bring_back_an_older_version(self, writer: ShardWriter, reader: IndexReader) -> None:
        bucket = bucket_of(key_hash("t", "a"))
        writer.apply([item(9, "t", "a", self.fields_for("elm"))], 9)
        writer.repair_bucket(bucket, [item(4, "t", "a", self.fields_for("fir"))])
        assert rows_of(reader) == [("t", "a", 4)]
        writer.repair_bucket(bucket, [])
        assert rows_of(reader) == []

    def test_a_repaired_shard_applies_the_journal_further(self, writer: ShardWriter, reader: IndexReader) -> None:
        batches, expected = self._filled(writer, 34)
        for shard in (writer, expected):
            for bucket in (5, 6):
                shard.repair_bucket(bucket, [])
        for _ in range(3):
            items = batches.changes(100)
            assert writer.apply(items, batches.lsn) == expected.apply(items, batches.lsn)
        assert_holds(writer, reader, expected)

    def test_check_finds_nothing_beside_a_writer_and_finds_a_row_changed_without_it(
        self, backend: Backend, options: dict[str, Any], path: Path
    ) -> None:
        writer = backend.open_writer(path, options)
        batches, _ = self._filled(writer, 35)
        assert backend.check(path, options) == []
        writer.apply(batches.changes(50), batches.lsn)
        assert backend.check(path, options) == []
        with self.reading(backend, options, path) as reader:
            victim = rows_of(reader)[7]
        writer.flush()
        writer.close()
        self.alter_row(path, victim[0], victim[1])
        findings = backend.check(path, options)
        print(findings)
        assert findings

    @pytest.mark.parametrize("field", ["applied_lsn", "digest"])
    def test_the_returned_state_is_a_copy(self, writer: ShardWriter, field: str) -> None:
        self._filled(writer, 36)
        before = writer.state()
        writer.state().digest.clear(0)
        writer.state().digest.add(1, 1)
        assert getattr(writer.state(), field) == getattr(before, field)
