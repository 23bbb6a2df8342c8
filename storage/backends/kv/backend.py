"""The `kv` backend: records by key in LMDB, the default for every index type but SEARCH_INDEX.

It stands for any derived structure with lookups by key: `get`, `scan`, and `search` by the beginning of an id. The
modules: `store` (the environment, keys, errors), `writer`, `reader`, `copy`, `seed`.

Durability: LMDB with `sync=False`; a commit does not wait for the disk, `flush` does. A crash of the process loses
nothing. A power cut can: the operating system writes pages in any order, so a transaction after the last `flush` may be
torn, and LMDB cannot always detect that. So at the first start after a reboot the engine checks every `kv` shard that
was not closed cleanly (`check` reads every row against the digest), and does not serve an unsound one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest, key_hash
from shadowswitch.model.errors import CorruptData, InvalidConfig
from shadowswitch.storage.backends.kv import seed as kv_seed
from shadowswitch.storage.backends.kv import store as kv_store
from shadowswitch.storage.backends.kv.copy import KvSnapshot
from shadowswitch.storage.backends.kv.frozen import KvFreezingReader
from shadowswitch.storage.backends.kv.growth import MAP_SIZE_MIB_MAX
from shadowswitch.storage.backends.kv.reader import KvReader
from shadowswitch.storage.backends.kv.writer import KvWriter
from shadowswitch.storage.backends.protocol import Reuse
from shadowswitch.storage.reading import Count, no_look

MAP_SIZE_MIB = 4096
"""Address space of one shard, which grows when it is full; the file is sparse."""
FINDINGS_MAX = 20
COUNTED = 1000
"""Rows between two signs that a check goes on."""


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
        return {"fields": _fields(build_config.get("fields")), "map_size_mib": _map_size(build_config)}

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
            return KvWriter(environment, partial(self.project, options))
        except BaseException:
            kv_store.release(environment)
            raise

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvReader:
        return KvReader(shards, options)

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> KvFreezingReader:
        return KvFreezingReader(shards, options)

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return self.check_counting(path, options, no_look)

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        return self.probe(path, options) or _looked_at(path, options, partial(_check, looked=looked))

    def probe(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        return _looked_at(path, options, _walk_pages)

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


def _fields(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise InvalidConfig("fields is not a list of field names", hint='for example ["title", "owner"]')
    return sorted(set(value))


def _map_size(build_config: Mapping[str, Any]) -> int:
    value = build_config.get("map_size_mib", MAP_SIZE_MIB)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAP_SIZE_MIB_MAX:
        raise InvalidConfig(f"map_size_mib is {value!r}", hint=f"use whole MiB from 1 to {MAP_SIZE_MIB_MAX}")
    return value


def _looked_at(path: Path, options: Mapping[str, Any], look: Callable[[kv_store.Environment], list[str]]) -> list[str]:
    try:
        environment = kv_store.open_environment(path, options)
    except CorruptData as error:
        return [error.message]
    try:
        with kv_store.translated("check", path):
            return look(environment)
    except CorruptData as error:
        return [error.message]
    finally:
        kv_store.release(environment)


def _walk_pages(environment: kv_store.Environment) -> list[str]:
    """LMDB copies the shard into nothing. That visits every page in use, the list of free pages too, and most damage
    that would end a cursor with SIGABRT is an error there."""
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with environment.map.used():
            environment.env.copyfd(nothing, compact=True)
    finally:
        os.close(nothing)
    return []


def _check(environment: kv_store.Environment, looked: Count) -> list[str]:
    """Findings: every row decodes, lies under its own key, and is counted. Reads one transaction."""
    findings: list[str] = []
    digest = Digest()
    with environment.map.transaction() as transaction:
        stored = kv_store.state_of(environment.read_meta(transaction)).digest
        rows = 0
        for key, value in transaction.cursor(db=environment.rows):
            rows += 1
            if rows % COUNTED == 0:
                looked(COUNTED)
            try:
                resource_type, id, lsn, _ = kv_store.decode_row(key, value)
            except (CorruptData, msgspec.DecodeError) as error:
                findings.append(f"rows: {error}")
            else:
                if kv_store.stored_key(kv_store.full_key(resource_type, id)) != key:
                    findings.append(f"rows: {resource_type}/{id} is stored under another key")
                if lsn < 1:
                    findings.append(f"rows: {resource_type}/{id} has the LSN {lsn}")
                digest.add(key_hash(resource_type, id), lsn)
            if len(findings) >= FINDINGS_MAX:
                return findings
        if rows != transaction.stat(environment.rows)["entries"]:
            findings.append("rows: their number is not that of the database")
    differing = stored.differing(digest)
    if differing:
        findings.append(f"digest: the rows of buckets {differing} do not match the counters")
    return findings
