"""Readers beside the writer, in threads and in other processes."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.digest import bucket_of, shard_of
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.records import Item
from shadowswitch.model.search.where import parse_where
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.conformance import process
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import (
    TYPES,
    Batches,
    Expected,
    Fields,
    assert_reads,
    digest_of,
    item,
    rows_of,
)

SHARDS = 3


class Reading(Shards):
    """`IndexReader` (BK-5): a reader sees whole transactions and the newest ones, and never blocks."""

    def test_an_open_reader_sees_a_committed_change_at_its_next_search(
        self, backend: Backend, options: dict[str, Any], writer: ShardWriter, reader: IndexReader
    ) -> None:
        query = self.query_for("t", "a", "ginkgo")
        assert reader.search(query, 10) == []
        for lsn in range(1, 6):
            fields = self.fields_for("ginkgo") if lsn % 2 else None
            writer.apply([item(lsn, "t", "a", fields)], lsn)
            assert [(hit.resource_type, hit.id, hit.lsn) for hit in reader.search(query, 10)] == (
                [("t", "a", lsn)] if lsn % 2 else []
            )
            assert (reader.applied_lsn(), reader.count()) == (lsn, lsn % 2)
            record = reader.get("t", "a")
            assert (record.fields if record else None) == (backend.project(options, fields) if fields else None)

    def test_a_snapshot_does_not_change_while_the_writer_continues(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        batches = Batches(41, self.fields_for)
        writer.apply(batches.puts(300), batches.lsn)
        rows = rows_of(reader)
        state, records = reader.shard_snapshot(0)
        same, versions = reader.shard_versions(0)
        found, of_versions = [next(records)], [next(versions)]
        for _ in range(5):
            writer.apply(batches.changes(200), batches.lsn)
            writer.flush()
        found += records
        of_versions += versions
        assert sorted((one.resource_type, one.id, one.lsn) for one in found) == rows
        assert sorted(of_versions) == rows
        assert state.digest == same.digest == digest_of(rows)
        assert reader.applied_lsn() == batches.lsn

    def test_an_abandoned_snapshot_does_not_affect_later_calls(self, writer: ShardWriter, reader: IndexReader) -> None:
        batches = Batches(42, self.fields_for)
        writer.apply(batches.puts(100), batches.lsn)
        for read, opened in product((0, 1, 3), (reader.shard_snapshot, reader.shard_versions)):
            _, records = opened(0)
            for _ in range(read):
                next(records)
            records.close()  # type: ignore[attr-defined]
            assert list(records) == []
            writer.apply(batches.changes(50), batches.lsn)
            assert writer.flush() == batches.lsn
            assert reader.applied_lsn() == batches.lsn

    def test_a_reader_in_another_thread_sees_only_whole_transactions(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        batches = Batches(43, self.fields_for)
        started, stop, wrong = threading.Event(), threading.Event(), list[str]()

        def read() -> None:
            newest = 0
            try:
                while not stop.is_set():
                    state, records = reader.shard_snapshot(0)
                    rows = [(one.resource_type, one.id, one.lsn) for one in records]
                    if digest_of(rows) != state.digest or state.applied_lsn < newest:
                        wrong.append(f"at {state.applied_lsn}: {len(rows)} rows for {state.digest}")
                    newest = state.applied_lsn
                    reader.search(self.query_for("object_type", "id-0", "elm"), 5)
                    started.set()
            except Exception as error:
                wrong.append(repr(error))
            started.set()

        thread = threading.Thread(target=read)
        thread.start()
        try:
            assert started.wait(60)
            for number in range(30):
                writer.apply(batches.changes(80), batches.lsn)
                if number % 5 == 0:
                    writer.flush()
        finally:
            stop.set()
            thread.join()
        assert wrong == []

    def test_a_reader_in_another_process_follows_the_writer(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, expected = Batches(44, self.fields_for), Expected()
        query = self.query_for("t", "wanted", "zelkova")
        with process.start("read", self.backend_spec, options, path) as other:
            assert other.stdin
            assert other.stdout
            for number in range(4):
                items = [*batches.changes(60), item(batches.lsn + 1, "t", "wanted", self.fields_for("zelkova"))]
                batches.lsn += 1
                for shard in (writer, expected):
                    shard.apply(items, batches.lsn)
                if number == 2:
                    writer.flush()
                other.stdin.write(f"{query}\n")
                other.stdin.flush()
                answer = json.loads(other.stdout.readline())
                answer["hits"] = answer["hits"][: 1 if self.finds_the_nearest else None]
                assert answer == {"applied_lsn": batches.lsn, "count": len(expected.rows), "hits": ["wanted"]}
            other.stdin.close()
            assert other.wait() == 0

    def test_shards_are_read_as_one_index(self, backend: Backend, options: dict[str, Any], tmp_path: Path) -> None:
        batches, expected = Batches(45, self.fields_for), Expected()
        items = batches.puts(300)
        expected.apply(items, batches.lsn)
        paths = [tmp_path / f"shard-{number:03}" for number in range(SHARDS)]
        for number, path in enumerate(paths):
            backend.create_shard(path, options)
            writer = backend.open_writer(path, options)
            own = [one for one in items if shard_of(bucket_of(one.key_hash), SHARDS) == number]
            writer.apply(own, batches.lsn + number)
            writer.close()
        reader = backend.open_reader(paths, options)
        assert reader.applied_lsn() == batches.lsn
        assert_reads(reader, expected, lambda fields: backend.project(options, fields))
        self._assert_best_first(reader, expected)
        reader.close()

    def _assert_best_first(self, reader: IndexReader, expected: Expected) -> None:
        (resource_type, id), (_, fields) = next(iter(sorted(expected.rows.items())))
        query = self.query_for(resource_type, id, fields["title"])
        everything = reader.search(query, 10_000)
        assert (resource_type, id) in {(hit.resource_type, hit.id) for hit in everything}
        order = [(-hit.score, hit.resource_type, hit.id) for hit in everything]
        assert order == sorted(order)
        assert all(expected.rows[hit.resource_type, hit.id][0] == hit.lsn for hit in everything)
        for limit in (1, 2, 3, 10):
            assert reader.search(query, limit) == everything[:limit]

    def test_pages_and_filters_are_parts_of_the_whole_list(
        self, backend: Backend, options: dict[str, Any], tmp_path: Path
    ) -> None:
        items = [
            item(lsn, TYPES[lsn % 3], f"id-{lsn % 40:02}" + "x" * (470 * (lsn % 5 == 0)), self._numbered(lsn))
            for lsn in range(1, 101)
        ]
        for shards in (1, SHARDS):
            paths = [tmp_path / f"of-{shards}-{number}" for number in range(shards)]
            for number, path in enumerate(paths):
                backend.create_shard(path, options)
                with closing(backend.open_writer(path, options)) as writer:
                    own = [one for one in items if shard_of(bucket_of(one.key_hash), shards) == number]
                    writer.apply(own, len(items))
            with closing(backend.open_reader(paths, options)) as reader:
                self._assert_parts(reader, {one.lsn: one for one in items})

    def _numbered(self, lsn: int) -> Fields:
        return {**self.fields_for("elm"), "number": lsn}

    def _assert_parts(self, reader: IndexReader, items: dict[int, Item]) -> None:
        query = self.query_for("object_type", "id-", "elm")
        everything = reader.search(query, 1000)
        assert len(everything) > 50
        where = parse_where({"number": {"gte": 20, "lt": 80}})
        assert where is not None
        wheres = [None, where] if reader.holds("number") else [None]
        for types, condition in product((None, ["file"], ["file", "link_type"], ["none"]), wheres):
            expected = [
                hit
                for hit in everything
                if (types is None or hit.resource_type in types)
                and (condition is None or condition.matches(items[hit.lsn].fields or {}))
            ]
            for offset, limit in ((0, 1000), (0, 3), (7, 5), (len(expected) - 1, 3), (len(expected), 3), (10**30, 1)):
                found = reader.search(query, limit, offset=max(0, offset), resource_types=types, where=condition)
                assert found == expected[max(0, offset) : max(0, offset) + limit], (types, offset, limit)
        if not reader.holds("number"):
            with pytest.raises(InvalidConfig):
                reader.search(query, 10, where=where)

    def test_a_limit_below_one_is_refused_and_a_huge_one_is_allowed(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        writer.apply([item(1, "t", "a", self.fields_for("elm"))], 1)
        query = self.query_for("t", "a", "elm")
        for limit in (0, -1):
            with pytest.raises(InvalidConfig):
                reader.search(query, limit)
        assert len(reader.search(query, 10**30)) == 1
        with pytest.raises(InvalidConfig):
            reader.search(query, 1, offset=-1)

    def test_get_of_an_absent_record_is_none(self, writer: ShardWriter, reader: IndexReader) -> None:
        writer.apply([item(1, "t", "a", self.fields_for("elm"))], 1)
        for resource_type, id in (("t", "b"), ("u", "a"), ("", ""), ("t", "\ud800"), ("t", "x" * 5000), ("t", "A")):
            assert reader.get(resource_type, id) is None
