"""fsck of forks: they form a tree. Their list, and the marks of their parents, can be derived again: `repair.forks`."""

from __future__ import annotations

from collections.abc import Iterator

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import DROPPING, decode_branch


def check_forks(catalog: Catalog) -> Iterator[Finding]:
    """BR-4, as of one transaction."""
    with catalog.read() as txn:
        branches = {(row := decode_branch(value)).number: row for _, value in txn.cursor(catalog.db["branches"])}
        for row in branches.values():
            if not row.parent or row.state == DROPPING:
                continue
            of, where = branches.get(row.parent), f"branch {row.name!r}"
            if of is None or of.state == DROPPING or row.parent >= row.number:
                yield Finding("BR-4", where, f"its parent {row.parent} is no older branch")
            elif (lsn := max(row.fork_lsn, row.shown_lsn, row.rebase_lsn)) > catalog.head_in(txn, row.parent)[0]:
                yield Finding("BR-4", where, f"it needs its parent as of LSN {lsn}, above the head of that")
