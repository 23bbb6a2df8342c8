"""The chain of a data directory in a store: entries with numbers, of which each is made once and never changed.

    chain/<20 digits>    an entry: its epoch, its nonce, the nonce of the entry before, its kind, its body
    gone/<20 digits>     the entries of this block of BLOCK numbers are removed, or about to be

The host that makes number n+1 behind n has committed. A host that takes over makes an entry of the next epoch; then
every other host finds its next number taken. Nothing else decides which host it is: no clock, no lease, no member list.

Old entries are removed by blocks, the oldest block first, each behind its mark in `gone/`, which is made once and
stays. A number that was removed is free again. So a host looks for the mark of the block behind each entry that it has
made: without a mark that number was never made before. A follower looks for it behind the entries that it has read.

No other mark would do. One object with the lowest number that is kept can be set back by a request that lands late.
That the entry before is still in its place proves nothing: it may have been made twice, and the second request landed
behind its removal (the simulation found that).

A call whose outcome is not known (StoreUnavailable) is made again with the same entry: an entry is known by its nonce.
Each call is a few requests in the process and on the thread of its caller; no method keeps a state. Invariants: DR-1,
DR-2, DR-10. The simulation in `tests/chain` plays it with every fault of a store that it has to survive.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

import msgspec

from shadowswitch.model.errors import CorruptData, Fenced, StaleReplica, StoreUnavailable, UnsupportedFormat
from shadowswitch.storage.objects.store import ObjectStore

FORMAT = 1
FOLDER, GONE = "chain", "gone"
BLOCK = 1000
DIGITS = 20
NONCE_BYTES, SUM_BYTES = 16, 16
TRIES = 5
"""Conflicts that stored nothing, one after the other."""
CLAIM = "claim"
"""The kind of an entry with which a host takes over."""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One entry. `body` is that of its kind."""

    epoch: int
    nonce: bytes
    before: bytes
    """The nonce of the entry before; empty in the first one."""
    kind: str
    body: bytes = b""


class Link(NamedTuple):
    """An entry with its number."""

    number: int
    entry: Entry


def entry_path(number: int) -> str:
    """The path of an entry."""
    return f"{FOLDER}/{number:0{DIGITS}d}"


def gone_path(block: int) -> str:
    """The path of the mark of a removed block."""
    return f"{GONE}/{block:0{DIGITS}d}"


def encoded(entry: Entry) -> bytes:
    """An entry as it is stored."""
    content = msgspec.msgpack.encode(entry)
    return bytes([FORMAT]) + blake2b(content, digest_size=SUM_BYTES).digest() + content


def decoded(data: bytes, path: str) -> Entry:
    """The inverse of `encoded`. Raises CorruptData, UnsupportedFormat."""
    if data[:1] and data[0] != FORMAT:
        raise UnsupportedFormat(f"{path} has the format {data[0]}, this version reads {FORMAT}", object=path)
    content = data[1 + SUM_BYTES :]
    if blake2b(content, digest_size=SUM_BYTES).digest() != data[1 : 1 + SUM_BYTES]:
        raise CorruptData(f"{path} is damaged: its checksum is not that of its content", object=path)
    try:
        return msgspec.msgpack.decode(content, type=Entry)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"{path} does not decode: {error}", object=path) from error


