"""The list of forks, and the marks of their parents, derived again from branches and old images (BR-3, BR-4)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import lmdb

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import LSN_MAX, BranchRow
from shadowswitch.storage.catalog.source.fork_table import FORK, needs_of
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.repair.faults import Fault


def fork_faults(catalog: Catalog, txn: lmdb.Transaction, branches: list[BranchRow]) -> Iterator[Fault]:
    """Each place in the list of forks that the row of the fork does not give, or the other way round; each mark.

    Old images that a parent did not save meanwhile are lost: BR-1 has those. Changes that did not reach a fork which
    follows are not in its journal: ST-2 has those, and a build of its indexes with `full_rebuild` reads its records.
    """
    if "forks" not in catalog.db:
        return
    names = {row.number: row.name for row in branches}
    stored = {bytes(key) for key, _ in txn.cursor(catalog.db["forks"])}
    rows = {row.number: row for row in branches}
    expected = {FORK.pack(number, lsn, row.number) for row in branches for number, lsn in needs_of(row, rows.get)}
    listed = {key for key in stored if len(key) == FORK.size and FORK.unpack(key)[0] in names}
    for key in sorted(expected ^ listed):
        parent, lsn, number = FORK.unpack(key)
        side = "its row" if key in expected else "the list of forks"
        as_what = "that follows it" if lsn == LSN_MAX else f"as of LSN {lsn}"
        problem = f"only {side} has it as a fork of branch {parent} {as_what}"
        found = Finding("BR-4", f"branch {names.get(number, number)!r}", problem)
        yield Fault(found, "the row", partial(_store, key=key, is_there=key in expected))
    as_of = {number for number, lsn, _ in map(FORK.unpack, expected) if lsn < LSN_MAX}
    for number in sorted({*_with_old_images(catalog, txn), *as_of} & names.keys()):
        if BRANCH.pack(number) not in stored:
            problem = "it has forks or old images, and would be written to as if it had none"
            found = Finding("BR-3", f"branch {names[number]!r}", problem)
            yield Fault(found, "the forks and old images", partial(_store, key=BRANCH.pack(number), is_there=True))


def _with_old_images(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[int]:
    cursor, number = txn.cursor(catalog.db["undo"]), 0
    while cursor.set_range(BRANCH.pack(number)):
        number = BRANCH.unpack_from(cursor.key())[0]
        yield number
        number += 1


def _store(commit: Commit, key: bytes, is_there: bool) -> None:
    if is_there:
        commit.txn.put(key, b"", db=commit.db["forks"])
    else:
        commit.txn.delete(key, db=commit.db["forks"])
    commit.forks_changed()
