"""The commands that change the state of a branch, or drop it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import By, Data, Json, Reason, open_engine

Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (branch, drop):
        app.command(command)


def branch(
    operation: Literal["recover", "reopen", "merge", "archive"],
    name: str,
    *,
    data: Data,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Change the state of a branch.

    Example: `shadowswitch branch recover main --data ./data --reason "the disk was replaced"`

    Parameters
    ----------
    operation
        recover: leave ERROR; its cause is gone. reopen: continue with a READY or MERGED branch. merge: mark a READY
        branch as merged elsewhere. archive: close the branch for good; it stays readable.
    """
    with open_engine(data) as engine:
        operations = {
            "recover": engine.recover_branch,
            "reopen": engine.reopen_branch,
            "merge": engine.merge_branch,
            "archive": engine.archive_branch,
        }
        found = operations[operation](name, by, reason)
    output.print_result(found, f"branch {found.name} is {found.state}", json)


def drop(
    branch: str,
    index_type: str | None = None,
    *,
    data: Data,
    cascade: Flag = False,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Drop a branch with everything that it has; with INDEX-TYPE, only that index of it.

    Refused while a fork, a build, a switch or a lock uses it, with what uses it. Open readers go on. The name of the
    branch is free at once, and its rows and files go in the background.

    Example: `shadowswitch drop feature/old --data ./data --reason "merged"`

    Parameters
    ----------
    index_type
        Drop this index only; the records stay. An index that the settings file describes is built again.
    cascade
        Drop the forks of the branch, too.
    """
    with open_engine(data) as engine:
        if index_type is not None:
            engine.drop_index(branch, index_type, by, reason)
        else:
            engine.drop_branch(branch, cascade, by, reason)
    what = f"{index_type} of branch {branch}" if index_type is not None else f"branch {branch}"
    found = {"branch_name": branch, "index_type": index_type, "dropped": True}
    output.print_result(found, f"{what} is dropped", json)
