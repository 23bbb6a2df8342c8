"""The catalog: one LMDB environment that holds everything that must be consistent together.

Owns `catalog/data.mdb`. Named databases and what they hold (invariants ST-1 to ST-4, see `model.invariants`):

    (unnamed)      `meta_key` of format, uuid, last_lsn, token, generation, branch, group, event, audit,
                   received
    types          type number -> resource type name; numbers are never reused
    branches       branch number -> BranchRow             branch_names   BLAKE2b-128 of a name -> branch number
    heads          branch number -> head LSN, oldest kept LSN, count of records; branch, type -> Digest
    records        see `keys`                              journal        see `entries`
    shadows        shadow id -> ShadowRow                  generations    number -> GenerationRow
    indexes        branch, index type -> IndexRow          outbox, audit  sequence -> EventRow
    locks          branch number -> LocksRow (see `lock_rows`)   received     see `received`
    positions      see `outbox`                                holds          see `holds`
    forks          see `source.fork_table`                     undo           see `source.versions`
    groups         number -> GroupRow, see `source.group_table`

A commit takes as long as it has pages to write, so what every commit changes lies together: the numbers in the unnamed
database, whose page holds the roots of all others and is written anyway; head and digests of a branch side by side.

Only the JournalWriter begins write transactions (see `commit`). Readers use short transactions: no read
transaction outlives one call of this module, because a long one makes the file grow without bound.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lmdb

from shadowswitch.model.digest import Digest, DigestSum, count_of
from shadowswitch.model.errors import (
    DirectoryLost,
    EngineClosed,
    ShadowSwitchError,
    UnsupportedFormat,
    no_branch,
    no_shadow,
)
from shadowswitch.storage import disk
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.dirty import DirtySet
from shadowswitch.storage.catalog.keys import BRANCH, COUNT, HEAD, SEQUENCE, TYPE_PREFIX
from shadowswitch.storage.catalog.rows import BranchRow, EventRow, GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.source.fork_table import FORKS, ForkTable, Lineage
from shadowswitch.storage.catalog.source.type_lists import TypeLists
from shadowswitch.storage.catalog.source.type_table import UNREAD, VERSION, TypeTable
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.cut_file import is_empty, refuse_cut, without_entries
from shadowswitch.storage.data_directory import DATA_FILE
from shadowswitch.storage.disk import disk_errors

FORMAT = b"shadowswitch-2"
FIRST_FORMAT_META = b"meta"
"""Where the first format keeps its name: a version that reads no other must find ours there, and refuse it."""
LOCK_FILE = "lock.mdb"
ADDED = ("forks", "undo", "groups", "bases")
"""Directories of older versions lack these; a reader of such a one opens nothing in their place."""
DATABASES = (
    "types", "branches", "branch_names", "heads", "records", "journal",
    "shadows", "generations", "indexes", "outbox", "audit", "locks", "received", "positions",
    "holds", *ADDED,
)  # fmt: skip
READERS_MAX = 1024
"""LMDB's default of 126 concurrent read transactions is less than a busy host's threads."""
MAP_SIZE_BYTES = 64 << 30
"""Address space, not disk: the file is sparse and grows as needed. Growing a map live would stop every transaction."""


class Catalog:
    """The environment and its read side. Any thread; each call is one short read transaction.

    One Catalog per process and data directory: LMDB refuses a second one. Never use it across `fork`.
    """

    def __init__(
        self, path: Path, *, readonly: bool = False, map_size_bytes: int = MAP_SIZE_BYTES, clock: Clock = SYSTEM
    ) -> None:
        """Open (and, unless readonly, make) the environment.

        Raises CorruptData, DirectoryLost, StorageFull, ResourceExhausted, UnsupportedFormat.
        """
        self._path = path
        self.readonly = readonly
        self.clock = clock
        """The clock of every deadline and every stored time."""
        self.failed: ShadowSwitchError | None = None
        """Set by the JournalWriter when the disk failed: nothing is written until the engine is opened again."""
        self.short: ShadowSwitchError | None = None
        """The error of the last write, if there was no room for it, until one succeeds. Any thread."""
        self.dirty = DirtySet()
        self._types, self._forks = UNREAD, ForkTable(0)
        self._lock_file = self._witness = -1
        self._closed = False
        with disk_errors("open"):
            refuse_cut(path / DATA_FILE)
            if readonly and is_empty(path / DATA_FILE):
                raise without_entries(path / DATA_FILE)
            self.env = lmdb.open(
                str(path),
                map_size=map_size_bytes,
                max_dbs=len(DATABASES) + 3,
                max_readers=READERS_MAX,
                mode=0o600,
                readonly=readonly,
                create=not readonly,
                lib_version=0,
            )
            try:
                self._lock_file = -1 if readonly else disk.reserve(path / LOCK_FILE)
                self._witness = -1 if readonly else os.open(path / DATA_FILE, os.O_RDONLY | os.O_CLOEXEC)
                self.stale_readers_cleared = 0 if readonly else self.env.reader_check()
                self._open_databases()
                self.txn_id = self.last_txn_id()
                """The id of the last transaction that this process wrote, or found here."""
            except FileNotFoundError as error:
                self.close()
                raise DirectoryLost(
                    f"{error.filename} was removed or renamed while the engine opened it",
                    operation="open",
                    object=str(path),
                    hint="put back what was moved, and open the engine again",
                ) from error
            except BaseException:
                self.close()
                raise

    def _open_databases(self) -> None:
        self.meta = self.env.open_db(None)
        self.lists = TypeLists(self.meta)
        if self.readonly:
            with self.env.begin() as txn:
                self._check_format(txn)
                there = {bytes(name) for name in txn.cursor(self.meta).iternext(values=False)}
            found = [name for name in DATABASES if name not in ADDED or name.encode() in there]
            self.db = {name: self.env.open_db(name.encode(), create=False) for name in found}
            return
        with self.env.begin(write=True) as txn:
            if txn.stat(self.meta)["entries"] == 0:
                txn.put(meta_key("format"), FORMAT, db=self.meta)
                txn.put(meta_key("uuid"), uuid.uuid4().hex.encode(), db=self.meta)
                txn.put(b"format", FORMAT, db=self.env.open_db(FIRST_FORMAT_META, txn=txn))
            self._check_format(txn)
            self.db = {name: self.env.open_db(name.encode(), txn=txn) for name in DATABASES}

    def _check_format(self, txn: lmdb.Transaction) -> None:
        found = txn.get(meta_key("format"), db=self.meta)
        if found != FORMAT:
            says = "no format that this version knows" if found is None else f"the format {found!r}"
            raise UnsupportedFormat(
                f"the data directory has {says}, this version reads {FORMAT!r}",
                operation="open",
                hint="open it with the version of shadowswitch that wrote it",
            )
        self.uuid = bytes(txn.get(meta_key("uuid"), db=self.meta) or b"").decode()

    def close(self) -> None:
        """Close the environment. Idempotent."""
        self._closed = True
        self.env.close()
        descriptors, self._lock_file, self._witness = (self._lock_file, self._witness), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def last_txn_id(self) -> int:
        """The id of the last committed transaction of any process."""
        return int(self.env.info()["last_txnid"])

    def fell_short(self) -> OSError | None:
        """After an EIO from LMDB: why a write merely did not fit, if so. The JournalWriter's thread."""
        return disk.fell_short(self._witness, self._path)

    @contextlib.contextmanager
    def read(self) -> Iterator[lmdb.Transaction]:
        """One short read transaction; values are memoryviews, valid inside it only. Raises EngineClosed once closed."""
        with disk_errors("read"), self._begin() as txn:
            yield txn

    def _begin(self) -> lmdb.Transaction:
        try:
            return self.env.begin(buffers=True)
        except lmdb.Error:
            if self._closed:
                raise EngineClosed("the engine is closed", operation="read", hint="open it again") from None
            raise

    # -- numbers ---------------------------------------------------------------------------------------------------

    def number(self, name: str, txn: lmdb.Transaction) -> int:
        """A counter; 0 before its first use."""
        value = txn.get(meta_key(name), db=self.meta)
        return int(SEQUENCE.unpack(value)[0]) if value is not None else 0

    def last_lsn(self) -> int:
        """The LSN of the last committed change of any branch."""
        with self.read() as txn:
            return self.number("last_lsn", txn)

    def types(self) -> dict[int, str]:
        """Every resource type ever used, by number. Shared: the caller does not change it."""
        with self.read() as txn:
            return self.types_in(txn).names

    def type_numbers(self) -> dict[str, int]:
        """The number of every resource type ever used, by name. Shared: the caller does not change it."""
        with self.read() as txn:
            return self.types_in(txn).numbers

    def types_in(self, txn: lmdb.Transaction) -> TypeTable:
        """The table of types, inside a transaction. It is kept in memory."""
        table = self._types = self._types.at(self.number(VERSION, txn), txn, self.db["types"])
        return table

    def lineage_in(self, txn: lmdb.Transaction, branch: int) -> Lineage:
        """The lineage of a branch, inside a transaction. It is kept in memory until any fork is made or ends."""
        table = self._forks = self._forks.at(self.number(FORKS, txn))
        return table.of(txn, self.db, branch)

    # -- branches --------------------------------------------------------------------------------------------------

    def find_branch(self, name: str) -> BranchRow | None:
        """The branch of that name, or None."""
        with self.read() as txn:
            number = txn.get(name_key(name), db=self.db["branch_names"])
            row = txn.get(bytes(number), db=self.db["branches"]) if number is not None else None
            return rows.decode_branch(row) if row is not None else None

    def branch(self, name: str) -> BranchRow:
        """The branch of that name; raises UnknownBranch."""
        row = self.find_branch(name)
        if row is None:
            raise no_branch(name)
        return row

    def branches(self) -> list[BranchRow]:
        """All branches, in the order of their creation."""
        return [row for row in self.stored_branches() if row.state != rows.DROPPING]

    def stored_branches(self) -> list[BranchRow]:
        """As `branches`, with those that are being removed."""
        with self.read() as txn:
            return [rows.decode_branch(value) for _, value in txn.cursor(self.db["branches"])]

    def head(self, branch: int) -> tuple[int, int]:
        """The LSN of the branch's last change, and the oldest LSN that its journal still holds or would hold."""
        with self.read() as txn:
            return self.head_in(txn, branch)

    def head_in(self, txn: lmdb.Transaction, branch: int) -> tuple[int, int]:
        """As `head`, inside a transaction."""
        value = txn.get(BRANCH.pack(branch), db=self.db["heads"])
        head, oldest = HEAD.unpack_from(value) if value is not None else (0, 1)
        return head, oldest

    def record_count(self, branch: int) -> int:
        """How many records a branch has; O(1), except for a branch that was last written to by an older version."""
        with self.read() as txn:
            return self.record_count_in(txn, branch)

    def record_count_in(self, txn: lmdb.Transaction, branch: int) -> int:
        """As `record_count`, inside a transaction."""
        value = txn.get(BRANCH.pack(branch), db=self.db["heads"])
        if value is not None and len(value) > HEAD.size:
            return int(COUNT.unpack_from(value, HEAD.size)[0])
        return sum(self.counts_in(txn, branch).values())

    def count(self, branch: int, resource_type: str) -> int:
        """How many records of a type a branch has; O(1)."""
        with self.read() as txn:
            number = self.types_in(txn).numbers.get(resource_type, 0)
            value = txn.get(TYPE_PREFIX.pack(branch, number), db=self.db["heads"])
            return count_of(value) if value is not None else 0

    def count_of(self, branch: int, types: Iterable[int]) -> int:
        """How many records of these types a branch has. Costs 1 us for each type."""
        with self.read() as txn:
            values = [txn.get(TYPE_PREFIX.pack(branch, number), db=self.db["heads"]) for number in types]
            return sum(count_of(value) for value in values if value is not None)

    def counts(self, branch: int) -> dict[int, int]:
        """The number of records by type, of the types that have some. Costs 2 us for each type of the branch."""
        with self.read() as txn:
            return self.counts_in(txn, branch)

    def counts_in(self, txn: lmdb.Transaction, branch: int) -> dict[int, int]:
        """As `counts`, inside a transaction."""
        found = scan_prefix(txn, self.db["heads"], BRANCH.pack(branch))
        counted = ((TYPE_PREFIX.unpack(key)[1], count_of(value)) for key, value in found if len(key) > BRANCH.size)
        return {number: count for number, count in counted if count}

    def source_digest(self, branch: int, types: Iterable[int]) -> tuple[int, Digest]:
        """(head LSN, digest over these types), both as of one transaction. Costs 2 us for each type."""
        with self.read() as txn:
            head, _ = self.head_in(txn, branch)
            total = DigestSum()
            for number in types:
                total.add(txn.get(TYPE_PREFIX.pack(branch, number), db=self.db["heads"]))
            return head, total.digest()

    # -- shadows, generations, indexes -----------------------------------------------------------------------------

    def find_shadow(self, shadow_id: str) -> ShadowRow | None:
        """The shadow index of that id, or None."""
        key = shadow_id.encode(errors="replace") if isinstance(shadow_id, str) else b""
        if not 0 < len(key) <= 200:
            return None
        with self.read() as txn:
            value = txn.get(key, db=self.db["shadows"])
            return self.lists.shadow(value, txn) if value is not None else None

    def shadow(self, shadow_id: str) -> ShadowRow:
        """The shadow index of that id; raises UnknownShadow."""
        row = self.find_shadow(shadow_id)
        if row is None:
            raise no_shadow(shadow_id)
        return row

    def generation(self, number: int) -> GenerationRow | None:
        """The generation of that number, or None once it was removed."""
        with self.read() as txn:
            value = txn.get(SEQUENCE.pack(number), db=self.db["generations"])
            return self.lists.generation(value, txn) if value is not None else None

    def generations(self) -> list[GenerationRow]:
        """All generations, in the order of their creation."""
        with self.read() as txn:
            return [self.lists.generation(value, txn) for _, value in txn.cursor(self.db["generations"])]

    def index(self, branch: int, index_type: str) -> IndexRow | None:
        """What a branch serves for an index type, or None before its first switch."""
        with self.read() as txn:
            value = txn.get(BRANCH.pack(branch) + index_type.encode(), db=self.db["indexes"])
            return rows.decode_index(value) if value is not None else None

    def indexes(self) -> list[IndexRow]:
        """All live pointers."""
        with self.read() as txn:
            return [rows.decode_index(value) for _, value in txn.cursor(self.db["indexes"])]

    # -- events and audit ------------------------------------------------------------------------------------------

    def events(self, after: int, limit: int, database: str = "outbox") -> list[EventRow]:
        """Events (or audit rows) with a sequence number above `after`, in order."""
        found: list[EventRow] = []
        with self.read() as txn:
            cursor = txn.cursor(self.db[database])
            if cursor.set_range(SEQUENCE.pack(after + 1)):
                for _, value in cursor:
                    found.append(rows.decode_event(value))
                    if len(found) >= limit:
                        break
        return found

    def span(self, database: str = "outbox") -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest event (or audit row) kept; (1, 0) when there is none."""
        with self.read() as txn:
            return self.span_in(txn, database)

    def span_in(self, txn: lmdb.Transaction, database: str) -> tuple[int, int]:
        """As `span`, inside a transaction."""
        cursor = txn.cursor(self.db[database])
        if not cursor.first():
            newest = self.number("audit" if database == "audit" else "event", txn)
            return newest + 1, newest
        oldest = int(SEQUENCE.unpack(cursor.key())[0])
        cursor.last()
        return oldest, int(SEQUENCE.unpack(cursor.key())[0])


def meta_key(name: str) -> bytes:
    """The key of a number or text in the unnamed database, where no database can have that name."""
    return b":" + name.encode()


def name_key(name: str) -> bytes:
    """The key of a branch name, which may be longer than a key can be."""
    from hashlib import blake2b

    return blake2b(name.encode(), digest_size=16).digest()


def scan_prefix(txn: lmdb.Transaction, db: Any, prefix: bytes) -> Iterator[tuple[Any, Any]]:
    """All entries whose key begins with `prefix`, in order."""
    cursor = txn.cursor(db)
    if not cursor.set_range(prefix):
        return
    for key, value in cursor:
        if key[: len(prefix)] != prefix:
            return
        yield key, value
