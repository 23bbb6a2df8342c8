"""The readings of one shard in a worker process: every row for its digest, and the check of its backend.

A reading takes rows and counters in one transaction of the shard (IX-2), so a shadow follows the journal meanwhile. The
host puts the digests of all shards together, and compares them with the source at a common LSN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, Counting, Probing
from shadowswitch.storage.generations.manifest import ClosedFile, check_closed_files, checksums
from shadowswitch.storage.reading import Count, Note, no_look, no_note
from shadowswitch.storage.shortages import shortages

SLICE = 1000
"""Rows between two calls of `looked`."""


class ReadShard(msgspec.Struct, frozen=True, tag=True):
    """To a worker: compute the digest of one shard from its rows."""

    path: str
    backend: str
    options: dict[str, Any]
    check: bool = False
    """With the check of the backend, and the checksums of its closed files."""


class ShardRead(msgspec.Struct, frozen=True, tag=True):
    """The encoded digests, by the rows and by the counters of the shard. `damage` is why its rows cannot be read."""

    rows: bytes = b""
    counters: bytes = b""
    damage: str = ""
    problems: list[str] = []
    """What the check found."""
    closed_files: dict[str, ClosedFile] = {}


class CheckShards(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the backend's own check of all shards. Damage may end the process."""

    paths: list[str]
    backend: str
    options: dict[str, Any]
    probe: bool = False
    """Only what the host does before it opens them, see `backends.protocol.Probing`."""
    manifest_hash: str = ""
    """With it the closed files are compared with the manifest."""


class Checked(msgspec.Struct, frozen=True, tag=True):
    """The findings of the check; none when the shards are sound."""

    problems: list[str]


def check_shards(task: CheckShards, reading: Note = no_note, looked: Count = no_look) -> Checked:
    """Run the check of the backend over every shard, or its probe."""
    backend = registry.backend(task.backend)
    problems = []
    for path in map(Path, task.paths):
        reading(path)
        found = probe(backend, path, task.options) if task.probe else check(backend, path, task.options, looked)
        problems += [f"{path.name}: {text}" for text in found]
    return Checked(problems + check_closed_files(Path(task.paths[0]).parent, task.manifest_hash))


def probe(backend: Backend, path: Path, options: Mapping[str, Any]) -> list[str]:
    """The findings of the probe of a shard; none where the backend needs no probe."""
    return backend.probe(path, options) if isinstance(backend, Probing) else []


def check(backend: Backend, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
    """The findings of the backend's own check of a shard."""
    if isinstance(backend, Counting):
        return backend.check_counting(path, options, looked)
    return backend.check(path, options)


def read_shard(task: ReadShard, reading: Note = no_note, looked: Count = no_look) -> ShardRead:
    """Read every row of the shard, and check it.

    Raises CorruptData for damage that may end a reader: the host must not repair such a shard either.
    """
    path, backend = Path(task.path), registry.backend(task.backend)
    reading(path)
    found = probe(backend, path, task.options)
    if found:
        hint = "cancel the shadow and build another"
        raise CorruptData(f"{path.name}: {'; '.join(found)}", object=str(path), hint=hint)
    own, counters, damage = Digest(), Digest(), ""
    try:
        with contextlib.closing(backend.open_reader([path], task.options)) as reader:
            state, versions = reader.shard_versions(0)
            before = -1
            while own.count > before:
                before = own.count
                own.add_versions(islice(versions, SLICE))
                looked(own.count - before)
            counters = state.digest
    except ShadowSwitchError as error:
        if error.recoverable:
            raise
        damage = f"{path.name}: {error}"
    read = ShardRead(own.encode(), counters.encode(), damage)
    return msgspec.structs.replace(read, **_checked(backend, path, task.options, looked)) if task.check else read


def _checked(backend: Backend, path: Path, options: Mapping[str, Any], looked: Count) -> dict[str, Any]:
    try:
        problems = [f"{path.name}: {finding}" for finding in check(backend, path, options, looked)]
        with shortages("validate", str(path)):
            closed = checksums(path.parent, backend, [path], options)
    except ShadowSwitchError as error:
        if error.recoverable:
            raise
        return {"problems": [str(error)]}
    except OSError as error:
        return {"problems": [f"a closed file cannot be read: {error}"]}
    return {"problems": problems, "closed_files": closed}
