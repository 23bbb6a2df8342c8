"""The Backend protocol: everything that the engine needs from a kind of index, and nothing else.

A generation is a directory with N shards, `shard-000` to `shard-NNN`; a shard is a directory of its own that belongs to
the backend alone. A key belongs to exactly one shard (`digest.shard_of(bucket, shards)`), for ever.

The promises of a backend, checked by the conformance suite (`shadowswitch.storage.conformance`):

* BK-1 A shard is one transaction at a time: rows, counters, `applied_lsn` and `cursor` of one `load` or `apply` become
  visible and survive a crash together or not at all. (A power cut may take the newest ones; see BK-4.)
* BK-2 `apply` is ordered and idempotent: an item whose LSN is not above the shard's `applied_lsn`, or not above the LSN
  stored for its key, changes nothing; so a slice of the journal can be replayed.
* BK-3 The shard keeps the LSN of every key, and a `Digest` equal to the one recomputed from its rows.
* BK-4 `apply` does not wait for the disk. `flush` does: the LSN that it returns is durable. After a power cut a shard
  opens at some `applied_lsn` between the last flushed one and the newest, with BK-1 to BK-3 intact.
* BK-5 Readers, in this and other processes, never block the writer and are never blocked; a search sees whole
  transactions of each shard, and an open reader sees what `apply` committed at its next search.
* BK-6 Every string is a query with an answer; a search raises nothing for it but the `Timeout` of its time limit. The
  cost of a query is bounded: by `QUERY_CHARS_MAX`, by the backend's own bounds, and by the time limit. What is beyond
  the bounds does not count.

Threads: one thread at a time uses a writer (its owner serialises), and likewise a reader, in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.records import Hit, Item, Record
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit
from shadowswitch.model.search.where import Where
from shadowswitch.model.views import BuildCost
from shadowswitch.storage.reading import Count


class ShardState(msgspec.Struct, frozen=True):
    """The state of a shard, as of its last committed transaction.

    `cursor` is the catalog key up to which records were copied (b"" before the copy began), `loaded` is True when the
    copy is complete, `digest` holds the maintained counters.
    """

    applied_lsn: int
    cursor: bytes
    loaded: bool
    digest: Digest


class ShardWriter(Protocol):
    """The one writer of one shard. Every method raises `StorageFull` or `CorruptData` for an error of the disk."""

    def state(self) -> ShardState:
        """The state as committed; cheap (no scan)."""
        ...

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        """Bulk load: store a slice of copied records and `cursor`, in one transaction.

        Items are puts with distinct keys. An item replaces a row of the same key with a lower LSN: a slice may be
        loaded again after a crash. `applied_lsn` does not move.
        """
        ...

    def finish_load(self, applied_lsn: int) -> None:
        """Mark the copy as complete: the shard holds every change up to `applied_lsn`, the LSN before the copy."""
        ...

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        """Apply changes in LSN order, at most one of each key, in one transaction; then the shard is at `applied_lsn`.

        Returns the number of items that changed the shard. Does not wait for the disk. `items` may be empty. Writers
        wait for one call in the turn of a switch, so it must be cheap: a backend whose commit is slow buffers, and
        commits in `flush`.
        """
        ...

    def flush(self) -> int:
        """Make every applied change durable and keep log files small; returns the durable `applied_lsn`."""
        ...

    def compact(self) -> bool:
        """Do a millisecond or two of the work that `apply` deferred (merges, compaction); True if more is left.

        Changes nothing that readers or `state` show. Never called during a switch.
        """
        ...

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        """Replace all rows of a bucket by `items`, in one transaction; ignores `applied_lsn`. For repairs."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent. Does not flush."""
        ...


