"""Bodies of forks: how a branch is made from another, and how the changes of one are merged into the other."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from shadowswitch.model.forks.views import RecordDiff
from shadowswitch.service.http.bodies.branches import WRITE_TIMEOUT_S_MAX
from shadowswitch.service.http.bodies.fields import Body, BranchName, Name, Text, Tokens, Whole

OnConflict = Literal["refuse", "ours", "theirs"]
"""What settles a conflict: nothing, the version of the fork, the version of the parent."""


class NewFork(Body, frozen=True):
    """The parent of the new branch. `at_lsn` is an LSN of the parent, or null for its head."""

    parent: BranchName
    mode: Literal["snapshot", "following"] = "snapshot"
    at_lsn: Whole | None = None
    reason: Text = ""


class Rebase(Body, frozen=True):
    """How conflicts are settled. `tokens` are the fencing tokens of locks of the same `owner`."""

    on_conflict: OnConflict = "refuse"
    owner: Name = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=WRITE_TIMEOUT_S_MAX)] = 10.0
    tokens: Tokens = []
    reason: Text = ""


class MergeInto(Body, frozen=True):
    """The parent that the changes go into. With `dry_run` nothing is written. Else as a rebase."""

    target: BranchName
    on_conflict: OnConflict = "refuse"
    dry_run: bool = False
    owner: Name = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=WRITE_TIMEOUT_S_MAX)] = 10.0
    tokens: Tokens = []
    reason: Text = ""


class Differences(msgspec.Struct, frozen=True):
    """A page of what a fork changed. Send `cursor` for the next page; the last page has none.

    A page may have fewer entries than its limit, or none, and a next page.
    """

    branch_name: str
    against: str
    diffs: list[RecordDiff]
    cursor: str | None
