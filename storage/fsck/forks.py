"""fsck of forks: the rows of branches and of forks agree, forks form a tree, branches with old images are marked."""

from __future__ import annotations

from collections.abc import Iterator

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import DROPPING, BranchRow, decode_branch
from shadowswitch.storage.catalog.source.fork_table import FORK, needed_lsns


def check_forks(catalog: Catalog) -> Iterator[Finding]:
    """BR-3, BR-4, as of one transaction."""
    if "forks" not in catalog.db:
        return
    with catalog.read() as txn:
        branches = {(row := decode_branch(value)).number: row for _, value in txn.cursor(catalog.db["branches"])}
        forks: set[tuple[int, int, int]] = set()
        marked: set[int] = set()
        for key, _ in txn.cursor(catalog.db["forks"]):
            if len(key) == FORK.size:
                forks.add(FORK.unpack(key))
            else:
                marked.add(BRANCH.unpack(key)[0])
        expected = {fork for row in branches.values() if row.state != DROPPING for fork in _places(row)}
        for parent, lsn, number in sorted(expected ^ forks):
            where = f"branch {branches[number].name!r}" if number in branches else f"branch {number}"
            side = "its row" if (parent, lsn, number) in expected else "the list of forks"
            yield Finding("BR-4", where, f"only {side} has it as a fork of branch {parent} as of LSN {lsn}")
        for parent, lsn, number in sorted(expected):
            of = branches.get(parent)
            if of is None or of.state == DROPPING or parent >= number:
                yield Finding("BR-4", f"branch {branches[number].name!r}", f"its parent {parent} is no older branch")
            elif lsn > catalog.head_in(txn, parent)[0]:
                yield Finding(
                    "BR-4", f"branch {branches[number].name!r}", f"it shows its parent as of LSN {lsn}, above its head"
                )
        cursor, number = txn.cursor(catalog.db["undo"]), 0
        while cursor.set_range(BRANCH.pack(number)):
            number = BRANCH.unpack_from(cursor.key())[0]
            if number not in marked and number in branches and branches[number].state != DROPPING:
                problem = "it has old images, and would be written to as if it had none"
                yield Finding("BR-3", f"branch {branches[number].name!r}", problem)
            number += 1


def _places(row: BranchRow) -> list[tuple[int, int, int]]:
    """The places of a branch among the forks of its parent."""
    return [(row.parent, lsn, row.number) for lsn in needed_lsns(row)]
