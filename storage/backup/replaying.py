"""From a backup to an LSN behind it: by the journal in the next backup, batch by batch.

LSNs number the changes of all branches, so the batches of all of them stand in one line. Each is written as it was the
first time, at its own LSNs: old images and followers follow from that. The changes of a branch that forks follow are in
the journals of all of them; they are written to the branch itself. A branch that was made in between is made again: a
fork at its LSN, another one before its first change.

The line has no hole, or the restore is refused: changes that were trimmed, a branch that was dropped, a rebase.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.events import ENGINE
from shadowswitch.storage.backup import layout
from shadowswitch.storage.backup.layout import Manifest
from shadowswitch.storage.catalog import keys, transitions
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import Batch, Prepared, claimed, entries_of, first_lsn, fragments_of
from shadowswitch.storage.catalog.keys import body_checksum
from shadowswitch.storage.catalog.rows import DROPPING, BranchRow, decode_branch
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.objects.store import ObjectStore

WHY = "a restore makes the branches again that were made after the backup"
GROUP_CHANGES = 5_000
"""Changes after which a transaction ends, at the end of a batch."""
LINE_MAX_BYTES = 64 << 30
"""Address space."""


class _Written(NamedTuple):
    """A batch of the line."""

    branch: int
    first: int
    changes: list[Prepared]


class Replay:
    """The changes that a later backup has in its journal, written into a catalog. `run` is its whole life."""

    def __init__(self, store: ObjectStore, catalog: Catalog, later: Manifest, folder: Path) -> None:
        """`folder` is made for what has to be sorted, and has no use afterwards."""
        self._store = store
        self._catalog = catalog
        self._later = later
        self._pages = layout.pages_of(store, later)
        self._folder = folder
        self._then = {row.number: row for row in self._branches()}
        self._now = {row.number: row for row in catalog.stored_branches()}

    def run(self, after: int, at_lsn: int) -> int:
        """Write every whole batch with LSNs in (after, at_lsn]; returns how many changes. Raises InvalidConfig."""
        self._refuse_changed(after, at_lsn)
        counters, group, written = Counters(self._catalog), list[_Written](), 0
        self._folder.mkdir(mode=0o700)
        with contextlib.closing(lmdb.open(str(self._folder), map_size=LINE_MAX_BYTES, sync=False)) as line:
            self._stand_in_line(line, after)
            for batch in self._batches(line, after, at_lsn):
                group.append(batch)
                if sum(len(one.changes) for one in group) >= GROUP_CHANGES:
                    written += self._write(counters, group)
                    group.clear()
        written += self._write(counters, group)
        Commit(self._catalog, counters).run(signed(lambda commit: self._make_forks(commit, at_lsn), ENGINE, WHY))
        return written

    # -- what is written -------------------------------------------------------------------------------------------

    def _write(self, counters: Counters, group: list[_Written]) -> int:
        def work(commit: Commit) -> None:
            for batch in group:
                self._make_forks(commit, batch.first - 1)
                if batch.branch not in self._now:
                    self._make(commit, self._then[batch.branch])
                commit.last_lsn = batch.first - 1
                commit.write(batch.branch, Batch(batch.changes))

        if group:
            Commit(self._catalog, counters).run(signed(work, ENGINE, WHY))
        return sum(len(one.changes) for one in group)

    def _make_forks(self, commit: Commit, until: int) -> None:
        """The forks up to an LSN that are not there, parents first."""
        for number, row in sorted(self._then.items()):
            if number not in self._now and row.parent in self._now and row.born_lsn <= until:
                self._make(commit, row)

    def _make(self, commit: Commit, row: BranchRow) -> None:
        """Make a branch again, with its number. A branch of the past is made by its own transaction."""
        given = commit.catalog.number("branch", commit.txn)
        commit.put_number("branch", row.number - 1)
        if row.parent:
            behind = commit.head(row.parent)[0] > row.born_lsn
            transitions.fork_branch(commit, row.name, row.parent, row.born_lsn if behind else None, row.follows)
        else:
            commit.create_branch(row.name, row.created_at)
        commit.put_number("branch", max(given, row.number))
        made = commit.branch(row.number)
        commit.put_branch(msgspec.structs.replace(made, created_at=row.created_at))
        self._now[row.number] = made

    # -- the line ----------------------------------------------------------------------------------------------------

    def _stand_in_line(self, line: lmdb.Environment, after: int) -> None:
        """Every chunk after an LSN, by the LSN of its last change. The journal has the branches in order, so a parent
        stands in line before the forks that follow it, whose copies of its changes are left out."""
        for found in self._rows("journal"):
            with line.begin(write=True) as txn:
                for key, value in zip(found[::2], found[1::2], strict=True):
                    branch, last = keys.JOURNAL_KEY.unpack(key)
                    row = self._then.get(branch)
                    if last > after and row is not None and not (row.follows and _covered(txn, first_lsn(last, value))):
                        txn.put(keys.SEQUENCE.pack(last), keys.BRANCH.pack(branch) + value)

    def _batches(self, line: lmdb.Environment, after: int, at_lsn: int) -> Iterator[_Written]:
        """The batches up to an LSN, in order. Raises InvalidConfig where one is not whole."""
        ended, gathered = after, list[Prepared]()
        with line.begin() as txn:
            for key, value in txn.cursor():
                (last,) = keys.SEQUENCE.unpack(key)
                branch, chunk = keys.BRANCH.unpack_from(value)[0], memoryview(value)[keys.BRANCH.size :]
                entries, batch_lsn = entries_of(last, chunk)
                if entries[0].lsn != ended + len(gathered) + 1:
                    raise self._hole(ended + len(gathered) + 1, entries[0].lsn - 1)
                if batch_lsn > at_lsn:
                    return
                gathered += _prepared(chunk)
                if last == batch_lsn:
                    yield _Written(branch, ended + 1, gathered)
                    ended, gathered = last, []
        if ended < at_lsn:
            raise self._hole(ended + 1, at_lsn)

    def _hole(self, first: int, last: int) -> InvalidConfig:
        return self._refused(
            f"its journal lacks the changes of LSN {first} to {last}: they were trimmed, or a branch was dropped"
        )

    # -- what is refused -----------------------------------------------------------------------------------------

    def _refuse_changed(self, after: int, at_lsn: int) -> None:
        for number, row in self._now.items():
            then = self._then.get(number)
            if row.state != DROPPING and (then is None or then.state == DROPPING):
                raise self._refused(f"branch {row.name!r} was dropped until then, with its changes")
            if then is not None and (then.fork_lsn, then.rebase_lsn) != (row.fork_lsn, row.rebase_lsn):
                raise self._refused(f"branch {row.name!r} was rebased until then")
        for found in self._rows("heads"):
            for key, value in zip(found[::2], found[1::2], strict=True):
                branch = self._then.get(keys.BRANCH.unpack_from(key)[0]) if len(key) == keys.BRANCH.size else None
                if branch is not None and keys.HEAD.unpack_from(value)[1] > max(after, branch.born_lsn) + 1:
                    raise self._refused(f"the journal of branch {branch.name!r} was trimmed too far until then")
        for number, then in self._then.items():
            if number not in self._now and then.parent and then.fork_lsn != then.born_lsn <= at_lsn:
                raise self._refused(f"branch {then.name!r} was rebased until then")

    def _refused(self, why: str) -> InvalidConfig:
        return InvalidConfig(
            f"an LSN before backup {self._later.id} cannot be restored: {why}",
            operation="restore",
            object=self._later.id,
            hint="restore a backup itself, without at_lsn; back up more often than changes are trimmed",
        )

    # -- the later backup --------------------------------------------------------------------------------------------

    def _branches(self) -> Iterator[BranchRow]:
        for found in self._rows("branches"):
            yield from (decode_branch(value) for value in found[1::2])

    def _rows(self, table: str) -> Iterator[list[bytes]]:
        for one in self._pages.tables:
            if one.name == table:
                for page in one.pages:
                    path = layout.page_path(self._pages.owners[page.owner], page.hash)
                    yield layout.page_rows(self._store.get(path), page, path)


def _covered(txn: lmdb.Transaction, lsn: int) -> bool:
    """Is the change of an LSN in line already?"""
    cursor = txn.cursor()
    if not cursor.set_range(keys.SEQUENCE.pack(lsn)):
        return False
    (last,) = keys.SEQUENCE.unpack(cursor.key())
    return int(last) - claimed(cursor.value()[keys.BRANCH.size :])[0] < lsn


def _prepared(chunk: memoryview) -> Iterator[Prepared]:
    """The changes of a chunk as they were when they were written."""
    for name, id, key_hash, fields in fragments_of(chunk):
        stored, raw = id.encode(), bytes(fields)
        if raw == DELETED:
            yield Prepared(name, key_hash, stored, b"", 0)
        else:
            yield Prepared(name, key_hash, stored, raw, body_checksum(stored, raw))


DELETED = b"\xc0"
"""The fields of a delete: MessagePack's nil."""