class Chain:
    """The chain in a store. Any thread."""

    def __init__(self, store: ObjectStore, block: int = BLOCK) -> None:
        """`block` is for tests: all of a chain have the same."""
        self._store = store
        self.block = block

    def read(self, number: int) -> Entry | None:
        """The entry of a number; None if there is none. Raises CorruptData, StoreUnavailable."""
        path = entry_path(number)
        data = self._store.get(path)
        return decoded(data, path) if data is not None else None

    def next_entry(self, last: Link | None, kind: str, body: bytes = b"") -> Entry:
        """An entry to append behind `last`, of the same epoch; a claim is of the next one."""
        epoch = last.entry.epoch if last is not None else 0
        before = last.entry.nonce if last is not None else b""
        return Entry(epoch + (kind == CLAIM), secrets.token_bytes(NONCE_BYTES), before, kind, body)

    def append(self, last: Link | None, entry: Entry) -> Link:
        """Commit an entry behind `last`, the newest one that the caller knows; None: behind none.

        Raises Fenced when another entry is there, or was there and is removed. Raises StoreUnavailable when it is not
        known: then the caller makes the same call again, with the same entry, and appends nothing else before.
        """
        number, data = last.number + 1 if last is not None else 1, encoded(entry)
        for _ in range(TRIES):
            made = self._store.create(entry_path(number), data)
            if not made:
                there = self.read(number)  # also after a conflict that stored nothing
                if there is not None and there.nonce != entry.nonce:
                    raise _fenced(f"entry {number} is that of epoch {there.epoch}")
                made = there is not None
            if self.was_removed(number):
                raise _fenced(f"entry {number} was made and removed since")
            if made:
                return Link(number, entry)
        raise StoreUnavailable(
            f"the store refused to make entry {number} {TRIES} times, and there is none",
            operation="append",
            hint="try again with the same entry",
        )

    def was_removed(self, number: int) -> bool:
        """Is the block of a number marked as removed? If it is not, no entry from this one on was ever removed."""
        return self._store.get(gone_path(number // self.block)) is not None

    def newest(self) -> Link | None:
        """The newest entry, None in an empty chain. It lists the entries: for a start and for a claim."""
        while True:
            number = max(self._numbers(), default=0)
            if not number:
                return None
            entry = self.read(number)
            if entry is not None and not self.was_removed(number):  # it may have been, since it was listed
                return Link(number, entry)

    def claim(self, body: bytes = b"") -> Link:
        """Take over: append an entry of the next epoch behind the newest one, by whatever host.

        Raises StoreUnavailable: then the claim may be there. Another one is made behind it, and that is all right.
        """
        while True:
            last = self.newest()
            try:
                return self.append(last, self.next_entry(last, CLAIM, body))
            except Fenced:
                continue  # another entry came first; each time the chain has grown

    def follow(self, last: Link | None, limit: int) -> list[Link]:
        """The next entries behind `last`, at most `limit`. Raises StaleReplica when entries between were removed.

        `last` None: from the first entry on. An empty answer says nothing about what was removed: ask `was_removed`.
        """
        found: list[Link] = []
        before = last
        while len(found) < limit:
            number = before.number + 1 if before is not None else 1
            entry = self.read(number)
            if entry is None:
                break
            found.append(Link(number, entry))
            before = found[-1]
        if found and self.was_removed(found[0].number):
            raise _stale(found[0].number)
        self._check(last, found)
        return found

    def _check(self, last: Link | None, found: list[Link]) -> None:
        for link in found:
            nonce, epoch = (last.entry.nonce, last.entry.epoch) if last is not None else (b"", 0)
            if link.entry.before != nonce or link.entry.epoch != epoch + (link.entry.kind == CLAIM):
                raise CorruptData(
                    f"{entry_path(link.number)} does not follow the entry before it",
                    object=entry_path(link.number),
                    hint="the chain was written by another program, or put together from two",
                )
            last = link

    def remove_below(self, number: int) -> int:
        """Remove the blocks whose entries are all below a number; returns how many entries. The newest always stays.

        What fenced hosts have left in removed blocks goes, too. The first request that fails ends the call:
        StoreUnavailable.
        """
        there = sorted(self._numbers())
        old = [one for one in there[:-1] if one // self.block < min(number, there[-1]) // self.block]
        for block, numbers in groupby(old, lambda one: one // self.block):
            self._store.create(gone_path(block), b"\1")
            if not self.was_removed(block * self.block):  # a conflict that stored nothing
                break
            for one in numbers:
                self._store.delete(entry_path(one))
        return len(old)

    def _numbers(self) -> Iterator[int]:
        for listed in self._store.listed(FOLDER):
            name = listed.path.removeprefix(f"{FOLDER}/")
            if len(name) == DIGITS and name.isdecimal():
                yield int(name)


def _fenced(why: str) -> Fenced:
    return Fenced(
        f"another host has taken over: {why}",
        operation="append",
        hint="this host writes nothing more; what it has not shipped is in no other place",
    )


def _stale(number: int) -> StaleReplica:
    return StaleReplica(
        f"entry {number} of the chain was removed: the replica was away for too long",
        operation="follow",
        hint="begin again with a copy of the present state",
    )
