"""The expected content of a shard: a model in a dict, random batches for both, and the comparison."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shadowswitch.model.digest import Digest, bucket_of, key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.protocol import IndexReader, ShardState, ShardWriter

Key = tuple[str, str]
Fields = dict[str, Any]
Row = tuple[str, str, int]
"""The resource type, id and LSN of a record."""
TYPES = ("object_type", "link_type", "file")
WORDS = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel")


def item(lsn: int, resource_type: str, id: str, fields: Fields | None) -> Item:
    """An item with its key hash."""
    return Item(lsn, resource_type, id, key_hash(resource_type, id), fields)


class Expected:
    """The protocol, written as simply as possible."""

    def __init__(self) -> None:
        self.rows: dict[Key, tuple[int, Fields]] = {}
        self.applied_lsn = 0
        self.cursor = b""
        self.loaded = False

    def load(self, items: Iterable[Item], cursor: bytes) -> None:
        for one in items:
            self._take(one)
        self.cursor = cursor

    def finish_load(self, applied_lsn: int) -> None:
        self.applied_lsn, self.loaded = max(applied_lsn, self.applied_lsn), True

    def apply(self, items: Iterable[Item], applied_lsn: int) -> int:
        changed = sum([self._take(one) for one in items if one.lsn > self.applied_lsn])
        self.applied_lsn = max(applied_lsn, self.applied_lsn)
        return changed

    def repair_bucket(self, bucket: int, items: Iterable[Item]) -> None:
        for key in [key for key in self.rows if bucket_of(key_hash(*key)) == bucket]:
            del self.rows[key]
        for one in items:
            self._take(one)

    @property
    def digest(self) -> Digest:
        """Computed from the rows, not maintained."""
        digest = Digest()
        for key, (lsn, _) in self.rows.items():
            digest.add(key_hash(*key), lsn)
        return digest

    @property
    def state(self) -> ShardState:
        return ShardState(self.applied_lsn, self.cursor, self.loaded, self.digest)

    def _take(self, one: Item) -> bool:
        key = (one.resource_type, one.id)
        present = self.rows.get(key)
        if (present is not None and one.lsn <= present[0]) or (present is None and one.fields is None):
            return False
        if one.fields is None:
            del self.rows[key]
        else:
            self.rows[key] = (one.lsn, one.fields)
        return True


class Batches:
    """A reproducible stream of batches: the same seed gives the same ones, in this and in other processes."""

    def __init__(self, seed: int, fields_for: Callable[[str], Fields], keys: int = 400) -> None:
        print(f"seed {seed}", file=sys.stderr)
        self.random = random.Random(seed)
        self.lsn = 0
        self._fields_for = fields_for
        self._keys = [(TYPES[number % len(TYPES)], f"id-{number}") for number in range(keys)]

    def puts(self, count: int) -> list[Item]:
        """Puts of different keys, LSNs rising."""
        return [self._item(key, False) for key in self.random.sample(self._keys, count)]

    def changes(self, count: int) -> list[Item]:
        """Puts and deletes of different keys, LSNs rising."""
        return [self._item(key, self.random.random() < 0.25) for key in self.random.sample(self._keys, count)]

    def _item(self, key: Key, delete: bool) -> Item:
        self.lsn += self.random.randint(1, 3)
        return item(self.lsn, *key, None if delete else self._fields_for(self.random.choice(WORDS)))


def rows_of(reader: IndexReader) -> list[Row]:
    """The version of every record of the one shard that the reader has open, in order."""
    return sorted(reader.shard_versions(0)[1])


def assert_holds(writer: ShardWriter, reader: IndexReader, expected: Expected) -> None:
    """The shard's state and rows are the expected ones, to the version of every record."""
    state = writer.state()
    assert state.applied_lsn == expected.applied_lsn
    assert (state.cursor, state.loaded) == (expected.cursor, expected.loaded)
    assert rows_of(reader) == sorted((*key, lsn) for key, (lsn, _) in expected.rows.items())
    assert state.digest == expected.digest, "the maintained digest is not that of the rows"


def assert_reads(
    reader: IndexReader, expected: Expected, project: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    """A reader returns exactly the projection of the expected rows."""
    assert reader.count() == len(expected.rows)
    found = {(record.resource_type, record.id): (record.lsn, record.fields) for record in reader.scan()}
    assert found == {key: (lsn, project(fields)) for key, (lsn, fields) in expected.rows.items()}
    for key in list(expected.rows)[:50]:
        record = reader.get(*key)
        assert record is not None
        assert (record.lsn, record.fields) == found[key]


def digest_of(keys: Iterable[Row]) -> Digest:
    """The digest of these versions."""
    digest = Digest()
    for resource_type, id, lsn in keys:
        digest.add(key_hash(resource_type, id), lsn)
    return digest


def last_lsn(items: Sequence[Item], default: int) -> int:
    """The highest LSN of a batch."""
    return max((one.lsn for one in items), default=default)
