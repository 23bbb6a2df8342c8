"""The `kv` backend: records by key in LMDB, the default for every index type but SEARCH_INDEX.

It stands for any derived structure with lookups by key: `get`, `scan`, and `search` by the beginning of an id. The
modules: `store` (the environment, keys, errors), `writer`, `reader`, `check`, `copy`, `seed`.

Durability: LMDB with `sync=False`; a commit does not wait for the disk, `flush` does. A crash of the process loses
nothing. A power cut can: the operating system writes pages in any order, so a transaction after the last `flush` may be
torn, and LMDB cannot always detect that. So at the first start after a reboot the engine checks every `kv` shard that
was not closed cleanly (`check` reads every row against the digest), and does not serve an unsound one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.backends.kv import seed as kv_seed
from shadowswitch.storage.backends.kv import store as kv_store
from shadowswitch.storage.backends.kv.check import check_rows, looked_at, walk_pages
from shadowswitch.storage.backends.kv.copy import KvSnapshot
from shadowswitch.storage.backends.kv.frozen import KvFreezingReader
from shadowswitch.storage.backends.kv.growth import MAP_SIZE_MIB_MAX
from shadowswitch.storage.backends.kv.reader import KvReader
from shadowswitch.storage.backends.kv.writer import KvWriter
from shadowswitch.storage.backends.protocol import Reuse
from shadowswitch.storage.reading import Count, no_look

MAP_SIZE_MIB = 4096
"""Address space of one shard, which grows when it is full; the file is sparse."""


class KvBackend:
    """See `protocol.Backend`. Stateless."""

    name = "kv"
    version = 1
    torn_by_power_cut = True

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(str(name) for name in build_config if name not in ("fields", "map_size_mib"))
        if unknown:
            hint = "use fields or map_size_mib"
            raise InvalidConfig(f"unknown option of backend kv: {', '.join(unknown)}", hint=hint)
        return {"fields": fields_of(build_config.get("fields")), "map_size_mib": map_size_of(build_config)}

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        kept: list[str] | None = options["fields"]
        if kept is None:
            return dict(fields)
        return {name: fields[name] for name in kept if name in fields}

    def chosen_fields(self, options: Mapping[str, Any]) -> list[str]:
        return list(options["fields"] or ())

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        kv_store.create(path, options)

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> KvWriter:
        environment = kv_store.open_environment(path, options)
        try:
            return self._writer(environment, options)
        except BaseException:
            kv_store.release(environment)
            raise

    def _writer(self, environment: kv_store.Environment, options: Mapping[str, Any]) -> KvWriter:
        return KvWriter(environment, partial(self.project, options))

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvReader:
        return KvReader(shards, options)

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvFreezingReader:
        return KvFreezingReader(shards, options)

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return self.check_counting(path, options, no_look)

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        return self.probe(path, options) or looked_at(path, options, partial(check_rows, looked=looked))

    def probe(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return looked_at(path, options, walk_pages)

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvSnapshot:
        return KvSnapshot(shards, options)

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return []  # the one file of a shard changes with every commit

    def plan(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
        return kv_seed.plan(old, new)

    def seed(
        self, source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]
    ) -> None:
        kv_seed.seed(source, old, target, new)


def fields_of(value: Any) -> list[str] | None:
    """The option `fields`: names, sorted; None for all. Raises InvalidConfig."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise InvalidConfig("fields is not a list of field names", hint='for example ["title", "owner"]')
    return sorted(set(value))


def map_size_of(build_config: Mapping[str, Any]) -> int:
    """The option `map_size_mib`. Raises InvalidConfig."""
    value = build_config.get("map_size_mib", MAP_SIZE_MIB)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAP_SIZE_MIB_MAX:
        raise InvalidConfig(f"map_size_mib is {value!r}", hint=f"use whole MiB from 1 to {MAP_SIZE_MIB_MAX}")
    return value
