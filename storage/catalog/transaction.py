"""Write transactions of the catalog. The JournalWriter alone uses this module, on its thread.

A `Commit` is one LMDB write transaction. It stores each change as it arrives, and the chunks of each batch in the
journal. It stores heads and digests at its end, or earlier when a metadata operation needs them. `Counters` holds LSN,
heads and digests between transactions. It adopts them only from a transaction that committed, so a failed transaction
leaves no trace in memory either. Invariants: ST-1, ST-2, ST-3, ST-5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import lmdb

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import BranchExists, DirectoryLost, no_branch, no_shadow
from shadowswitch.model.events import AUDIT_ACTIONS, ENGINE, EVENT_PREFIX, EVENT_TYPES, NOT_GIVEN
from shadowswitch.model.records import Receipt
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.storage.catalog import journal_format, keys, rows
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.dirty import Changed
from shadowswitch.storage.catalog.environment import Catalog, meta_key, name_key
from shadowswitch.storage.catalog.journal_format import Batch
from shadowswitch.storage.catalog.rows import BranchRow, EventRow, GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.source.fork_table import FORKS, Lineage, read_lineage
from shadowswitch.storage.catalog.source.overlay import write_overlaid
from shadowswitch.storage.catalog.source.type_table import VERSION
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.write_transaction import write_transaction

T = TypeVar("T")
_record_value = keys.record_value
_chunk_value = journal_format.chunk_value
_journal_key = keys.JOURNAL_KEY.pack


def signed(work: Callable[[Commit], T], by: str, reason: str = "") -> Callable[[Commit], T]:
    """The same work, with an author and a reason for its rows in the audit history."""

    def with_author(commit: Commit) -> T:
        commit.author = (by, reason)
        try:
            return work(commit)
        finally:
            commit.author = ("", "")

    return with_author


class Commit:
    """One write transaction. `run` is its whole life."""

    def __init__(self, catalog: Catalog, counters: Counters) -> None:
        self.catalog = catalog
        self.db = catalog.db
        self.counters = counters
        self.last_lsn = counters.last_lsn
        self.new_types: dict[str, int] = {}
        self.heads: dict[int, tuple[int, int]] = {}
        self.counts: dict[int, int] = {}
        self.digests: dict[tuple[int, int], Digest] = {}
        self._unstored: dict[tuple[int, int], Digest] = {}
        """Digests that this transaction changed and has not stored, nor the heads of their branches."""
        self.moved: dict[tuple[int, str], str] = {}
        """The shadow under way of each index for which that changed in this transaction; "": none any more."""
        self.changes = 0
        self.txn_id = 0
        self.took_ms = 0.0
        """The duration of the transaction, until it was on disk."""
        self.dirty = Changed(set(), set(), set(), set(), set())
        self._forks_changed = False
        self.author = ("", "")
        """Author and reason of the work that is done now, for its rows in the audit history; see `signed`."""

    def run(self, work: Callable[[Commit], None], waits: Callable[[], None] = lambda: None) -> None:
        """Begin, do `work`, commit durably. Unless this returns, nothing is stored and memory is unchanged.

        `waits` is called when nothing is left but the commit, which waits for the disk.
        """
        clock = self.catalog.clock
        begun = clock.monotonic()
        try:
            with disk_errors("commit", self.catalog.fell_short):
                write_transaction(self.catalog.env, lambda txn: self._do(txn, work, waits))
        finally:
            self.catalog.dirty.note_digests(self.digests)
            self.catalog.dirty.note_shadows(self.dirty.shadows)
        self.took_ms = (clock.monotonic() - begun) * 1000
        failpoint("journal.committed")
        self.counters.adopt(self)
        self.dirty.branches.update(self.heads)
        self.catalog.dirty.add(self.dirty)

    def _do(self, txn: lmdb.Transaction, work: Callable[[Commit], None], waits: Callable[[], None]) -> None:
        try:
            self.txn = txn
            self._records, self._journal = txn.cursor(self.db["records"]), txn.cursor(self.db["journal"])
            self._refresh_counters(txn.id())
            work(self)
            self.store_heads()
            self.put_number("last_lsn", self.last_lsn)
            failpoint("journal.before_commit")
            self.catalog.txn_id = self.txn_id
            waits()
        finally:  # the environment closes only when the last object of a transaction is gone
            for name in ("txn", "_records", "_journal"):
                self.__dict__.pop(name, None)  # a cursor that could not be made is not there

    def _refresh_counters(self, txn_id: int) -> None:
        """Another JournalWriter may have committed since: one that was stopped and comes to its end (ST-1, ST-3).

        No other process may: raises DirectoryLost. The id of a transaction that failed at its commit is used again.
        """
        if txn_id - self.catalog.txn_id not in (0, 1):
            raise DirectoryLost(
                f"another process has written transaction {txn_id - 1} of the catalog;"
                f" the last one of this engine is {self.catalog.txn_id}",
                operation="commit",
                hint="nothing more is stored; close both engines, run `shadowswitch check`, and open one again",
            )
        if self.counters.txn_id != txn_id - 1:
            self.counters.load(self.catalog)
            self.last_lsn = self.counters.last_lsn
        self.txn_id = txn_id

    def now(self) -> float:
        """The wall time to store, from the clock of the catalog."""
        return self.catalog.clock.wall()

    # -- changes of records ----------------------------------------------------------------------------------------

    def write(self, branch: int, batch: Batch) -> Receipt:
        """Give LSNs to the changes of a batch, which is not empty, and store them: all of them or none."""
        lineage = self.lineage(branch)
        present = self._write_plain(branch, batch) if lineage.is_plain else write_overlaid(self, branch, batch, lineage)
        last, lsn = self.last_lsn, self.last_lsn + len(batch)
        for count, chunk, checksum in batch.chunks:
            last += count
            self._journal.put(_journal_key(branch, last), _chunk_value(last, count, lsn, chunk, checksum))
        assert last == lsn, f"ST-2 the chunks have {last - self.last_lsn} changes, the batch {len(batch)}"
        self.last_lsn = lsn
        self.heads[branch], self.counts[branch] = (lsn, self.head(branch)[1]), present
        self.changes += len(batch)
        return Receipt(lsn, len(batch))

    def _write_plain(self, branch: int, batch: Batch) -> int:
        """Store the records of a branch without forks that is no fork; returns how many it has then."""
        replace, pop = self._records.replace, self._records.pop
        lsn, present = self.last_lsn, self.count(branch)
        of_type = batch.changes[0].resource_type
        number = self.type_number(of_type)
        digest = self.changed_digest(branch, number)
        for change in batch.changes:  # the innermost loop of writing: every call in it costs throughput
            lsn += 1
            if change.resource_type != of_type:
                of_type = change.resource_type
                number = self.type_number(of_type)
                digest = self.changed_digest(branch, number)
            hashed, id = change.key_hash, change.id
            key = keys.record_key(branch, number, hashed >> 58, id)
            if change.fields:
                old = replace(key, _record_value(key, lsn, id, change.fields, change.checksum))
                if old is None:
                    present += 1
                    digest.add(hashed, lsn)
                else:
                    digest.replace(hashed, keys.claimed_lsn(old), lsn)
            else:
                old = pop(key)
                if old is not None:
                    present -= 1
                    digest.remove(hashed, keys.claimed_lsn(old))
        return present

    def store_heads(self) -> None:
        """Store the heads and digests that changed, so that later steps of this transaction see them."""
        for (branch, number), digest in self._unstored.items():
            self.txn.put(keys.TYPE_PREFIX.pack(branch, number), digest.encode(), db=self.db["heads"])
        for branch in {branch for branch, _ in self._unstored}:
            self._put_head(branch)
        self._unstored.clear()

    def _put_head(self, branch: int) -> None:
        count = self.count(branch) % (1 << 64)  # with a damaged digest it may be below 0
        value = keys.HEAD.pack(*self.heads[branch]) + keys.COUNT.pack(count)
        self.txn.put(keys.BRANCH.pack(branch), value, db=self.db["heads"])

    def head(self, branch: int) -> tuple[int, int]:
        """Head LSN and oldest kept LSN of a branch, as of this transaction."""
        known = self.heads.get(branch) or self.counters.heads.get(branch)
        return known or self.catalog.head_in(self.txn, branch)

    def count(self, branch: int) -> int:
        """How many records a branch has, as of this transaction."""
        known = self.counts.get(branch)
        if known is None:
            known = self.counters.counts.get(branch)
        return known if known is not None else self.catalog.record_count_in(self.txn, branch)

    def set_oldest(self, branch: int, oldest: int) -> None:
        """Record that changes below `oldest` are no longer kept."""
        self.set_head(branch, self.head(branch)[0], oldest)

    def digest(self, branch: int, type_number: int) -> Digest:
        """The digest of a branch's type as of this transaction. The transaction stores every change made to it."""
        key = (branch, type_number)
        digest = self.digests.get(key)
        if digest is None:
            known = self.counters.digests.get(key)
            if known is None:
                known = Digest.stored(self.txn.get(keys.TYPE_PREFIX.pack(*key), db=self.db["heads"]))
            digest = self.digests[key] = known.copy()
        return digest

    def changed_digest(self, branch: int, type_number: int) -> Digest:
        """The digest of a branch's type, to be changed: this transaction stores it."""
        digest = self._unstored[branch, type_number] = self.digest(branch, type_number)
        return digest

    def lineage(self, branch: int) -> Lineage:
        """The lineage of a branch as of this transaction."""
        if self._forks_changed:
            return read_lineage(self.txn, self.db, branch)
        return self.catalog.lineage_in(self.txn, branch)

    def forks_changed(self) -> None:
        """This transaction changes what is forked from what, or which branch keeps old images."""
        self._forks_changed = True
        self.next_number(FORKS)

    def forget_digests(self) -> None:
        """Read each digest again when it is needed: the stored ones count, not those in memory."""
        self.counters.digests.clear()

    def correct_digest(self, branch: int, type_number: int, gap: Digest) -> None:
        """Merge the gap between the records of a type and its stored digest (ST-3)."""
        digest = self.digest(branch, type_number)
        digest.merge(gap)
        self.heads.setdefault(branch, self.head(branch))
        self._unstored[branch, type_number] = digest
        self.count_again(branch)

    def set_head(self, branch: int, head: int, oldest: int) -> None:
        """Store a derived head, and a derived oldest kept LSN."""
        self.heads[branch] = (head, oldest)
        self._put_head(branch)

    def count_again(self, branch: int) -> None:
        """Derive the number of records of a branch from its digests (ST-3)."""
        self.store_heads()
        self.counts[branch] = sum(self.catalog.counts_in(self.txn, branch).values())
        self.set_head(branch, *self.head(branch))

    def type_number(self, name: str) -> int:
        """The number of a resource type; a new type gets one now."""
        number = self.counters.types.get(name) or self.new_types.get(name)
        if number is None:
            number = len(self.counters.types) + len(self.new_types) + 1
            self.new_types[name] = number
            self.put_type(number, name)
        return number

    def put_type(self, number: int, name: str) -> None:
        """Store the name of a resource type."""
        self.txn.put(keys.BRANCH.pack(number), name.encode(), db=self.db["types"])
        self.put_number(VERSION, self.catalog.number(VERSION, self.txn) + 1)

    # -- rows ------------------------------------------------------------------------------------------------------

    def next_number(self, name: str) -> int:
        """The next value of a counter of `meta`: token, generation, branch, event. Never returned twice."""
        value = self.catalog.number(name, self.txn) + 1
        self.put_number(name, value)
        return value

    def put_number(self, name: str, value: int) -> None:
        """Store a counter of `meta`."""
        self.txn.put(meta_key(name), keys.SEQUENCE.pack(value), db=self.catalog.meta)

    def create_branch(self, name: str, now: float, parent: int = 0, fork_lsn: int = 0) -> BranchRow:
        """Add a branch; raises BranchExists when there is one of that name."""
        if self.txn.get(name_key(name), db=self.db["branch_names"]) is not None:
            raise BranchExists(f"branch {name!r} exists already", object=name, hint="use it, or choose another name")
        row = BranchRow(rows.FORMAT, self.next_number("branch"), name, "ACTIVE", now, parent, fork_lsn)
        self.put_branch(row)
        self.txn.put(name_key(name), keys.BRANCH.pack(row.number), db=self.db["branch_names"])
        self.emit("branch.created", name, {"branch_name": name})
        return row

    def put_branch(self, row: BranchRow) -> None:
        """Store a branch row."""
        self.txn.put(keys.BRANCH.pack(row.number), rows.encode_row(row), db=self.db["branches"])

    def branch(self, number: int) -> BranchRow:
        """A branch row as of this transaction. Raises UnknownBranch for a branch that was dropped."""
        value = self.txn.get(keys.BRANCH.pack(number), db=self.db["branches"])
        row = rows.decode_branch(value) if value is not None else None
        if row is None or row.state == rows.DROPPING:
            raise no_branch(row.name if row is not None else str(number))
        return row

    def shadow(self, shadow_id: str) -> ShadowRow:
        """A shadow row as of this transaction. Raises UnknownShadow."""
        row = self.find_shadow(shadow_id)
        if row is None:
            raise no_shadow(shadow_id)
        return row

    def find_shadow(self, shadow_id: str) -> ShadowRow | None:
        """A shadow row as of this transaction, or None."""
        value = self.txn.get(shadow_id.encode(), db=self.db["shadows"])
        return self.catalog.lists.shadow(value, self.txn) if value is not None else None

    def under_way(self, branch: int, index_type: str) -> ShadowRow | None:
        """The shadow under way of an index, as of this transaction. At most one is; no other row is read."""
        index = (branch, index_type)
        shadow_id = self.moved.get(index, self.counters.under_way.get(index, ""))
        return self.shadow(shadow_id) if shadow_id else None

    def put_shadow(self, row: ShadowRow) -> None:
        """Store a shadow row."""
        self.dirty.shadows.add(row.id)
        index = (row.branch, row.index_type)
        if row.state in UNDER_WAY:
            self.moved[index] = row.id
        elif self.moved.get(index, self.counters.under_way.get(index)) == row.id:
            self.moved[index] = ""
        self.txn.put(
            row.id.encode(), rows.encode_row(self.catalog.lists.shortened(row, self.txn)), db=self.db["shadows"]
        )

    def find_generation(self, number: int) -> GenerationRow | None:
        """A generation row as of this transaction, or None once it was removed."""
        value = self.txn.get(keys.SEQUENCE.pack(number), db=self.db["generations"])
        return self.catalog.lists.generation(value, self.txn) if value is not None else None

    def generation(self, number: int) -> GenerationRow:
        """A generation row as of this transaction; it must exist."""
        row = self.find_generation(number)
        assert row is not None, f"ST-4 generation {number} has no row"
        return row

    def put_generation(self, row: GenerationRow) -> None:
        """Store a generation row."""
        self.dirty.generations.add(row.number)
        stored = rows.encode_row(self.catalog.lists.shortened(row, self.txn))
        self.txn.put(keys.SEQUENCE.pack(row.number), stored, db=self.db["generations"])

    def delete_generation(self, number: int) -> None:
        """Forget a generation; its directory must be gone."""
        self.dirty.generations.add(number)
        self.txn.delete(keys.SEQUENCE.pack(number), db=self.db["generations"])

    def index(self, branch: int, index_type: str) -> IndexRow | None:
        """A live pointer as of this transaction."""
        value = self.txn.get(keys.BRANCH.pack(branch) + index_type.encode(), db=self.db["indexes"])
        return rows.decode_index(value) if value is not None else None

    def put_index(self, row: IndexRow) -> None:
        """Store a live pointer."""
        self.txn.put(
            keys.BRANCH.pack(row.branch) + row.index_type.encode(), rows.encode_row(row), db=self.db["indexes"]
        )

    def emit(self, kind: str, subject: str, data: dict[str, Any]) -> None:
        """Add an event to the outbox, with author and reason of `data`, else of `signed`; it exists if this commits."""
        assert kind in EVENT_TYPES, f"EV-2 {kind} is not listed in model.events"
        named = {name: value for name, value in zip(("by", "reason"), self.author, strict=True) if value}
        self._put_event("outbox", "event", EVENT_PREFIX + kind, subject, named | data)

    def audit(self, action: str, subject: str, data: dict[str, Any]) -> None:
        """Add a decision to the audit history, with author and reason of `data`, else of `signed`, else the engine."""
        by, reason = data.get("by") or self.author[0], data.get("reason") or self.author[1]
        assert action in AUDIT_ACTIONS, f"EV-4 {action} is not listed in model.events"
        assert by or reason, f"EV-4 {action} has no author, and the engine no reason"
        named = data | {"by": by or ENGINE, "reason": reason or NOT_GIVEN}
        self._put_event("audit", "audit", action, subject, named)

    def _put_event(self, database: str, counter: str, type: str, subject: str, data: dict[str, Any]) -> None:
        sequence = self.next_number(counter)
        identity = f"{self.catalog.uuid[:12]}-{sequence}-{os.urandom(4).hex()}"
        row = EventRow(rows.FORMAT, sequence, identity, type, subject, self.now(), data)
        self.txn.put(keys.SEQUENCE.pack(sequence), rows.encode_row(row), db=self.db[database], append=True)
