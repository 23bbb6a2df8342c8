"""Creating, opening and closing; options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import CorruptData, InvalidConfig, ShadowSwitchError
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Batches, Expected, assert_holds, item


class Opening(Shards):
    """A new shard is empty, opens as it was closed, and refuses other options and damage."""

    def test_a_new_shard_is_empty_and_sound(self, writer: ShardWriter, reader: IndexReader) -> None:
        assert_holds(writer, reader, Expected())
        assert (reader.count(), reader.applied_lsn(), list(reader.scan())) == (0, 0, [])

    def test_canonical_options_are_json_and_stable(self, backend: Backend, options: dict[str, Any]) -> None:
        assert json.loads(json.dumps(options)) == options
        assert backend.configure(options) == options

    def test_a_wrong_option_is_refused_with_a_hint(self, backend: Backend) -> None:
        for wrong in self.wrong_configs:
            print(wrong)
            with pytest.raises(InvalidConfig) as refused:
                backend.configure(wrong)
            assert refused.value.hint

    def test_a_shard_opens_as_it_was_closed(self, backend: Backend, options: dict[str, Any], path: Path) -> None:
        batches, expected = Batches(1, self.fields_for), Expected()
        for number in range(4):
            writer = backend.open_writer(path, options)
            self.assert_same(backend, options, path, writer, expected)
            items = batches.changes(50)
            for shard in (writer, expected):
                if number == 2:
                    shard.finish_load(batches.lsn)
                if number < 2:
                    shard.load([one for one in items if one.fields is not None], b"cursor-%d" % number)
                elif number == 3:
                    shard.apply(items, batches.lsn)
            self.assert_same(backend, options, path, writer, expected)
            writer.close()

    def test_creating_again_empties_the_shard(self, backend: Backend, options: dict[str, Any], path: Path) -> None:
        writer = backend.open_writer(path, options)
        writer.load([item(1, "t", "a", self.fields_for("elm"))], b"c")
        writer.close()
        (path / "stray").write_text("left over")
        backend.create_shard(path, options)
        assert not (path / "stray").exists()
        writer = backend.open_writer(path, options)
        self.assert_same(backend, options, path, writer, Expected())
        writer.close()

    def test_a_shard_is_not_made_below_a_missing_directory(
        self, backend: Backend, options: dict[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises((OSError, ShadowSwitchError)):
            backend.create_shard(tmp_path / "missing" / "shard-000", options)
        assert not (tmp_path / "missing").exists()

    def test_closing_twice_is_allowed_and_a_closed_object_refuses_calls(
        self, backend: Backend, options: dict[str, Any], path: Path
    ) -> None:
        writer, reader = backend.open_writer(path, options), backend.open_reader([path], options)
        for thing in (writer, reader, writer, reader):
            thing.close()
        with pytest.raises(ShadowSwitchError):
            writer.apply([item(1, "t", "a", self.fields_for("elm"))], 1)
        with pytest.raises(ShadowSwitchError):
            reader.search(self.query_for("t", "a", "elm"), 1)
        with pytest.raises(ShadowSwitchError):
            reader.get("t", "a")
        with pytest.raises(ShadowSwitchError):
            reader.count()

    def test_a_missing_or_damaged_shard_is_corrupt_data(
        self, backend: Backend, options: dict[str, Any], path: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        self.damage(path)
        for place in (tmp_path / "nothing", tmp_path / "empty", path):
            with pytest.raises(CorruptData):
                backend.open_writer(place, options)
            with pytest.raises(CorruptData):
                backend.open_reader([place], options)
            assert backend.check(place, options)
        assert not (tmp_path / "nothing").exists()
        assert list((tmp_path / "empty").iterdir()) == []
