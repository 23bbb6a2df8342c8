"""Numbers, names and states that the catalog holds twice: fsck finds where they differ, `check --repair` derives them.

meta: last_lsn                       not below any head or journal entry
meta: event, audit                   the number of the newest row of outbox, audit (EV-1)
meta: branch, generation, token, received     not below any number in the rows
heads: head LSN                      the last LSN of the branch's journal (ST-1)
heads: oldest kept LSN               not above the first LSN of the branch's journal
heads: count of records              the sum of the digests of the branch's types (ST-3)
branch_names                         the names in `branches`
branches: state                      the status in `locks`
positions                            not above the newest event
received: number -> key              the rows of `received`
types                                see `types`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.digest import count_of
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import inbox, keys, locks, rows
from shadowswitch.storage.catalog.environment import Catalog, name_key, scan_prefix
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import first_lsn
from shadowswitch.storage.catalog.outbox import COUNTERS
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.repair.faults import Fault
from shadowswitch.storage.repair.forks import fork_faults
from shadowswitch.storage.repair.types import type_faults

UNREADABLE = (CorruptData, msgspec.MsgspecError, ValueError)


def catalog_faults(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[Fault]:
    """Every number, name and state that differs from what it is derived from, as of one transaction."""
    branches = _known(catalog, txn)
    yield from _heads(catalog, txn, branches)
    yield from _counts(catalog, txn, branches)
    shadows = _decoded(catalog, txn, "shadows", rows.decode_shadow_head)
    yield from _numbers(catalog, txn, max((row.token for row in shadows), default=0))
    yield from _names(catalog, txn, branches)
    yield from _states(catalog, txn, {row.number: row for row in branches})
    yield from _positions(catalog, txn)
    yield from _received(catalog, txn)
    yield from fork_faults(catalog, txn, branches)
    yield from type_faults(catalog, txn)


def start_faults(catalog: Catalog, txn: lmdb.Transaction, token: int) -> Iterator[Fault]:
    """Those with which no write may begin: numbers would be given twice, or the journal trimmed by a wrong head.

    `token` is the highest one of a shadow.
    """
    if _highest_head(catalog, txn) > catalog.number("last_lsn", txn):
        yield from _heads(catalog, txn, _known(catalog, txn))
    yield from _numbers(catalog, txn, token)


def _highest_head(catalog: Catalog, txn: lmdb.Transaction) -> int:
    """Of all branches. One seek for each, past the digests of its types; no row is decoded."""
    cursor, number, highest = txn.cursor(catalog.db["heads"]), 0, 0
    while cursor.set_range(keys.BRANCH.pack(number)):
        number = keys.BRANCH.unpack_from(cursor.key())[0] + 1
        if len(cursor.key()) == keys.BRANCH.size and len(cursor.value()) >= keys.HEAD.size:
            highest = max(highest, keys.HEAD.unpack_from(cursor.value())[0])
        if number >> 32:
            break
    return highest


def _known(catalog: Catalog, txn: lmdb.Transaction) -> list[BranchRow]:
    """The branches. Of one that was dropped, some rows are gone."""
    stored = _decoded(catalog, txn, "branches", rows.decode_branch)
    return [row for row in stored if row.state != rows.DROPPING]


def _decoded(catalog: Catalog, txn: lmdb.Transaction, database: str, decode: Callable[[Any], Any]) -> Iterator[Any]:
    """The rows that decode; fsck reports the others."""
    for _, value in txn.cursor(catalog.db[database]):
        with contextlib.suppress(*UNREADABLE):
            yield decode(value)


def _heads(catalog: Catalog, txn: lmdb.Transaction, branches: list[BranchRow]) -> Iterator[Fault]:
    highest = 0
    for row in branches:
        head, oldest = catalog.head_in(txn, row.number)
        ends = _journal_ends(catalog, txn, row.number)
        highest = max(highest, ends[1] if ends is not None else head)
        if ends is None or (ends[1] == head and oldest <= ends[0]):
            continue
        problem = f"its head is {head} and its oldest kept LSN {oldest}, the journal has {ends[0]} to {ends[1]}"
        first, last = ends
        yield Fault(
            Finding("ST-1", f"head of branch {row.name!r}", problem),
            "the journal",
            partial(Commit.set_head, branch=row.number, head=last, oldest=min(oldest, first)),
        )
    given = catalog.number("last_lsn", txn)
    if given < highest:
        problem = f"the last LSN is {given}, the journal has {highest}"
        yield Fault(Finding("ST-1", "counter last_lsn", problem), "the journal", partial(_raise_lsn, lsn=highest))


def _counts(catalog: Catalog, txn: lmdb.Transaction, branches: list[BranchRow]) -> Iterator[Fault]:
    """The stored count of a branch, where there is one, beside the digests of its types."""
    kept: dict[int, int] = {}
    counted: dict[int, int] = {}
    for key, value in txn.cursor(catalog.db["heads"]):
        (branch,) = keys.BRANCH.unpack_from(key)
        if len(key) > keys.BRANCH.size:
            counted[branch] = counted.get(branch, 0) + count_of(value)
        elif len(value) > keys.HEAD.size:
            (kept[branch],) = keys.COUNT.unpack_from(value, keys.HEAD.size)
    for row in branches:
        has, right = kept.get(row.number), counted.get(row.number, 0)
        if has is not None and (has - right) % (1 << 64):
            problem = f"its count of records is {has}, the digests of its types have {right}"
            found = Finding("ST-3", f"head of branch {row.name!r}", problem)
            yield Fault(found, "the digests", partial(Commit.count_again, branch=row.number))


def _journal_ends(catalog: Catalog, txn: lmdb.Transaction, branch: int) -> tuple[int, int] | None:
    """The first and the last LSN of the journal of a branch; None if it is empty or its first chunk is damaged."""
    begin = next(chunks(txn, catalog, branch, 0), None)
    if begin is None:
        return None
    cursor = txn.cursor(catalog.db["journal"])
    there = (cursor.set_range(keys.BRANCH.pack(branch + 1)) and cursor.prev()) or cursor.last()
    assert there, "the journal has at least the first chunk of this branch"
    try:
        return first_lsn(*begin), int(keys.JOURNAL_KEY.unpack(cursor.key())[1])
    except CorruptData:
        return None


def _raise_lsn(commit: Commit, lsn: int) -> None:
    commit.last_lsn = max(commit.last_lsn, lsn)


def _numbers(catalog: Catalog, txn: lmdb.Transaction, token: int) -> Iterator[Fault]:
    for database, counter in COUNTERS.items():
        newest = catalog.span_in(txn, database)[1]
        given = catalog.number(counter, txn)
        if newest != given:
            problem = f"the newest row has number {newest}, the counter is {given}"
            yield Fault(
                Finding("EV-1", database, problem), "its rows", partial(Commit.put_number, name=counter, value=newest)
            )
    generations = _decoded(catalog, txn, "generations", rows.decode_generation)
    used = {
        "branch": _last_number(catalog, txn, "branches"),
        "token": token,
        "generation": max((row.number for row in generations), default=0),
        "received": _newest_received(catalog, txn),
    }
    for counter, highest in used.items():
        given = catalog.number(counter, txn)
        if given < highest:
            problem = f"it is {given}, and {highest} is in use"
            found = Finding("ST-4", f"counter {counter}", problem)
            yield Fault(found, "the rows", partial(Commit.put_number, name=counter, value=highest))


def _last_number(catalog: Catalog, txn: lmdb.Transaction, database: str) -> int:
    """The highest number of a row whose key begins with it; 0 if there is none."""
    cursor = txn.cursor(catalog.db[database])
    return int(keys.BRANCH.unpack_from(cursor.key())[0]) if cursor.last() else 0


def _names(catalog: Catalog, txn: lmdb.Transaction, branches: list[BranchRow]) -> Iterator[Fault]:
    stored = {bytes(key): bytes(value) for key, value in txn.cursor(catalog.db["branch_names"])}
    for row in branches:
        key, number = name_key(row.name), keys.BRANCH.pack(row.number)
        if stored.pop(key, None) != number:
            found = Finding("ST-4", f"branch {row.name!r}", "its name does not lead to its row")
            yield Fault(found, "the row", partial(_store, database="branch_names", key=key, value=number))
    for key in stored:
        found = Finding("ST-4", "branch names", f"the name with the hash {key.hex()} is of no branch")
        yield Fault(found, "the rows", partial(_store, database="branch_names", key=key, value=None))


def _store(commit: Commit, database: str, key: bytes, value: bytes | None) -> None:
    if value is None:
        commit.txn.delete(key, db=commit.db[database])
    else:
        commit.txn.put(key, value, db=commit.db[database])


def _states(catalog: Catalog, txn: lmdb.Transaction, branches: dict[int, BranchRow]) -> Iterator[Fault]:
    for row in _decoded(catalog, txn, "locks", locks.decode_locks):
        branch, state = branches.get(row.branch), str(row.status.state)
        if branch is not None and branch.state != state:
            found = Finding(
                "ST-4", f"locks of branch {row.branch}", f"the branch is {branch.state}, its locks say {state}"
            )
            yield Fault(found, "its locks", partial(_set_state, number=branch.number, state=state))


def _set_state(commit: Commit, number: int, state: str) -> None:
    commit.put_branch(msgspec.structs.replace(commit.branch(number), state=state))


def _positions(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[Fault]:
    newest = catalog.span_in(txn, "outbox")[1]
    for key, value in txn.cursor(catalog.db["positions"]):
        position = keys.SEQUENCE.unpack(value)[0]
        if position > newest:
            found = Finding("EV-1", "positions", f"a reader is at event {position}, the newest is {newest}")
            stored = keys.SEQUENCE.pack(newest)
            yield Fault(found, "the outbox", partial(_store, database="positions", key=bytes(key), value=stored))


def _by_number(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[tuple[int, bytes]]:
    for key, value in scan_prefix(txn, catalog.db["received"], b"t"):
        yield keys.SEQUENCE.unpack(key[1:])[0], bytes(value)


def _newest_received(catalog: Catalog, txn: lmdb.Transaction) -> int:
    cursor = txn.cursor(catalog.db["received"])
    return int(keys.SEQUENCE.unpack(cursor.key()[1:])[0]) if cursor.last() and cursor.key()[:1] == b"t" else 0


def _received(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[Fault]:
    stored = dict(_by_number(catalog, txn))
    where = "received events"
    for key, value in scan_prefix(txn, catalog.db["received"], b"k"):
        with contextlib.suppress(*UNREADABLE):
            number = inbox.decode_received(value).number
            if stored.pop(number, None) != key:
                found = Finding("EV-3", where, f"the row {bytes(key[1:]).hex()} has no entry for its number {number}")
                step = partial(_store, database="received", key=b"t" + keys.SEQUENCE.pack(number), value=bytes(key))
                yield Fault(found, "the row", step)
    for number, key in stored.items():
        if txn.get(key, db=catalog.db["received"]) is None:
            found = Finding("EV-3", where, f"number {number} refers to no event")
            step = partial(_store, database="received", key=b"t" + keys.SEQUENCE.pack(number), value=None)
            yield Fault(found, "the rows", step)
