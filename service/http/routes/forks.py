"""`/branches/{name}/fork`, `/diff`, `/merge-into`, `/rebase`: branches made from others. A `/` is sent as %2F.

A fork shows records of its parent, and a merge reads both. So a caller needs permission for both branches.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request
from litestar.params import Parameter

from shadowswitch.model.views import BranchInfo
from shadowswitch.service.http.access import Caller, Forbidden, Scope
from shadowswitch.service.http.bodies import forks as bodies
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.idempotency import mark_undone
from shadowswitch.service.http.routes.branches import ONE, PAGE, Limit
from shadowswitch.service.http.routing import changes, permitted_branch, reads
from shadowswitch.service.merge_report import MergeReport, report_of


def permitted_fork(name: str, caller: Caller, host: Host) -> tuple[str, str]:
    """A fork and its parent; "" for a branch that is no fork. Raises Forbidden for a caller that may not read both."""
    fork = permitted_branch(name, caller, Scope.READ)
    parent = host.engine.branch(fork).parent or ""
    if parent and not caller.reaches(parent):  # nor is the parent named to it
        raise Forbidden(
            f"{caller.name} may not touch the branch that {fork!r:.220} was forked from",
            hint=f"this token is for {', '.join(caller.branches)}",
        )
    return fork, parent


@changes(f"{ONE}/fork", Scope.WRITE, status_code=201)
def fork(name: str, data: bodies.NewFork, host: Host, caller: Caller) -> BranchInfo:
    """Make a branch of this name that shows its parent as it is now; one transaction at any size.

    What either changes from then on shows on that one alone. The fork has no indexes until they are built.
    """
    new = permitted_branch(name, caller, Scope.WRITE)
    caller.require(Scope.READ, data.parent)
    reason = data.reason or caller.reason
    return host.engine.fork_branch(new, data.parent, data.mode, data.at_lsn, by=caller.author, reason=reason)


@reads(f"{ONE}/diff")
def diff(
    name: str,
    host: Host,
    caller: Caller,
    against: Annotated[str | None, Parameter(required=False, max_length=200, description="Its parent.")] = None,
    resource_type: Annotated[str | None, Parameter(required=False, min_length=1, max_length=100)] = None,
    cursor: Annotated[str, Parameter(required=False, max_length=1100)] = "",
    limit: Limit = PAGE,
) -> bodies.Differences:
    """What a fork changed since it was made, or since its last rebase, by page.

    `base_lsn` is the version that the fork began with, `ours_lsn` its own, `theirs_lsn` that of its parent now.
    """
    branch, parent = permitted_fork(name, caller, host)
    page = host.engine.diff_page(branch, against, resource_type, cursor or None, limit)
    return bodies.Differences(branch, parent, page.diffs, page.cursor)


@changes(f"{ONE}/merge-into", Scope.WRITE)
def merge_into(
    name: str, data: bodies.MergeInto, request: Request[Any, Any, Any], host: Host, caller: Caller
) -> MergeReport:
    """Bring the changes of this fork into its parent, field by field. 423 while a lock blocks the writes.

    A merge that conflicts refused is 200 with `success: false` and the conflicts. A large merge is several
    transactions, and one that was cut short is sent again. The fork stays as it is: rebase it before work on it goes
    on.
    """
    fork, _ = permitted_fork(name, caller, host)
    for scope in (Scope.READ, Scope.WRITE):
        caller.require(scope, data.target)
    with host.long_call(caller):
        result = host.engine.merge_into(
            data.target,
            fork,
            data.on_conflict,
            data.dry_run,
            owner=caller.owner(data.owner),
            tokens=data.tokens,
            timeout_s=data.timeout_s,
            by=caller.author,
            reason=data.reason or caller.reason,
        )
    return _answer(report_of(result, data.on_conflict, data.target, data.dry_run), request)


@changes(f"{ONE}/rebase", Scope.WRITE)
def rebase(
    name: str, request: Request[Any, Any, Any], host: Host, caller: Caller, data: bodies.Rebase | None = None
) -> MergeReport:
    """Bring what the parent changed into this fork, which then shows its parent as of its head.

    Conflicts as in a merge: "ours" is the version of the fork. One that was cut short is sent again.
    """
    caller.require(Scope.WRITE)
    fork, _ = permitted_fork(name, caller, host)
    data = data or bodies.Rebase()
    with host.long_call(caller):
        result = host.engine.rebase(
            fork,
            data.on_conflict,
            owner=caller.owner(data.owner),
            tokens=data.tokens,
            timeout_s=data.timeout_s,
            by=caller.author,
            reason=data.reason or caller.reason,
        )
    return _answer(report_of(result, data.on_conflict, fork), request)


def _answer(report: MergeReport, request: Request[Any, Any, Any]) -> MergeReport:
    if report.dry_run or not report.success:
        mark_undone(request)
    return report


HANDLERS = (fork, diff, merge_into, rebase)
