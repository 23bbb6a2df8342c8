"""The hooks for a backend, and the fixtures of every part of the suite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.conformance.expected import Expected, Fields, assert_holds, assert_reads


class Hooks:
    """Override these for your backend; `backend_spec` is the only one without a default."""

    backend_spec: str
    """ "module:attr", importable in any process."""
    build_config: Mapping[str, Any] = {}
    wrong_configs: tuple[Mapping[str, Any], ...] = ({"no_such_option": 1},)
    fields_template = '{"title": "WORD", "nested": {"tags": ["tree", "WORD"]}, "size": 3}'
    """JSON of a record's fields, with WORD where `query_for` looks."""

    finds_the_nearest = False
    """A query finds what is near to it: every record, in an order."""

    def query_for(self, resource_type: str, id: str, word: str) -> str:
        """A query that finds the record with these fields (and perhaps others)."""
        return word

    def alter_row(self, path: Path, resource_type: str, id: str) -> None:
        """Change one stored row without the backend, while no writer or reader is open; `check` must find it."""
        pytest.skip("this backend has no way to plant an alteration")

    def damage(self, path: Path) -> None:
        """Make a shard unusable: here every regular file in it becomes text."""
        for file in path.rglob("*"):
            if file.is_file():
                file.write_text("this is not an index\n" * 1000)


class Shards(Hooks):
    """Shards for the tests. At the end of a test, its shards are closed and checked."""

    @pytest.fixture
    def backend(self) -> Backend:
        return registry.load(self.backend_spec)

    @pytest.fixture
    def options(self, backend: Backend) -> dict[str, Any]:
        return backend.configure(self.build_config)

    @pytest.fixture
    def path(self, backend: Backend, options: dict[str, Any], tmp_path: Path) -> Path:
        """An empty shard, in a directory with the characters that names of generation directories have."""
        path = tmp_path / "feature%2Fuser schema?" / "shard-000"
        path.parent.mkdir()
        backend.create_shard(path, options)
        return path

    @pytest.fixture
    def writer(self, backend: Backend, options: dict[str, Any], path: Path) -> Iterator[ShardWriter]:
        """The writer of an empty shard; the shard is checked when the test ends."""
        writer = backend.open_writer(path, options)
        yield writer
        writer.close()
        assert backend.check(path, options) == []

    @pytest.fixture
    def reader(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> Iterator[IndexReader]:
        with closing(backend.open_reader([path], options)) as reader:
            yield reader

    @contextmanager
    def reading(self, backend: Backend, options: dict[str, Any], path: Path) -> Iterator[IndexReader]:
        with closing(backend.open_reader([path], options)) as reader:
            yield reader

    def fields_for(self, word: str) -> Fields:
        fields: Fields = json.loads(self.fields_template.replace("WORD", word))
        return fields

    def assert_same(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter, expected: Expected
    ) -> None:
        """Writer, a new reader and the model agree."""
        with self.reading(backend, options, path) as reader:
            assert_holds(writer, reader, expected)
            assert_reads(reader, expected, lambda fields: backend.project(options, fields))
