"""Snapshots for other programs, and files that never change again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.protocol import Backend, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, assert_reads


class Copying(Shards):
    """`snapshot` and `closed_files`."""

    def _filled(self, writer: ShardWriter, seed: int) -> tuple[Batches, Expected]:
        batches, expected = Batches(seed, self.fields_for), Expected()
        items = batches.puts(300)
        for shard in (writer, expected):
            shard.load(items, b"c")
            shard.finish_load(batches.lsn)
        return batches, expected

    def test_a_copy_has_the_state_of_its_snapshot_while_the_writer_continues(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter, tmp_path: Path
    ) -> None:
        batches, expected = self._filled(writer, 61)
        target = tmp_path / "copy" / "shard-000"
        target.parent.mkdir()
        with closing(backend.snapshot([path], options)) as snapshot:
            for _ in range(3):
                writer.apply(batches.changes(100), batches.lsn)
                writer.flush()
            snapshot.copy([target])
        with self.reading(backend, options, target) as reader:
            assert_reads(reader, expected, lambda fields: backend.project(options, fields))
        assert backend.check(target, options) == []

    def test_no_call_changes_a_closed_file(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        batches, _ = self._filled(writer, 62)
        writer.flush()
        before = {name: (path / name).read_bytes() for name in backend.closed_files(path, options)}
        writer.apply(batches.changes(100), batches.lsn)
        writer.flush()
        writer.compact()
        writer.repair_bucket(7, [])
        writer.flush()
        assert {name: (path / name).read_bytes() for name in backend.closed_files(path, options)} == before
