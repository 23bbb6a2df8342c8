"""Damaged chunks of a journal: written again if the records of their changes, or their own content, prove them."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple
from zlib import crc32

import msgspec

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import journal_format, keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import CHUNK_CHANGES_MAX, Fragment, chunk_value, entries_of
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.repair.copies import patched
from shadowswitch.storage.repair.digests import PAUSE_S
from shadowswitch.storage.repair.faults import Fault

SLICE = 100
DAMAGED_MAX = 1_000
"""Chunks of one branch in one repair; the next one takes the rest."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Fragment]).decode


class _Chunk(NamedTuple):
    """A damaged chunk, and the LSN at which the chunk before it ends."""

    before: int
    last: int
    value: bytes
    next_batch_lsn: int


class JournalRepair:
    """The journal of one branch: `find`, then `offer` every sound record, then `faults`."""

    def __init__(self, catalog: Catalog, branch: BranchRow) -> None:
        self._catalog, self._branch = catalog, branch
        self._damaged: list[_Chunk] = []
        self._of_lsn: dict[int, Fragment] = {}
        """The records whose changes were in damaged chunks, as the chunks had them."""

    def find(self) -> None:
        """Find the damaged chunks."""
        after = 0
        while after >= 0:
            after = self._slice(after)
            self._catalog.clock.sleep(PAUSE_S)

    def _slice(self, after: int) -> int:
        """Read some chunks behind an LSN; returns the LSN that they reach, -1 at the end."""
        with self._catalog.read() as txn:
            for at, (last, value) in enumerate(chunks(txn, self._catalog, self._branch.number, after), 1):
                try:
                    entries_of(last, value)
                except CorruptData:
                    if len(self._damaged) < DAMAGED_MAX:
                        follower = next(chunks(txn, self._catalog, self._branch.number, last), None)
                        batch_lsn = journal_format.claimed(follower[1])[1] if follower is not None else last
                        self._damaged.append(_Chunk(after, last, bytes(value), batch_lsn))
                after = last
                if at == SLICE:
                    return last
        return -1

    def offer(self, lsn: int, name: str, id: str, fields: memoryview) -> None:
        """A sound record: its change may have been in a damaged chunk."""
        at = bisect_left(self._damaged, lsn, key=lambda chunk: chunk.last)
        if at < len(self._damaged) and lsn > self._damaged[at].before:
            self._of_lsn[lsn] = (name, id, key_hash(name, id), msgspec.Raw(bytes(fields)))

    def faults(self) -> Iterator[Fault]:
        """The damaged chunks whose content is proven."""
        for chunk in self._damaged:
            value = self._proven(chunk)
            if value is not None:
                where = f"journal of branch {self._branch.name!r}"
                finding = Finding("ST-4", where, f"the chunk up to LSN {chunk.last} is damaged")
                key = keys.JOURNAL_KEY.pack(self._branch.number, chunk.last)
                step = partial(_put_back, key=key, damaged=chunk.value, value=value)
                yield Fault(finding, "its checksum and the records of its changes", step)

    def _proven(self, chunk: _Chunk) -> bytes | None:
        """The chunk as it was written: what gives the checksum that it still has."""
        begin = journal_format.HEADER.size
        stored = chunk.value[begin : begin + keys.CHECKSUM.size]
        own = chunk.value[begin + keys.CHECKSUM.size :]
        claimed_count, claimed_batch = journal_format.claimed(chunk.value)
        for body in self._bodies(chunk, own, claimed_count):
            checksum = crc32(body)
            for count in {claimed_count, _count(body)}:
                for batch_lsn in {claimed_batch, chunk.last, chunk.next_batch_lsn}:
                    if 0 < count <= CHUNK_CHANGES_MAX and batch_lsn >= chunk.last:
                        value = chunk_value(chunk.last, count, batch_lsn, body, checksum)
                        if value[begin : begin + keys.CHECKSUM.size] == stored:
                            return value
        return self._agreed(chunk, own, claimed_count, claimed_batch)

    def _agreed(self, chunk: _Chunk, own: bytes, count: int, batch_lsn: int) -> bytes | None:
        """The chunk as it is, if it holds exactly the records of its LSNs: the checksum is what was damaged."""
        of_records = [self._of_lsn.get(lsn) for lsn in range(chunk.last - count + 1, chunk.last + 1)]
        if count == 0 or batch_lsn < chunk.last or None in of_records or _encode(of_records) != own:
            return None
        return chunk_value(chunk.last, count, batch_lsn, own, crc32(own))

    def _bodies(self, chunk: _Chunk, own: bytes, count: int) -> Iterator[bytes]:
        """What the content of a chunk may have been."""
        yield own
        lsns = range(max(chunk.before, chunk.last - count) + 1, chunk.last + 1)
        fragments: list[Fragment] = []
        with contextlib.suppress(ValueError):
            fragments = _decode(own)
        if len(fragments) == len(lsns):
            yield _encode([self._of_lsn.get(lsn, old) for lsn, old in zip(lsns, fragments, strict=True)])
        elif all(lsn in self._of_lsn for lsn in lsns):
            yield _encode([self._of_lsn[lsn] for lsn in lsns])
        yield from patched(own, (_encode(self._of_lsn[lsn]) for lsn in lsns if lsn in self._of_lsn))


def _count(body: bytes) -> int:
    try:
        return len(_decode(body))
    except ValueError:
        return 0


def _put_back(commit: Commit, key: bytes, damaged: bytes, value: bytes) -> None:
    """Put a proven chunk back, unless the journal was trimmed meanwhile."""
    if commit.txn.get(key, db=commit.db["journal"]) == damaged:
        commit.txn.put(key, value, db=commit.db["journal"])
