"""Forks that follow: each shows its parent as it is, except for the records that it changed itself.

A write to a branch goes on, in its transaction, into the journal, the head and the digest of each fork that follows it,
and from there to those that follow that. Only the records are not stored again. So a fork that follows has everything
that any branch has, a journal and a digest of its own, and its indexes are built, proven and kept up as those of any
branch (decision 0019). A change of a record that the fork changed itself does not go on.

What a fork changed itself is compared with what it changed: at its first change of a record it keeps the version that
it showed until then, its base.

    bases    key of the record on the fork    -> number of the branch that stored the base u32, the record as it was

No entry: there was no record. Invariants: BR-1, BR-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import lmdb

from shadowswitch.model.digest import Digest
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.journal_format import Chunk, Prepared, chunk_value, chunks_of
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.source.fork_table import Lineage

Stored = tuple[bytes, Any]
"""As `versions.Stored`."""


class Writer(Protocol):
    """The transaction that is written to: a `Commit`."""

    txn: Any
    last_lsn: int
    heads: dict[int, tuple[int, int]]
    counts: dict[int, int]

    @property
    def db(self) -> Mapping[str, Any]:
        """The databases by name."""

    def head(self, branch: int) -> tuple[int, int]:
        """Head LSN and oldest kept LSN of a branch."""

    def count(self, branch: int) -> int:
        """How many records a branch has."""

    def type_number(self, name: str) -> int:
        """The number of a resource type."""

    def changed_digest(self, branch: int, type_number: int) -> Digest:
        """The digest of a type of a branch, to be changed."""

    def lineage(self, branch: int) -> Lineage:
        """The lineage of a branch."""


class Written(NamedTuple):
    """A change with its LSN. `before` is the LSN of the version that was shown until then; 0: there was none."""

    change: Prepared
    lsn: int
    before: int
    type_number: int

    def note(self, digest: Digest) -> int:
        """Note it in the digest of its type. Returns how many records more there are."""
        hashed, is_put = self.change.key_hash, bool(self.change.fields)
        if self.before and is_put:
            digest.replace(hashed, self.before, self.lsn)
        elif self.before:
            digest.remove(hashed, self.before)
        elif is_put:
            digest.add(hashed, self.lsn)
        return is_put - bool(self.before)


def pass_on(commit: Writer, followers: tuple[int, ...], written: list[Written], chunks: list[Chunk]) -> None:
    """What was written to a branch, to the forks that follow it. `chunks` is its form in the journal.

    Takes about 4 us for each change and fork.
    """
    for branch in followers:
        passed = [one for one in written if not _is_own(commit, branch, one)]
        if not passed:
            continue
        whole = chunks if len(passed) == len(written) else _chunks(passed)
        present = commit.count(branch)
        for one in passed:
            present += one.note(commit.changed_digest(branch, one.type_number))
        _put_chunks(commit, branch, passed, whole)
        commit.heads[branch] = (passed[-1].lsn, commit.head(branch)[1])
        commit.counts[branch] = present
        pass_on(commit, commit.lineage(branch).followers, passed, whole)


def _is_own(commit: Writer, branch: int, one: Written) -> bool:
    key = keys.record_key(branch, one.type_number, one.change.key_hash >> 58, one.change.id)
    return commit.txn.get(key, db=commit.db["records"]) is not None


def _chunks(passed: list[Written]) -> list[Chunk]:
    """The chunks of the changes: the LSNs of each follow one another."""
    found: list[Chunk] = []
    for _, run in groupby(enumerate(passed), lambda one: one[1].lsn - one[0]):
        found += chunks_of([one.change for _, one in run])
    return found


def _put_chunks(commit: Writer, branch: int, passed: list[Written], chunks: list[Chunk]) -> None:
    behind, batch_lsn = 0, passed[-1].lsn
    for count, body, checksum in chunks:
        behind += count
        last = passed[behind - 1].lsn
        value = chunk_value(last, count, batch_lsn, body, checksum)
        commit.txn.put(keys.JOURNAL_KEY.pack(branch, last), value, db=commit.db["journal"])


def put_base(commit: Writer, key: bytes, found: Stored | None) -> None:
    """Keep the version with which what a fork has at a key is compared."""
    if found is None:
        commit.txn.delete(key, db=commit.db["bases"])
    else:
        commit.txn.put(key, found[0][: BRANCH.size] + bytes(found[1]), db=commit.db["bases"])


def base_of(txn: lmdb.Transaction, db: Mapping[str, Any], branch: int, place: bytes) -> Stored | None:
    """The base of a record of a fork that follows; None for a record that it made."""
    value = txn.get(BRANCH.pack(branch) + place, db=db["bases"])
    if value is None:
        return None
    return bytes(value[: BRANCH.size]) + place, value[BRANCH.size :]
