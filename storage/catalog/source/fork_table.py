"""Which branch was forked from which, and as of which LSN.

    forks    parent u32, LSN u64, fork u32                 a fork needs its parent as of this LSN; no value
             parent u32, greatest u64, fork u32            the fork follows its parent, see `followed`; no value
             branch u32                                    the branch keeps old images, see `versions`; no value

The row of a fork names its parent and the same LSNs (`needs_of`); the rows here find the forks of a branch in the
order of their LSNs. A fork of a branch that follows needs what that shows, so the parent of that as well. Each
transaction that changes any of this raises the number `forks` of `meta`, by which a reader sees that its table is old.
Invariants: BR-3, BR-4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import lmdb
import msgspec

from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import LSN_MAX, BranchRow, decode_branch

FORKS = "forks"
"""The number of `meta`; 0 in a directory without a fork so far."""
FORK = struct.Struct(">IQI")


class Lineage(msgspec.Struct, frozen=True):
    """Where a branch finds what it shows, and for which forks it keeps what it overwrites."""

    ancestors: tuple[tuple[int, int], ...] = ()
    """Its parent, the parent of that, and so on: each with the LSN as of which the branch shows it."""
    newest_fork: int = -1
    """The highest LSN as of which a fork needs the branch; -1: it has none."""
    keeps: bool = False
    """It has old images, or a fork that may need one."""
    followers: tuple[int, ...] = ()
    """The forks that follow it."""
    follows: bool = False
    """It follows its parent."""

    @property
    def is_plain(self) -> bool:
        """The branch is what its own records are, and nothing else needs them."""
        return not self.ancestors and not self.keeps and not self.followers


PLAIN = Lineage()


class Readable(Protocol):
    """A `Catalog`."""

    db: dict[str, Any]

    def read(self) -> AbstractContextManager[lmdb.Transaction]:
        """One short read transaction."""


class ForkTable:
    """The lineages as of one version, each read when it is first asked for. Any thread."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._known: dict[int, Lineage] = {}

    def at(self, version: int) -> ForkTable:
        """The table as of a version."""
        return self if version == self.version else ForkTable(version)

    def of(self, txn: lmdb.Transaction, db: Mapping[str, Any], branch: int) -> Lineage:
        """The lineage of a branch, with a transaction of this version."""
        if not self.version:
            return PLAIN
        found = self._known.get(branch)
        if found is None:
            found = self._known[branch] = read_lineage(txn, db, branch)
        return found


def read_lineage(txn: lmdb.Transaction, db: Mapping[str, Any], branch: int) -> Lineage:
    """The lineage of a branch as of a transaction. Costs as much as it has ancestors."""
    ancestors: list[tuple[int, int]] = []
    number, cut, follows = branch, LSN_MAX, False
    while True:
        value = txn.get(BRANCH.pack(number), db=db["branches"])
        row = decode_branch(value) if value is not None else None
        if row is None or not row.parent or row.parent >= number:  # a parent is older: no damage leads round in circles
            break
        follows = follows or (number == branch and row.follows)
        number, cut = row.parent, min(cut, row.shows_as_of)
        ancestors.append((number, cut))
    newest, followers = -1, list[int]()
    for lsn, fork in forks_of(txn, db, branch):
        if lsn == LSN_MAX:
            followers.append(fork)
        else:
            newest = lsn
    keeps = txn.get(BRANCH.pack(branch), db=db["forks"]) is not None
    return Lineage(tuple(ancestors), newest, keeps, tuple(followers), follows)


def needs_of(row: BranchRow, branch: Callable[[int], BranchRow | None]) -> set[tuple[int, int]]:
    """Which branches a fork needs as of which LSNs: to show them, to compare with them, and for a rebase under way.

    Of its parent, and, if that follows, of the parent of that, and so on. `branch` finds the row of a number.
    """
    lsns = {LSN_MAX} if row.follows else {lsn for lsn in (row.fork_lsn, row.shown_lsn, row.rebase_lsn) if lsn >= 0}
    found: set[tuple[int, int]] = set()
    of: BranchRow | None = row
    while of is not None and of.parent and of.parent < of.number:  # a parent is older, also in a damaged directory
        found |= {(of.parent, lsn) for lsn in lsns}
        of = branch(of.parent)
        lsns -= {LSN_MAX}
        if of is None or not of.follows:
            break
    return found


def forks_of(txn: lmdb.Transaction, db: Mapping[str, Any], branch: int) -> Iterator[tuple[int, int]]:
    """The LSNs as of which forks need a branch, in order: (LSN, number of the fork)."""
    prefix = BRANCH.pack(branch)
    cursor = txn.cursor(db["forks"])
    there = cursor.set_range(prefix)
    while there and cursor.key()[: len(prefix)] == prefix:
        if len(cursor.key()) == FORK.size:
            _, lsn, number = FORK.unpack(cursor.key())
            yield lsn, number
        there = cursor.next()


def parents_of_forks(catalog: Readable) -> list[int]:
    """The branches that keep old images. Costs as much as there are forks."""
    with catalog.read() as txn:
        found = [bytes(key) for key, _ in txn.cursor(catalog.db["forks"])]
    return [BRANCH.unpack(key)[0] for key in found if len(key) == BRANCH.size]
