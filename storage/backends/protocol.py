"""The Backend protocol: what the engine needs from a kind of index, and nothing else.

A generation is a directory with N shards, `shard-000` to `shard-NNN`; a shard is a directory of its own that belongs to
the backend alone. A key belongs to exactly one shard (`digest.shard_of(bucket, shards)`), for ever.

What a backend promises, and the conformance suite (`shadowswitch.storage.conformance`) checks:

* BK-1 A shard is one transaction at a time: rows, counters, `applied_lsn` and `cursor` of one `load` or `apply` become
  visible and survive a crash together or not at all. (A power cut may take the newest ones; see BK-4.)
* BK-2 `apply` is ordered and idempotent: an item whose LSN is not above the shard's `applied_lsn`, or not above the LSN
  stored for its key, changes nothing; so a replayed stretch of the journal converges.
* BK-3 The shard keeps the LSN of every key, and a `Digest` equal to the one recomputed from its rows.
* BK-4 `apply` does not wait for the disk. `flush` does: what it returns is on disk for good. After a power cut a shard
  opens at some `applied_lsn` between the last flushed one and the newest, with BK-1 to BK-3 intact.
* BK-5 Readers, in this and other processes, never block the writer and are never blocked; a search sees whole
  transactions of each shard, and an open reader sees what `apply` committed at its next search.
* BK-6 Whatever a user types as a query is an answer or `InvalidConfig`, never another exception.

Threads: a writer is used by one thread at a time (its owner serialises), a reader likewise; neither is bound to the
thread that opened it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.records import Hit, Item, Record


class ShardState(msgspec.Struct, frozen=True):
    """What a shard knows of itself, as of its last committed transaction.

    `cursor` is the catalog key up to which the copy has come (b"" before it began), `loaded` whether the copy is
    complete, `digest` the maintained counters.
    """

    applied_lsn: int
    cursor: bytes
    loaded: bool
    digest: Digest


class ShardWriter(Protocol):
    """The one writer of one shard. Every method raises `StorageFull` or `CorruptData` for what the disk does to it."""

    def state(self) -> ShardState:
        """The state as committed; cheap (no scan)."""
        ...

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        """Bulk load: add records that the copy scanned, and remember `cursor`, in one transaction.

        Items are puts with distinct keys. A key that is already there (a slice loaded again after a crash) is
        replaced if the item's LSN is higher. `applied_lsn` does not move.
        """
        ...

    def finish_load(self, applied_lsn: int) -> None:
        """The copy is complete: the shard holds everything up to `applied_lsn` (the journal position before the
        copy)."""
        ...

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        """Apply changes in LSN order, at most one of each key, in one transaction; then the shard is at `applied_lsn`.

        Returns how many items changed something. Does not wait for the disk. `items` may be empty.
        """
        ...

    def flush(self) -> int:
        """Make everything applied so far durable and keep log files small; returns the durable `applied_lsn`."""
        ...

    def compact(self) -> bool:
        """Do a small piece of what `apply` put off (merging, compaction), a millisecond or two; True if there is more.

        Changes nothing that readers or `state` show. Never called while readers are led over.
        """
        ...

    def scan(self, bucket: int | None = None) -> Iterator[tuple[str, str, int]]:
        """Every (resource_type, id, lsn) that the rows hold, of one bucket or of all, read from the rows themselves."""
        ...

    def delete_bucket(self, bucket: int) -> int:
        """Remove every record of a bucket, in one transaction; returns how many. For repairs."""
        ...

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        """Replace all that a bucket holds by `items`, in one transaction; ignores `applied_lsn`. For repairs."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent. Does not flush."""
        ...


class IndexReader(Protocol):
    """One reader over all shards of a generation."""

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best `limit` hits over all shards, best first; ties broken by (resource_type, id)."""
        ...

    def get(self, resource_type: str, id: str) -> Record | None:
        """What the index holds of a record (its projection, see `Backend.project`), or None."""
        ...

    def count(self) -> int:
        """How many records the index holds."""
        ...

    def applied_lsn(self) -> int:
        """The lowest `applied_lsn` of the shards: everything up to it is visible."""
        ...

    def scan(self) -> Iterator[Record]:
        """Every record that the index holds, as `get` would give it; each shard as of one moment.

        The order is the backend's. For checks; may take long.
        """
        ...

    def shard_snapshot(self, shard: int) -> tuple[ShardState, Iterator[Record]]:
        """A shard's state and all of its rows, both as of one and the same transaction.

        The iterator holds that snapshot until it is exhausted or closed; exhaust or close it before the next call.
        """
        ...

    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        """The same, of each row only (resource type, id, LSN): what a digest is made of, read as cheaply as can be."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


class Snapshot(Protocol):
    """All shards of a generation as of the moment in which it was made. Any thread, one at a time."""

    def copy(self, targets: Sequence[Path]) -> None:
        """Make a whole copy of each shard in a directory of its own, which must not be there yet; the writer goes on.

        The engine forces it to disk. A copy is opened by programs of outsiders, which must not need to write there.
        """
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


class Backend(Protocol):
    """A kind of index. Instances are stateless and importable in worker processes."""

    name: str
    """What `build_config["backend"]` says."""
    version: int
    """Part of the spec's fingerprint: raise it when the stored form changes."""
    torn_by_power_cut: bool
    """May a power cut tear what was applied since the last `flush`, against BK-4? Then, at the first start after one,
    every shard is checked (`check`) before it is served."""

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """The complete, canonical options: defaults filled in, JSON-like. Raises `InvalidConfig` for a wrong option.

        Gets only the backend's own options; the engine takes out its own (`backend`, `parallel_workers`, ...).
        """
        ...

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """What an index with these options holds of a record's fields: what `IndexReader.get` gives back."""
        ...

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        """Make an empty shard in the directory `path` (made if missing), durably; what was in it is removed."""
        ...

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> ShardWriter:
        """Open a shard for writing. Raises `CorruptData` when it is not a sound shard of this backend."""
        ...

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> IndexReader:
        """Open all shards for reading, beside their writers, in any process."""
        ...

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """The backend's own integrity check of one shard; findings, empty when sound. Reads everything."""
        ...

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> Snapshot:
        """Hold all shards as they are, to be copied beside their writer, which stands still only during this call.

        Only the backend knows how its files may be opened: closing any descriptor of a file drops the POSIX locks that
        this process has on it.
        """
        ...

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """The files of a shard, by their paths below it, that nothing changes any more once it was built: not `apply`,
        `repair_bucket`, `tend` or `flush`. Their checksums are kept and looked at. None that is ever locked by `fcntl`.
        """
        ...
