"""The backend `external`: an index in a format that only its builder knows. The engine keeps it, and leads to it.

It cannot be searched through the engine and does not follow the journal: programs open it by its path. So it can be
switched to only while no change of its resource types is newer than its builder's `applied_lsn`; what the builder says
of itself is in `build-manifest.json` (see `storage.generations.external_manifest`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, InvalidConfig, InvalidTransition
from shadowswitch.model.records import Hit, Item, Record
from shadowswitch.storage.backends.protocol import ShardState
from shadowswitch.storage.catalog.rows import EXTERNAL
from shadowswitch.storage.data_directory import sync_directory
from shadowswitch.storage.generations.external_manifest import BuildManifest, read_build_manifest


class ExternalBackend:
    """See `backends.protocol.Backend`; what needs to know the format is refused."""

    name = EXTERNAL
    version = 1
    torn_by_power_cut = False

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """Whatever the builder and its caller agree on."""
        return dict(build_config)

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Nobody but the builder knows what the index holds."""
        return {}

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        """An empty directory for the builder."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700, parents=True)
        sync_directory(path.parent)

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> ExternalShard:
        """What the builder delivered. Raises CorruptData when there is no manifest."""
        return ExternalShard(path)

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> ExternalReader:
        """For its count and its LSN; it does not search."""
        return ExternalReader(shards[0])

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """The checksums are looked at as a whole, see `storage.generations.external_manifest`."""
        return []

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> ExternalSnapshot:
        """Nothing changes these files: they can be copied one by one."""
        return ExternalSnapshot(shards)

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """Its builder's own manifest lists them all, see `storage.generations.external_manifest`."""
        return []


class ExternalSnapshot:
    """See `backends.protocol.Snapshot`."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = list(shards)

    def copy(self, targets: Sequence[Path]) -> None:
        """Plain copies; no link is followed."""
        for path, target in zip(self._shards, targets, strict=True):
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True)

    def close(self) -> None:
        """Nothing is open."""


def _manifest(shard: Path) -> BuildManifest:
    try:
        return read_build_manifest(shard.parent)
    except ValueError as error:
        raise CorruptData(str(error), object=str(shard.parent), hint="build it again") from error


class ExternalShard:
    """The one "shard": where its builder left it. `applied_lsn` moves only over changes that do not concern it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.adopt()

    def adopt(self) -> None:
        """Read the manifest (again): its builder brought it further."""
        manifest = _manifest(self._path)
        self.delivered_lsn = self._applied_lsn = manifest.applied_lsn
        self.record_count = manifest.record_count

    def state(self) -> ShardState:
        """As far as the builder came; there is no digest."""
        return ShardState(self._applied_lsn, b"", True, Digest())

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        """Refused."""
        raise self._unknown_format()

    def finish_load(self, applied_lsn: int) -> None:
        """Refused."""
        raise self._unknown_format()

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        """Raises InvalidTransition unless the stretch of the journal has nothing for this index."""
        if items:
            raise self._unknown_format(items[0].lsn)
        self._applied_lsn = applied_lsn
        return 0

    def flush(self) -> int:
        """It was forced to disk when it was delivered."""
        return self.delivered_lsn

    def compact(self) -> bool:
        """There is nothing to tend."""
        return False

    def scan(self, bucket: int | None = None) -> Iterator[tuple[str, str, int]]:
        """Refused."""
        raise self._unknown_format()

    def delete_bucket(self, bucket: int) -> int:
        """Refused."""
        raise self._unknown_format()

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        """Refused."""
        raise self._unknown_format()

    def close(self) -> None:
        """Nothing is open."""

    def _unknown_format(self, lsn: int = 0) -> InvalidTransition:
        beyond = f"; the change at LSN {lsn} is newer than LSN {self._applied_lsn}, up to which it was built"
        return InvalidTransition(
            f"the engine does not know the format of this index{beyond if lsn else ''}",
            operation="apply",
            hint="let its builder apply the changes after its applied_lsn and complete it again, then switch at once",
        )


class ExternalReader:
    """Knows how many records the index holds and how far it is, and where programs find it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest = _manifest(path)

    def search(self, query: str, limit: int) -> list[Hit]:
        """Raises InvalidConfig: only programs that know the format can."""
        raise self._elsewhere()

    def get(self, resource_type: str, id: str) -> Record | None:
        """Raises InvalidConfig."""
        raise self._elsewhere()

    def count(self) -> int:
        """As the builder says, which was equal to its source when it was switched to."""
        return self._manifest.record_count

    def applied_lsn(self) -> int:
        """As the builder says."""
        return self._manifest.applied_lsn

    def scan(self) -> Iterator[Record]:
        """Raises InvalidConfig."""
        raise self._elsewhere()

    def shard_snapshot(self, shard: int) -> tuple[ShardState, Iterator[Record]]:
        """Raises InvalidConfig."""
        raise self._elsewhere()

    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        """Raises InvalidConfig."""
        raise self._elsewhere()

    def close(self) -> None:
        """Nothing is open."""

    def _elsewhere(self) -> InvalidConfig:
        return InvalidConfig(
            "this index is in a format of its builder's and is not searched through the engine",
            hint=f"open it by its path: {self._path.parent}, or published/<branch>/<INDEX_TYPE>",
        )
