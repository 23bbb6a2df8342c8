"""The base of a backend that derives entries from its records.

A backend of your own names itself, checks its options and says what it derives; its reader answers:

    class Tags(DerivedBackend):
        name, version, reader_type = "tags", 1, TagsReader

        def deriver(self, options):
            return lambda resource_type, id, fields: ((tag.encode(), [resource_type, id]) for tag in fields["tags"])

Everything else is done: rows, counters, LSNs, the copy of a build, seeds, frozen readers, checks (see `protocol`).
docs/your-own-backend.md has a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.backends.derived.check import check_entries
from shadowswitch.storage.backends.derived.reader import DerivedReader
from shadowswitch.storage.backends.derived.writer import Derive, DerivedWriter
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.backend import KvBackend, fields_of, map_size_of
from shadowswitch.storage.backends.kv.check import looked_at
from shadowswitch.storage.backends.kv.frozen import KvFreezingReader
from shadowswitch.storage.reading import Count


class DerivedBackend(KvBackend):
    """See the module. Stateless."""

    name = ""
    version = 1
    """Raise it when `deriver` derives something else from the same record."""
    reader_type: type[DerivedReader] = DerivedReader
    own_options: tuple[str, ...] = ()
    """The names of the options beside `fields` and `map_size_mib`."""

    def deriver(self, options: Mapping[str, Any]) -> Derive:
        """What finds the entries of a record. Called once for a writer, in any process."""
        raise NotImplementedError

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """`fields`, the fields that `get` gives (default: all), and `map_size_mib`. Raises InvalidConfig for others.

        A backend with options of its own names them in `own_options`, and adds them to what this returns.
        """
        known = (*self.own_options, "fields", "map_size_mib")
        unknown = sorted(str(name) for name in build_config if name not in known)
        if unknown:
            hint = f"use {', '.join(known)}"
            raise InvalidConfig(f"unknown option of backend {self.name}: {', '.join(unknown)}", hint=hint)
        return {"fields": fields_of(build_config.get("fields")), "map_size_mib": map_size_of(build_config)}

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        store.create(path, options, derives=True)

    def _writer(self, environment: store.Environment, options: Mapping[str, Any]) -> DerivedWriter:
        return DerivedWriter(environment, partial(self.project, options), self.deriver(options))

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> DerivedReader:
        return self.reader_type(shards, options)

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvFreezingReader:
        reader_type: Any = self.reader_type
        return _freezing(reader_type)(shards, options)

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        found = super().check_counting(path, options, looked)
        return found or looked_at(path, options, partial(check_entries, looked=looked))


@cache
def _freezing(reader_type: Any) -> type[KvFreezingReader]:
    return cast(type[KvFreezingReader], type(f"Freezing{reader_type.__name__}", (KvFreezingReader, reader_type), {}))
