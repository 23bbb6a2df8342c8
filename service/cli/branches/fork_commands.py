"""The commands for forks: fork, diff, merge, rebase."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.forks.comparison import diff_page, fork_and_parent
from shadowswitch.model.forks.views import DiffPage
from shadowswitch.model.names import check_resource_type
from shadowswitch.service.cli import output
from shadowswitch.service.cli.branches.shown import fork_text, report_lines
from shadowswitch.service.cli.directory import By, Data, Json, Reason, Refused, open_catalog, open_engine
from shadowswitch.service.merge_report import MergeReport, report_of

OnConflict = Annotated[
    Literal["refuse", "ours", "theirs"],
    Parameter(help="refuse: write nothing. ours: the version of the fork. theirs: the version of its parent."),
]
LIMIT_MAX = 10_000
Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=LIMIT_MAX), help="Print at most this many.")]
LockWait = Annotated[float, Parameter(validator=Number(gt=0, lte=60), help="Seconds to wait for a lock in the way.")]


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (fork, diff, merge, rebase):
        app.command(command)


def fork(
    name: str,
    parent: str,
    *,
    data: Data,
    mode: Literal["snapshot", "following"] = "snapshot",
    at_lsn: Annotated[int | None, Parameter(show_default=False)] = None,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make a branch that shows its parent as it is now. It takes the same time at any size.

    What either changes from then on shows on that one alone. The first search on the fork has its index made.

    Example: `shadowswitch fork feature/rename main --data ./data`

    Example: `shadowswitch fork preview main --mode following --data ./data`

    Parameters
    ----------
    name
        The name of the new branch.
    parent
        The branch to fork.
    mode
        snapshot: as the parent is now. following: as it is at each moment, until the fork changes a record itself.
    at_lsn
        Show the parent as of this LSN instead, as far as that is still known.
    """
    with open_engine(data) as engine:
        found = engine.fork_branch(name, parent, mode, at_lsn, by=by, reason=reason)
    records = output.counted(found.record_count, "record")
    what = fork_text(found.parent, found.fork_lsn, found.mode)
    output.print_result(found, f"{found.name} is a {what}, with {records}", json)


def diff(
    branch: str,
    *,
    data: Data,
    against: Annotated[str | None, Parameter(show_default=False)] = None,
    resource_type: Annotated[str | None, Parameter(name="--type", show_default=False)] = None,
    limit: Limit = 1000,
    cursor: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
) -> None:
    """Print what a fork changed since it was made, or since its last rebase. Works beside a running host.

    Example: `shadowswitch diff feature/rename --data ./data`

    Parameters
    ----------
    against
        The parent of the fork. It is no other branch.
    resource_type
        Only records of this resource type.
    cursor
        Go on from here: the `cursor` of the page before.
    """
    page, parent = _page(data, branch, against, resource_type, cursor, limit)
    if json:
        output.print_json({"branch_name": branch, "against": parent, "diffs": page.diffs, "cursor": page.cursor})
        return
    rows = [
        [one.kind, one.resource_type, one.id, _lsn(one.base_lsn), _lsn(one.ours_lsn), _lsn(one.theirs_lsn)]
        for one in page.diffs
    ]
    title = f"{branch} against {parent}: {output.counted(len(page.diffs), 'record')}"
    output.print_table(title, ["", "type", "id", "base lsn", "ours lsn", "theirs lsn"], rows)
    if page.cursor is not None:
        output.say(f"there are more: --cursor {page.cursor} goes on")


def _lsn(lsn: int) -> str:
    return str(lsn) if lsn else ""


def _page(
    data: Path, branch: str, against: str | None, resource_type: str | None, cursor: str | None, limit: int
) -> tuple[DiffPage, str]:
    """A page of a diff, and the name of the parent. It has `limit` entries, or is the last one."""
    if resource_type is not None:
        check_resource_type(resource_type)
    with open_catalog(data) as catalog:
        fork, parent = fork_and_parent(catalog, branch, against, "diff")
        page = diff_page(catalog, fork, resource_type, cursor, limit)
        found = page.diffs
        while page.cursor is not None and len(found) < limit:
            page = diff_page(catalog, fork, resource_type, page.cursor, limit - len(found))
            found = [*found, *page.diffs]
        fork_and_parent(catalog, branch, parent.name, "diff")  # one that was dropped meanwhile has half of its rows
    return DiffPage(found, page.cursor), parent.name


def merge(
    source: str,
    target: str,
    *,
    data: Data,
    on_conflict: OnConflict = "refuse",
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    timeout: LockWait = 10,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Bring what a fork changed into its parent, field by field. Exit status 1: conflicts, and nothing was written.

    A record that both changed is merged by fields. A field that both changed differently is a conflict, and so is a
    record that one deleted and the other changed. The fork stays as it is: before work on it goes on, `rebase` it.

    Example: `shadowswitch merge feature/rename main --dry-run --data ./data`

    Parameters
    ----------
    source
        The fork.
    target
        Its parent, which is written to.
    dry_run
        Write nothing, and say what would happen.
    """
    with open_engine(data) as engine:
        found = engine.merge_into(target, source, on_conflict, dry_run, timeout_s=timeout, by=by, reason=reason)
    if not isinstance(found, MergeReport):
        found = report_of(found, on_conflict, target, dry_run)
    _print_report(found, source, target, json)


def rebase(
    branch: str,
    *,
    data: Data,
    on_conflict: OnConflict = "refuse",
    timeout: LockWait = 10,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Bring what the parent changed into a fork, which shows its parent as of its head then.

    Exit status 1: conflicts, and nothing was written.

    Example: `shadowswitch rebase feature/rename --data ./data`

    Parameters
    ----------
    branch
        The fork, which is written to.
    """
    with open_engine(data) as engine:
        parent = engine.branch(branch).parent or ""
        found = engine.rebase(branch, on_conflict, timeout_s=timeout, by=by, reason=reason)
    if not isinstance(found, MergeReport):
        found = report_of(found, on_conflict, branch)
    _print_report(found, branch, parent, json)


def _print_report(report: MergeReport, fork: str, parent: str, json: bool) -> None:
    output.print_result(report, report_lines(report, fork, parent), json)
    if not report.success:
        raise Refused
