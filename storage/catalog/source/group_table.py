"""The groups of a catalog: which indexes are switched together.

    groups    number u64 -> GroupRow

A group that has ended is kept for a look, until `ENDED_MAX` others have ended after it. So a look at all groups is
short, and each question here is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import lmdb

from shadowswitch.model.errors import no_group
from shadowswitch.model.groups.views import BOUND, SWITCHED
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.rows import GroupMemberRow, GroupRow, decode_group

ENDED_MAX = 100
NUMBER_MAX = (1 << 63) - 1


class Readable(Protocol):
    """A `Catalog`."""

    db: dict[str, Any]

    def read(self) -> AbstractContextManager[lmdb.Transaction]:
        """One short read transaction."""


def groups_in(txn: lmdb.Transaction, db: dict[str, Any]) -> Iterator[GroupRow]:
    """Every group, oldest first, as of a transaction. A directory of an older version has none."""
    if "groups" in db:
        for _, value in txn.cursor(db["groups"]):
            yield decode_group(value)


def group_rows(catalog: Readable) -> list[GroupRow]:
    """Every group, oldest first."""
    with catalog.read() as txn:
        return list(groups_in(txn, catalog.db))


def group_row(catalog: Readable, group_id: object) -> GroupRow:
    """The group of that id. Raises UnknownGroup."""
    with catalog.read() as txn:
        return group_in(txn, catalog.db, group_id)


def group_in(txn: lmdb.Transaction, db: dict[str, Any], group_id: object) -> GroupRow:
    """As `group_row`, as of a transaction."""
    head, _, number = group_id.rpartition("-") if isinstance(group_id, str) else ("", "", "")
    if head == "group" and number.isascii() and number.isdecimal() and len(number) < 19 and "groups" in db:
        value = txn.get(SEQUENCE.pack(int(number)), db=db["groups"])
        if value is not None and (row := decode_group(value)).id == group_id:
            return row
    raise no_group(group_id)


def switched_group(rows: Iterable[GroupRow], branch: int, index_type: str) -> GroupRow | None:
    """The group that was switched and still holds the index: its generations soak together."""
    return next((row for row in rows if row.state in SWITCHED and member_of(row, branch, index_type)), None)


def group_of_shadow(rows: Iterable[GroupRow], shadow_id: str) -> GroupRow | None:
    """The group that holds a shadow which was not switched to yet."""
    waiting = (row for row in rows if row.state in BOUND - SWITCHED)
    return next((row for row in waiting if any(one.shadow_id == shadow_id for one in row.members)), None)


def member_of(row: GroupRow, branch: int, index_type: str) -> GroupMemberRow | None:
    """The member of a group for an index."""
    return next((one for one in row.members if (one.branch, one.index_type) == (branch, index_type)), None)


def named(row: GroupRow) -> str:
    """A group as messages name it."""
    return f"group {row.name!r} ({row.id})"


def index_text(one: GroupMemberRow) -> str:
    """A member as messages name it."""
    return f"{one.index_type} of branch {one.branch_name!r}"


def uses_of_groups(rows: Iterable[GroupRow], branch: int, index_type: str | None = None) -> list[str]:
    """The groups that hold an index of a branch, or any of its indexes, each as a use."""
    return [
        f"{named(row)} holds {one.index_type}"
        for row in rows
        if row.state in BOUND
        for one in row.members
        if one.branch == branch and index_type in (None, one.index_type)
    ]
