"""What the calls on forks return."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from shadowswitch.model.records import Receipt


class DiffKind(StrEnum):
    """What a fork did to a record of its parent."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


class RecordDiff(msgspec.Struct, frozen=True):
    """A record that a fork changed. An LSN is 0 where that side has no record, nor deleted one.

    `base_lsn` is the version that the fork began with, `ours_lsn` the fork's own, `theirs_lsn` that of its parent now.
    """

    resource_type: str
    id: str
    kind: DiffKind
    base_lsn: int
    ours_lsn: int
    theirs_lsn: int


class DiffPage(msgspec.Struct, frozen=True):
    """A page of a diff, in the order of the records on disk. `cursor` begins the next page; None: this is the last one.

    A page may have fewer entries than its limit, or none, and a next page.
    """

    diffs: list[RecordDiff]
    cursor: str | None


class Conflict(msgspec.Struct, frozen=True):
    """A record that a fork and its parent changed differently since `base`.

    `ours` are the fields on the fork, `theirs` those on its parent; None where there is no record. `fields` names the
    fields that both changed; it is empty where one side has no record: then the whole is in conflict.
    """

    resource_type: str
    id: str
    fields: tuple[str, ...]
    base: dict[str, Any] | None
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None


class MergeResult(msgspec.Struct, frozen=True):
    """What a merge, or a rebase, did, or would do.

    `applied` counts the records that were written, `same` those that both sides changed alike. `conflicts` has every
    conflict: with "refuse" the reason why nothing was written, else settled. `receipt` is that of the last batch: a
    reader with its LSN shows all of the merge. It is None where nothing was written.
    """

    applied: int
    same: int
    conflicts: list[Conflict]
    receipt: Receipt | None
