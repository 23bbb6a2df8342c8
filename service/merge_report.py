"""What a merge or a rebase did, as HTTP and the command line show it: with a bound on the conflicts that are listed."""

from __future__ import annotations

import msgspec

from shadowswitch.model.forks.merging import REFUSE
from shadowswitch.model.forks.views import Conflict, MergeResult
from shadowswitch.model.records import Receipt

CONFLICTS_MAX = 1000
CONFLICTS_BYTES_MAX = 8 << 20
"""Conflicts carry three versions of a record each. The first one is listed at any size."""


class MergeReport(msgspec.Struct, frozen=True):
    """A merge or a rebase. `success` is false when conflicts refused it, or would refuse it.

    `applied` counts the records that were written, or would be; `same` those that both sides changed alike.
    `conflict_count` counts all conflicts, `conflicts` has the first of them: with "refuse" they are open, else settled.
    `receipt` is that of the last batch; null where nothing was written.
    """

    success: bool
    message: str
    dry_run: bool
    applied: int
    same: int
    conflict_count: int
    conflicts: list[Conflict]
    receipt: Receipt | None


def report_of(result: MergeResult, on_conflict: str, into: str, dry_run: bool = False) -> MergeReport:
    """The report of a result; `into` is the branch that was written to."""
    count = len(result.conflicts)
    refused = on_conflict == REFUSE and count > 0
    message = _message(result, into, refused, dry_run)
    shown = _first(result.conflicts)
    return MergeReport(not refused, message, dry_run, result.applied, result.same, count, shown, result.receipt)


def _message(result: MergeResult, into: str, refused: bool, dry_run: bool) -> str:
    count = len(result.conflicts)
    conflicts = "1 conflict" if count == 1 else f"{count} conflicts"
    if refused and result.receipt is None:
        return f"refused: {conflicts}, and nothing was written to {into}"
    records = "1 record" if result.applied == 1 else f"{result.applied} records"
    if refused:
        return f"refused: {conflicts} came meanwhile; {records} were written to {into} before, and stay"
    verb = "would be" if dry_run else "was" if result.applied == 1 else "were"
    done = f"{records} {verb} written to {into}" if result.applied else f"{into} has all of it already"
    return done + (f", {conflicts} settled" if count else "")


def _first(conflicts: list[Conflict]) -> list[Conflict]:
    size = 0
    for number, conflict in enumerate(conflicts[:CONFLICTS_MAX]):
        size += len(msgspec.json.encode(conflict))
        if number and size > CONFLICTS_BYTES_MAX:
            return conflicts[:number]
    return conflicts[:CONFLICTS_MAX]