class IndexReader(Protocol):
    """One reader over all shards of a generation."""

    def search(
        self,
        query: str,
        limit: int,
        *,
        offset: int = 0,
        resource_types: Sequence[str] | None = None,
        where: Where | None = None,
        time_limit: TimeLimit = UNLIMITED,
    ) -> list[Hit]:
        """The best `limit` hits over all shards behind the first `offset`, best first; ties broken by (resource_type,
        id). With `resource_types` and `where`, of the records that pass; a filter changes no score.

        The engine gives a `where` on fields that `holds` confirms, and filters by others itself.
        Raises Timeout soon after `time_limit` is over: no query, and no index, keeps the thread for longer (BK-6).
        """
        ...

    def holds(self, field: str) -> bool:
        """Whether the index has the values of a field exactly as the records have them, so that it can filter by it."""
        ...

    def get(self, resource_type: str, id: str) -> Record | None:
        """The record as the index holds it (its projection, see `Backend.project`), or None."""
        ...

    def count(self) -> int:
        """The number of records in the index."""
        ...

    def applied_lsn(self) -> int:
        """The lowest `applied_lsn` of the shards: every change up to it is visible."""
        ...

    def scan(self) -> Iterator[Record]:
        """Every record of the index, as `get` returns it; each shard as of one moment.

        The order is the backend's. For checks; may take long.
        """
        ...

    def shard_snapshot(self, shard: int) -> tuple[ShardState, Iterator[Record]]:
        """A shard's state and all of its rows, both as of one and the same transaction.

        The iterator holds the snapshot until it is exhausted or closed; exhaust or close it before the next call.
        """
        ...

    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        """As `shard_snapshot`, with only (resource type, id, LSN) of each row: the input of a digest, read cheaply."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


class Snapshot(Protocol):
    """All shards of a generation as of the call that made the snapshot. Any thread, one at a time."""

    def copy(self, targets: Sequence[Path]) -> None:
        """Copy each shard into a directory of its own, which must not exist yet. The writer continues.

        The engine forces the copy to disk. Other programs open it, and must be able to without writing there.
        """
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


class Backend(Protocol):
    """A kind of index. Instances are stateless and importable in worker processes."""

    name: str
    """The value of `build_config["backend"]`."""
    version: int
    """Part of the spec's fingerprint: raise it when the stored form changes."""
    torn_by_power_cut: bool
    """True if a power cut may tear changes applied since the last `flush`, against BK-4. At the first start after a
    reboot the engine then runs `check` on every shard before it serves the shard."""

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """The complete, canonical options: defaults filled in, JSON-like. Raises `InvalidConfig` for a wrong option.

        `build_config` has only the options of the backend: the engine removes its own (`backend`, `shards`, ...).
        """
        ...

    def project(self, options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """The projection of a record's fields in an index with these options: the result of `IndexReader.get`."""
        ...

    def create_shard(self, path: Path, options: Mapping[str, Any]) -> None:
        """Make an empty shard in the directory `path`, durably. Creates the directory, or removes its content.

        Fails where the directory above is missing, and makes none: another one may have taken its place.
        """
        ...

    def open_writer(self, path: Path, options: Mapping[str, Any]) -> ShardWriter:
        """Open a shard for writing. Raises `CorruptData` when it is not a sound shard of this backend."""
        ...

    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> IndexReader:
        """Open all shards for reading, beside their writers, in any process."""
        ...

    def check(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """The backend's integrity check of one shard: the findings, empty when it is sound. Reads the whole shard."""
        ...

    def snapshot(self, shards: Sequence[Path], options: Mapping[str, Any]) -> Snapshot:
        """A snapshot of all shards, for a copy beside their writer. The writer must not write during this call only.

        Only the backend may open its files: to close any descriptor of a file drops the process's POSIX locks on it.
        """
        ...

    def closed_files(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """The files of a built shard, by path below it, that no call changes: `apply`, `repair_bucket`, `compact`,
        `flush`. The engine stores and checks their checksums. A file that is ever locked by `fcntl` must not be listed.
        """
        ...


@runtime_checkable
class Choosing(Protocol):
    """What a backend has as well if its options name fields of the records."""

    def chosen_fields(self, options: Mapping[str, Any]) -> list[str]:
        """The fields that the index takes; empty where it takes whatever a record has."""
        ...


class Tally(Protocol):
    """What a build will embed, counted before it begins. One thread."""

    def add(self, fields: Mapping[str, Any]) -> None:
        """One more record."""
        ...

    def cost(self) -> BuildCost:
        """Of all that were added, with the time that one worker needs."""
        ...

    def close(self) -> None:
        """Close its files."""
        ...


@runtime_checkable
class Embedding(Protocol):
    """What a backend has as well if it may embed the texts of records: a build costs time, or money, for each text."""

    def embeds(self, options: Mapping[str, Any]) -> bool:
        """Whether an index with these options does."""
        ...

    def kept_in(self, options: Mapping[str, Any]) -> str:
        """The name of the file with its vectors, in the folder `embeddings` of the data directory."""
        ...

    def tally(self, data: Path, options: Mapping[str, Any]) -> Tally:
        """For a build of such an index in this data directory."""
        ...


@runtime_checkable
class Counting(Protocol):
    """What a backend has as well if the check of a large shard takes minutes: it shows that its check goes on."""

    def check_counting(self, path: Path, options: Mapping[str, Any], looked: Count) -> list[str]:
        """As `check`. Calls `looked` again and again: without that, `Config.validation_timeout_s` is its whole time."""
        ...


@runtime_checkable
class Probing(Protocol):
    """What a backend has as well if a damaged file may end its reader by a signal, as a memory map does.

    A worker process probes each shard before the host opens it: the death of the worker is a finding.
    """

    def probe(self, path: Path, options: Mapping[str, Any]) -> list[str]:
        """Visit every page of a shard that a reader or a writer may visit: the findings, empty when it is sound.

        The host waits for it at each start, so it reads no row. `check` includes it.
        """
        ...


SEEDED = b"seeded"
"""The cursor of a shard that holds the rows of another one: `amend` makes them those of its source."""


class Reuse(StrEnum):
    """What a shard can take over from a shard of the same kind with other options."""

    NOTHING = "nothing"
    SETTINGS = "settings"
    """Everything, without a copy: the options differ in what only readers use."""
    COPY = "copy"
    """The files as they are."""
    REINDEX = "reindex"
    """The rows; what is derived from them is made anew inside the copy."""


class SeedableWriter(ShardWriter, Protocol):
    """The writer of a shard that `Seeding.seed` made."""

    def versions(self, buckets: Collection[int]) -> Iterator[tuple[str, str, int]]:
        """(resource type, id, LSN) of each row of these buckets, in any order. Exhaust it before the next call."""
        ...

    def amend(self, items: Sequence[Item]) -> None:
        """Store each item in the place of the row of its key, whatever LSN that row has; without fields, remove it.

        At most one item of each key; one transaction; `applied_lsn` does not move.
        """
        ...


@runtime_checkable
class Seeding(Protocol):
    """What a backend has as well if a build may begin with the rows of a generation that is there.

    Its writers are `SeedableWriter`s.
    """

    def plan(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
        """What a shard with the options `new` can take over from one with `old`. Pure.

        After `SETTINGS`, `open_reader` of such a shard takes the options `new` as well.
        """
        ...

    def seed(
        self, source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]
    ) -> None:
        """Replace the empty shard `target` by one with the rows of the shard `source`, durably.

        It is not loaded then, at LSN 0, with the cursor `SEEDED`. `source` is read as of one moment, beside its writer
        in another process, and not changed. Calls `rest` between pieces of work while it holds nothing of `source`.
        A kill leaves `target` empty, or whole. Raises `CorruptData`, `StorageFull`.
        """
        ...


Marked = tuple[str, list[tuple[int, int]]]
"""A text, and the places in it: begin and end, in characters, in order, none over another."""


@runtime_checkable
class Marking(Protocol):
    """What a reader has as well if it can say where in a record a query is found."""

    def marks(self, query: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Marked]]:
        """For the fields of each record: the fields in which terms of the query are found, with their texts as the
        index has them. A field without a place is left out. Pure but for the options of the index."""
        ...


@runtime_checkable
class Warming(Protocol):
    """What a reader has as well if a search asks more than the index, such as a model."""

    def warm(self) -> None:
        """Read what a search reads, and ask nothing else: before a switch, and behind it as a proof that it can."""
        ...


class FreezingReader(IndexReader, Protocol):
    """A reader that can show one moment for as long as it is open, whatever the writer does meanwhile."""

    def freeze(self) -> None:
        """From now on show each shard as it is at this call; a second call moves on to the present.

        The writer must not write during this call only. While it is open the backend keeps what it shows: a log grows,
        pages are not used again. So it is closed soon.
        """
        ...


@runtime_checkable
class Freezing(Protocol):
    """What a backend has as well if several of its indexes can be read together, all as of one LSN."""

    def open_freezing(self, shards: Sequence[Path], options: Mapping[str, Any]) -> FreezingReader:
        """As `open_reader`. The reader shows the present, as every reader does, until `freeze`."""
        ...
