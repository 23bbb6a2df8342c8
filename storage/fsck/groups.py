"""fsck of groups: the indexes of one that was switched stand together."""

from __future__ import annotations

from collections.abc import Iterator

import lmdb

from shadowswitch.model.groups.views import BOUND, SWITCHED, GroupState
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import GroupRow, decode_index
from shadowswitch.storage.catalog.source.group_table import groups_in
from shadowswitch.storage.catalog.transitions.groups import HELD


def check_groups(catalog: Catalog) -> Iterator[Finding]:
    """GR-1, and ST-4: the number of groups that hold indexes; as of one transaction."""
    with catalog.read() as txn:
        held = 0
        for row in groups_in(txn, catalog.db):
            held += row.state in BOUND
            if row.state in SWITCHED:
                yield from _check_members(catalog, txn, row)
        if held != (counted := catalog.number(HELD, txn)):
            yield Finding("ST-4", "groups", f"{held} of them hold indexes, the catalog counts {counted}")


def _check_members(catalog: Catalog, txn: lmdb.Transaction, row: GroupRow) -> Iterator[Finding]:
    for one in row.members:
        value = txn.get(BRANCH.pack(one.branch) + one.index_type.encode(), db=catalog.db["indexes"])
        index = decode_index(value) if value is not None else None
        expected = one.generation if row.state == GroupState.ACTIVE else one.previous
        if index is not None and not index.live and index.withdrawn:
            continue  # the start found it ahead of its branch: no generation is live, and the reason is stored
        if index is None or index.live != expected:
            where = f"{row.id}, {one.index_type} of branch {one.branch_name!r}"
            live = index.live if index is not None else "none"
            yield Finding("GR-1", where, f"the group is {row.state} with generation {expected}, and {live} is live")
