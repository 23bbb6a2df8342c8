"""Branches by page and by number: what is read costs as much as what is asked for, however many branches there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import DROPPING, BranchRow, decode_branch

SLICE = 500
"""Rows that one transaction reads."""
NUMBER_MAX = (1 << 32) - 2
"""No branch has a number above this one."""


def branch_pages(catalog: Catalog, after: int = 0) -> Iterator[BranchRow]:
    """The branches with a number above `after`, in the order of their creation; a short transaction for each slice."""
    while after <= NUMBER_MAX:
        found: list[BranchRow] = []
        with catalog.read() as txn:
            cursor = txn.cursor(catalog.db["branches"])
            there = cursor.set_range(BRANCH.pack(after + 1))
            while there and len(found) < SLICE:
                found.append(decode_branch(cursor.value()))
                there = cursor.next()
        for row in found:
            after = row.number
            if row.state != DROPPING:
                yield row
        if not there:
            return


def branch_count(catalog: Catalog) -> int:
    """How many branches there are; O(1)."""
    with catalog.read() as txn:
        return int(txn.stat(catalog.db["branch_names"])["entries"])


def branch_rows(catalog: Catalog, numbers: Iterable[int]) -> dict[int, BranchRow]:
    """The branches of these numbers, by number, without those that were dropped."""
    with catalog.read() as txn:
        values = {number: txn.get(BRANCH.pack(number), db=catalog.db["branches"]) for number in sorted(set(numbers))}
        rows = {number: decode_branch(value) for number, value in values.items() if value is not None}
    return {number: row for number, row in rows.items() if row.state != DROPPING}
