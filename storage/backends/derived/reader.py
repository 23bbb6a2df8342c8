"""The reader of a generation with entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from heapq import merge
from itertools import islice
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.derived.writer import derived_of
from shadowswitch.storage.backends.kinds import Kinds
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.reader import KvReader, Slices

Shard = tuple[store.Environment, "lmdb.Transaction[bytes]"]


class DerivedReader(KvReader):
    """See `protocol.IndexReader` and `kinds.Answering`. One thread at a time, any thread.

    A call of a query kind is a method that takes an `Asking` first, and reads inside one `moment`.
    """

    kinds: Kinds = {}

    @contextmanager
    def moment(self, asking: Asking) -> Iterator[Moment]:
        """Every shard, each as of one transaction. Raises CorruptData, Timeout when the time of the call is over."""
        with ExitStack() as opened:
            shards = []
            for environment in self._opened():
                opened.enter_context(store.translated("query", environment.path))
                shards.append((environment, opened.enter_context(self._reading(environment))))
            yield Moment(shards, Slices(asking.time_limit))


class Moment:
    """The rows and entries that one call reads. One thread, inside `DerivedReader.moment`."""

    def __init__(self, shards: list[Shard], slices: Slices) -> None:
        self.shards = shards
        self.slices = slices

    def has(self, key: Key) -> bool:
        """Whether there is a record of this key."""
        self.slices.count()
        place = store.stored_key(store.full_key(*key))
        return any(transaction.get(place, db=environment.rows) is not None for environment, transaction in self.shards)

    def first(self, begin: bytes, limit: int) -> list[Any]:
        """The values of the first entries that begin like this, in the order of their `begin`."""
        return [value for _, value in self.page(begin, limit)]

    def page(self, begin: bytes, limit: int, behind: bytes = b"") -> list[tuple[bytes, Any]]:
        """The first entries that begin like this, behind a place: each with its place."""
        found = [list(islice(self._walk(shard, begin, behind), limit)) for shard in self.shards]
        return found[0] if len(found) == 1 else list(islice(merge(*found, key=_place), limit))

    def counts(self, begin: bytes, length: int) -> Counter[bytes]:
        """How many entries begin like this, by the first `length` bytes of their places. No value is read."""
        found = Counter[bytes]()
        for environment, transaction in self.shards:
            with transaction.cursor(db=derived_of(environment)[0]) as cursor:
                there = cursor.set_range(begin)
                while there and (place := cursor.key())[: len(begin)] == begin:
                    self.slices.count()
                    found[place[:length]] += 1
                    there = cursor.next()
        return found

    def all(self, begin: bytes) -> Iterator[Any]:
        """The values of all entries that begin like this, one shard behind the other."""
        for shard in self.shards:
            for _, value in self._walk(shard, begin):
                yield value

    def _walk(self, shard: Shard, begin: bytes, behind: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        environment, transaction = shard
        length, count = len(begin), self.slices.count
        with transaction.cursor(db=derived_of(environment)[0]) as cursor:
            if not cursor.set_range(behind + b"\0" if behind else begin):
                return
            for place, value in cursor:
                if place[:length] != begin:
                    return
                count()
                try:
                    yield place, entries.decode_value(value)
                except msgspec.DecodeError as error:
                    what, hint = f"the entry {place[:80]!r} is damaged", "build the index again"
                    raise CorruptData(what, object=str(environment.path), hint=hint, cause=error) from error


def _place(entry: tuple[bytes, Any]) -> bytes:
    return entry[0]
