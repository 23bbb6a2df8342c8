"""The re-check of a waiting shadow, one shard at a time: do its rows still say what its counters say?

Rows and counters are read in one and the same transaction of the shard (IX-2), so the shadow goes on following the
journal meanwhile. That the counters agree with the source is looked at by the host at a common LSN, in O(1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends import registry


class Recount(msgspec.Struct, frozen=True, tag=True):
    """To a worker: recompute the digest of one shard from its rows."""

    path: str
    backend: str
    options: dict[str, Any]


class Recounted(msgspec.Struct, frozen=True, tag=True):
    """The buckets in which rows and counters differ; or, in `damage`, why the shard cannot be read."""

    differing_buckets: list[int]
    damage: str = ""


class CheckShards(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the backend's own check of all shards, in a process that damage may end."""

    paths: list[str]
    backend: str
    options: dict[str, Any]


class Checked(msgspec.Struct, frozen=True, tag=True):
    """What the check found; nothing when the shards are sound."""

    problems: list[str]


def check_shards(task: CheckShards) -> Checked:
    """Read everything."""
    backend = registry.backend(task.backend)
    return Checked([text for path in task.paths for text in backend.check(Path(path), task.options)])


def recount(task: Recount) -> Recounted:
    """Read every row of the shard."""
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
