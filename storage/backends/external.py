"""The backend `external`: an index in a format that only its builder knows. The engine keeps it and switches to it.

The engine cannot search such an index or apply the journal to it: programs open it by its path. A switch to it is
possible only while no change of its resource types is newer than the `applied_lsn` of its builder, which is in
`build-manifest.json` (see `storage.generations.external_manifest`).
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
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.generations.external_manifest import BuildManifest, read_build_manifest


class ExternalBackend:
    """See `backends.protocol.Backend`. Every call that needs the format is refused."""

    name = EXTERNAL
    version = 1
    torn_by_power_cut = False

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """Any options: the builder and its caller agree on them."""
        return dict(build_config)

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing: only the builder knows the projection."""
        return {}

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        """An empty directory for the builder."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        sync_directory(path.parent)

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> ExternalShard:
        """The delivered index. Raises CorruptData when there is no manifest."""
        return ExternalShard(path)

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> ExternalReader:
        """For count and LSN only."""
        return ExternalReader(shards[0])

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """No findings: `storage.generations.external_manifest` checks the checksums of all files."""
        return []

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> ExternalSnapshot:
        """The files never change: they can be copied one by one."""
        return ExternalSnapshot(shards)

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """None: the builder's own manifest lists them, see `storage.generations.external_manifest`."""
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
    """The one "shard", as its builder left it. `applied_lsn` moves only over changes of other resource types."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.adopt()

    def adopt(self) -> None:
        """Read the manifest again, after its builder has applied more changes."""
        manifest = _manifest(self._path)
        self.delivered_lsn = self._applied_lsn = manifest.applied_lsn
        self.record_count = manifest.record_count

    def state(self) -> ShardState:
        """The LSN of the builder; there is no digest."""
        return ShardState(self._applied_lsn, b"", True, Digest())

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        """Refused."""
        raise self._unknown_format()

    def finish_load(self, applied_lsn: int) -> None:
        """Refused."""
        raise self._unknown_format()

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        """Raises InvalidTransition unless the slice of the journal has no change for this index."""
        if items:
            raise self._unknown_format(items[0].lsn)
        self._applied_lsn = applied_lsn
        return 0

    def flush(self) -> int:
        """The delivery is on disk already."""
        return self.delivered_lsn

    def compact(self) -> bool:
        """There is nothing to compact."""
        return False

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        """Refused."""
        raise self._unknown_format()

    def close(self) -> None:
        """Nothing is open."""

    def _unknown_format(self, lsn: int = 0) -> InvalidTransition:
        beyond = f"; the change at LSN {lsn} is newer than LSN {self._applied_lsn}, its applied_lsn"
        return InvalidTransition(
            f"the engine does not know the format of this index{beyond if lsn else ''}",
            operation="apply",
            hint="let its builder apply the changes after its applied_lsn and complete it again, then switch at once",
        )


class ExternalReader:
    """The record count and the LSN of the index; its errors name the path where programs open it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest = _manifest(path)

    def search(self, query: str, limit: int, **how: Any) -> list[Hit]:
        """Raises InvalidConfig: only a program that knows the format can search."""
        raise self._elsewhere()

    def holds(self, field: str) -> bool:
        """Nothing is known of it."""
        return False

    def get(self, resource_type: str, id: str) -> Record | None:
        """Raises InvalidConfig."""
        raise self._elsewhere()

    def count(self) -> int:
        """The count of the builder, which was that of the source at the switch."""
        return self._manifest.record_count

    def applied_lsn(self) -> int:
        """The LSN of the builder."""
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
            "only its builder knows the format of this index; the engine cannot search it",
            hint=f"open it by its path: {self._path.parent}, or published/<branch>/<INDEX_TYPE>",
        )
