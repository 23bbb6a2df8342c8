"""The bulk load of a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch.storage.backends.protocol import Backend, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, item


class Loading(Shards):
    """`load` and `finish_load` (BK-1, BK-3)."""

    @pytest.mark.parametrize("seed", [11, 12])
    def test_slices_of_any_size_add_up(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter, seed: int
    ) -> None:
        batches, expected = Batches(seed, self.fields_for), Expected()
        for number, size in enumerate((0, 1, 15, 16, 17, 127, 129, 300, 0)):
            items = batches.puts(size)
            batches.random.shuffle(items)
            for shard in (writer, expected):
                shard.load(items, b"cursor-%d" % number)
        self.assert_same(backend, options, path, writer, expected)
        assert writer.state().applied_lsn == 0
        for shard in (writer, expected):
            shard.finish_load(7)
        self.assert_same(backend, options, path, writer, expected)

    def test_a_slice_loaded_again_changes_nothing_and_a_newer_version_wins(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, expected = Batches(13, self.fields_for), Expected()
        old, new = batches.puts(80), batches.puts(80)
        for items in (new, old, new, old):
            for shard in (writer, expected):
                shard.load(items, b"c")
        self.assert_same(backend, options, path, writer, expected)

    def test_a_loaded_version_newer_than_the_copy_survives_the_replay_of_older_changes(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        expected = Expected()
        ahead = [item(50, "t", "a", self.fields_for("elm")), item(51, "t", "b", self.fields_for("fir"))]
        replay = [item(20, "t", "a", self.fields_for("birch")), item(30, "t", "b", None)]
        for shard in (writer, expected):
            shard.load(ahead, b"c")
            shard.finish_load(10)
        assert writer.apply(replay, 40) == expected.apply(replay, 40) == 0
        self.assert_same(backend, options, path, writer, expected)
