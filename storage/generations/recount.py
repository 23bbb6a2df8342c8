"""The check of the rows of a shard against its counters: for a waiting shadow, one shard at a time.

A recount reads rows and counters in one transaction of the shard (IX-2), so the shadow follows the journal during the
recount. The host compares the counters with the source at a common LSN, in O(1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, Probing
from shadowswitch.storage.reading import Note, no_note


class Recount(msgspec.Struct, frozen=True, tag=True):
    """To a worker: recompute the digest of one shard from its rows."""

    path: str
    backend: str
    options: dict[str, Any]


class Recounted(msgspec.Struct, frozen=True, tag=True):
    """The buckets in which rows and counters differ; or in `damage` the reason why the shard cannot be read."""

    differing_buckets: list[int]
    damage: str = ""


class CheckShards(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the backend's own check of all shards. Damage may end the process."""

    paths: list[str]
    backend: str
    options: dict[str, Any]
    probe: bool = False
    """Only what the host does before it opens them, see `backends.protocol.Probing`."""


class Checked(msgspec.Struct, frozen=True, tag=True):
    """The findings of the check; none when the shards are sound."""

    problems: list[str]


def check_shards(task: CheckShards, reading: Note = no_note) -> Checked:
    """Run the check of the backend over every shard, or its probe."""
    backend = registry.backend(task.backend)
    problems = []
    for path in map(Path, task.paths):
        reading(path)
        found = probe(backend, path, task.options) if task.probe else backend.check(path, task.options)
        problems += [f"{path.name}: {text}" for text in found]
    return Checked(problems)


def probe(backend: Backend, path: Path, options: Mapping[str, Any]) -> list[str]:
    """The findings of the probe of a shard; none where the backend needs no probe."""
    return backend.probe(path, options) if isinstance(backend, Probing) else []


def recount(task: Recount, reading: Note = no_note) -> Recounted:
    """Compare every row of the shard with its counters."""
    reading(Path(task.path))
    found = probe(registry.backend(task.backend), Path(task.path), task.options)
    if found:
        return Recounted([], "; ".join(found))
    try:
        return Recounted(_differing(task))
    except CorruptData as error:
        return Recounted([], str(error))


def _differing(task: Recount) -> list[int]:
    reader = registry.backend(task.backend).open_reader([Path(task.path)], task.options)
    try:
        state, versions = reader.shard_versions(0)
        own = Digest()
        own.add_versions(versions)
        return own.differing(state.digest)
    finally:
        reader.close()
