"""Replaying the journal: ordered, gated, idempotent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.records import Item
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, assert_holds, item, rows_of

TURNS_MAX = 10_000
"""With more turns of `compact`, a backend would keep a follower busy for ever."""


class _Broken(Exception):
    """The error of a batch that cannot be read to its end."""


class _BreakingOff(list[Item]):
    """A batch that fails after its last item."""

    def __iter__(self) -> Iterator[Item]:
        yield from super().__iter__()
        raise _Broken


class Applying(Shards):
    """`apply` and `flush` (BK-1, BK-2, BK-3)."""

    @pytest.mark.parametrize("seed", [21, 22, 23])
    def test_any_history_with_replays_and_restarts_ends_like_the_model(
        self, backend: Backend, options: dict[str, Any], path: Path, seed: int
    ) -> None:
        batches, expected = Batches(seed, self.fields_for), Expected()
        writer = backend.open_writer(path, options)
        history: list[tuple[list[Item], int]] = []
        for _ in range(30):
            if history and batches.random.random() < 0.3:
                items, lsn = batches.random.choice(history)
            else:
                items = batches.changes(batches.random.choice((0, 1, 5, 60)))
                lsn = batches.lsn
                history.append((items, lsn))
            assert writer.apply(items, lsn) == expected.apply(items, lsn)
            if batches.random.random() < 0.2:
                assert writer.flush() == expected.applied_lsn
            if batches.random.random() < 0.1:
                writer.close()
                writer = backend.open_writer(path, options)
        self.assert_same(backend, options, path, writer, expected)
        writer.close()
        assert backend.check(path, options) == []

    def test_the_order_inside_a_batch_does_not_matter(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, expected = Batches(24, self.fields_for), Expected()
        for _ in range(6):
            items = batches.changes(100)
            expected.apply(items, batches.lsn)
            batches.random.shuffle(items)
            writer.apply(items, batches.lsn)
        self.assert_same(backend, options, path, writer, expected)

    def test_an_item_not_above_applied_lsn_changes_nothing(self, writer: ShardWriter, reader: IndexReader) -> None:
        expected = Expected()
        for shard in (writer, expected):
            shard.apply([item(5, "t", "a", self.fields_for("elm"))], 10)
        stale = [item(10, "t", "a", self.fields_for("fir")), item(9, "t", "b", self.fields_for("fir"))]
        assert writer.apply(stale, 10) == 0
        assert writer.apply(stale, 8) == 0
        assert_holds(writer, reader, expected)

    def test_a_deleted_record_is_not_revived_by_a_stale_put(self, writer: ShardWriter, reader: IndexReader) -> None:
        assert writer.apply([item(1, "t", "a", self.fields_for("elm"))], 1) == 1
        assert writer.apply([item(2, "t", "a", None)], 2) == 1
        assert writer.apply([item(1, "t", "a", self.fields_for("elm"))], 2) == 0
        assert writer.apply([item(3, "t", "a", None)], 3) == 0
        assert rows_of(reader) == []
        assert writer.state().digest.count == 0
        assert writer.apply([item(4, "t", "a", self.fields_for("elm"))], 4) == 1
        assert rows_of(reader) == [("t", "a", 4)]

    def test_compact_ends_and_changes_nothing_that_readers_see(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, expected = Batches(25, self.fields_for), Expected()
        for shard in (writer, expected):
            shard.finish_load(0)
        for number in range(40):
            items = batches.changes(20)
            for shard in (writer, expected):
                shard.apply(items, batches.lsn)
            if number % 3 == 0:
                writer.compact()
        turns = 0
        while writer.compact():
            turns += 1
            assert turns < TURNS_MAX
        self.assert_same(backend, options, path, writer, expected)

    def test_an_empty_batch_moves_applied_lsn(self, writer: ShardWriter) -> None:
        assert writer.apply([], 9) == 0
        assert writer.state().applied_lsn == 9
        assert writer.flush() == 9

    def test_a_batch_that_fails_stores_nothing_and_the_writer_continues(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        expected = Expected()
        first = [item(1, "t", "a", self.fields_for("elm"))]
        for shard in (writer, expected):
            shard.apply(first, 1)
        with pytest.raises(_Broken):
            writer.apply(_BreakingOff([item(2, "t", "a", self.fields_for("fir"))]), 3)
        assert_holds(writer, reader, expected)
        later = [item(4, "t", "a", None), item(5, "t", "b", self.fields_for("hazel"))]
        assert writer.apply(later, 5) == expected.apply(later, 5)
        assert_holds(writer, reader, expected)
