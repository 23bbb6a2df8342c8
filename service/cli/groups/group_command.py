"""The command for groups: start, switch, rollback, dissolve, show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.groups.calls import group_view
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.groups.views import Group, GroupMember, GroupResult
from shadowswitch.model.views import SWITCH_TIMEOUT_S, SwitchRequest
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import types_to_build, wait_until_built
from shadowswitch.service.cli.directory import (
    AllowEmpty,
    BreakGroup,
    By,
    Checks,
    Data,
    Force,
    Json,
    Reason,
    Refused,
    SwitchTimeout,
    open_catalog,
    open_engine,
    with_checks,
)
from shadowswitch.service.hints import in_commands
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.source.group_table import group_row, group_rows

Repeated = Annotated[list[str] | None, Parameter(negative="", show_default=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def add_to(app: App) -> None:
    """Register the command."""
    app.command(group)


def group(
    operation: Literal["start", "switch", "rollback", "dissolve", "show"],
    name: str = "",
    *,
    data: Data,
    member: Repeated = None,
    resource_type: Repeated = None,
    switch: Flag = False,
    switch_timeout: SwitchTimeout = SWITCH_TIMEOUT_S,
    allow_empty: AllowEmpty = False,
    force: Force = False,
    break_group: BreakGroup = False,
    check: Checks = None,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Several indexes that are built, switched and rolled back together: all of them, or none.

    Example: `shadowswitch group start schema-42 --member main:SEARCH_INDEX --member main:GRAPH_INDEX --data ./data`

    Parameters
    ----------
    operation
        start: build every member and wait until all are BUILT; Ctrl-C cancels them. switch: make all live. rollback:
        back to the generations before, and again: forward. dissolve: each index is on its own from now on. show: one
        group, or all; works beside a running host.
    name
        For start a name of your choice; else the id of the group, such as `group-7`.
    member
        An index of the group, as `BRANCH:INDEX_TYPE`, or `BRANCH:INDEX_TYPE:{"tokenizer": "porter"}` with the options
        of its build as JSON; repeat it.
    resource_type
        A resource type that every member indexes; may be repeated. Default: every type with records on its branch.
    switch
        With start: switch to the group after the builds.
    """
    request = SwitchRequest(
        switch_timeout_seconds=switch_timeout, force_switch=force, allow_empty=allow_empty, performed_by=by,
        reason=reason, break_group=break_group,
    )  # fmt: skip
    request = with_checks(request, check)
    if operation == "show":
        _show(data, name, json)
        return
    if not name:
        raise ValueError(f"group {operation} takes the {'name' if operation == 'start' else 'id'} of a group")
    if operation == "start":
        _start(data, name, _members(data, member or [], resource_type, json), request, switch, json)
        return
    with open_engine(data) as engine:
        if operation == "dissolve":
            found = engine.dissolve_group(name, by, reason)
            output.print_result(found, _text(found), json)
            return
        call = engine.switch_group if operation == "switch" else engine.rollback_group
        _print_switch(call(name, request), json)


def _show(data: Path, name: str, json: bool) -> None:
    with open_catalog(data) as catalog:
        if name:
            found = group_view(catalog, group_row(catalog, name))
            output.print_result(found, _lines(found), json)
            return
        every = [group_view(catalog, row) for row in group_rows(catalog)]
    if json:
        output.print_json(every)
        return
    rows = [[one.id, one.name, one.state, len(one.members), one.epoch, one.message] for one in every]
    output.print_table("groups", ["id", "name", "state", "members", "epoch", "message"], rows)


def _members(data: Path, given: list[str], types: list[str] | None, quiet: bool) -> list[GroupMember]:
    if not given:
        raise ValueError("group start takes --member BRANCH:INDEX_TYPE, for each index")
    found = []
    with open_catalog(data) as catalog:
        for text in given:
            place, brace, options = text.partition(":{")
            branch, colon, index_type = place.rpartition(":")
            if not colon or not branch or not index_type:
                raise ValueError(f"--member {text!r} is not BRANCH:INDEX_TYPE")
            try:
                config: Any = msgspec.json.decode(f"{{{options}".encode()) if brace else None
            except msgspec.DecodeError as error:
                raise ValueError(f"the options of --member {text!r} are no JSON object: {error}") from None
            found.append(GroupMember(branch, index_type, types_to_build(catalog, branch, types, quiet), config))
    return found


def _start(data: Path, name: str, members: list[GroupMember], request: SwitchRequest, switch: bool, json: bool) -> None:
    with open_engine(data) as engine:
        found = engine.start_group(name, members, by=request.performed_by, reason=request.reason)
        with _cancelled_together(engine, found, request.performed_by):
            for one in found.members:
                wait_until_built(engine, engine.shadow(one.shadow_index_id), json, request.performed_by)
        result = engine.switch_group(found.id, request) if switch else None
        found = engine.group(found.id)
    text = [*_lines(found), *([in_commands(result.message)] if result is not None else [])]
    output.print_result({"group": found, "switch": result}, text, json)
    if result is not None and not result.success:
        raise Refused


@contextlib.contextmanager
def _cancelled_together(engine: Engine | RemoteEngine, found: Group, by: str) -> Iterator[None]:
    """Ctrl-C cancels every build of the group."""
    try:
        yield
    except KeyboardInterrupt:
        for one in found.members:
            with contextlib.suppress(ShadowSwitchError):
                engine.cancel_build(one.shadow_index_id, "interrupted", by)
        raise KeyboardInterrupt(f"the builds of {found.id} were cancelled") from None


def _print_switch(result: GroupResult, json: bool) -> None:
    output.print_result(result, in_commands(result.message), json)
    if not result.success:
        raise Refused


def _text(found: Group) -> str:
    message = f": {in_commands(found.message)}" if found.message else ""
    return f"{found.id} {found.name!r} is {found.state}{message}"


def _lines(found: Group) -> list[str]:
    return [
        _text(found),
        *(
            f"    {one.index_type} of {one.branch_name}: shadow {one.shadow_index_id} is {one.state or 'gone'},"
            f" generation {one.generation}"
            for one in found.members
        ),
    ]
