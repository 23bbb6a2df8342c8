"""The check of the rows of a shard against its counters: for a waiting shadow, one shard at a time.

A recount reads rows and counters in one transaction of the shard (IX-2), so the shadow follows the journal during the
recount. The host compares the counters with the source at a common LSN, in O(1).
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
    """The buckets in which rows and counters differ; or in `damage` the reason why the shard cannot be read."""

    differing_buckets: list[int]
    damage: str = ""


class CheckShards(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the backend's own check of all shards. Damage may end the process."""

    paths: list[str]
    backend: str
    options: dict[str, Any]


class Checked(msgspec.Struct, frozen=True, tag=True):
    """The findings of the check; none when the shards are sound."""

    problems: list[str]


def check_shards(task: CheckShards) -> Checked:
    """Run the check of the backend over every shard."""
    backend = registry.backend(task.backend)
    return Checked([text for path in task.paths for text in backend.check(Path(path), task.options)])


def recount(task: Recount) -> Recounted:
    """Compare every row of the shard with its counters."""
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
