"""`/groups`: several indexes that are started, switched and rolled back together.

A caller needs the permission for the branch of every member.
"""

from __future__ import annotations

from typing import Any

from litestar import Request

from shadowswitch.model.groups.views import Group, GroupMember, GroupResult
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.bodies import groups as bodies
from shadowswitch.service.http.bodies import shadows
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.idempotency import mark_undone
from shadowswitch.service.http.middleware import decode_segment
from shadowswitch.service.http.routes.shadows import check_code
from shadowswitch.service.http.routing import PREFIX, changes, reads

BASE = f"{PREFIX}/groups"
ONE = f"{BASE}/{{group_id:str}}"


def permitted(host: Host, caller: Caller, group_id: str, *scopes: Scope) -> Group:
    """A group for whose branches the caller has the scopes. Raises Forbidden."""
    found = host.engine.group(decode_segment(group_id))
    for member in found.members:
        for scope in scopes:
            caller.require(scope, member.branch_name)
    return found


@changes(BASE, Scope.BUILD, status_code=201)
def start(data: bodies.NewGroup, host: Host, caller: Caller) -> Group:
    """Start the builds of several indexes that will be switched together. 409 if one of them is refused: none starts.

    The status of each member is that of its shadow: `GET /shadow-index/{id}/status`.
    """
    for one in data.members:
        caller.require(Scope.BUILD, one.branch_name)
        check_code(host, one.build_config or {})
    members = [
        GroupMember(one.branch_name, one.index_type, one.resource_types, one.build_config) for one in data.members
    ]
    return host.engine.start_group(data.name, members, by=caller.author, reason=data.reason or caller.reason)


@reads(BASE)
def list_all(host: Host, caller: Caller) -> bodies.Groups:
    """Every group whose branches the caller may read, oldest first."""
    groups = host.engine.groups()
    return bodies.Groups([one for one in groups if all(caller.reaches(member.branch_name) for member in one.members)])


@reads(ONE)
def status(group_id: str, host: Host, caller: Caller) -> Group:
    """A group: its state, its members, its epoch."""
    return permitted(host, caller, group_id, Scope.READ)


@changes(f"{ONE}/switch", Scope.SWITCH)
def switch(
    group_id: str,
    host: Host,
    caller: Caller,
    request: Request[Any, Any, Any],
    data: shadows.SwitchOptions | None = None,
) -> bodies.GroupSwitched:
    """Make all shadows of a BUILT group live in one transaction, or none. 200 also for a switch that failed."""
    return _switched(group_id, host, caller, request, data, Scope.SWITCH)


@changes(f"{ONE}/rollback", Scope.ROLLBACK)
def rollback(
    group_id: str,
    host: Host,
    caller: Caller,
    request: Request[Any, Any, Any],
    data: shadows.SwitchOptions | None = None,
) -> bodies.GroupSwitched:
    """Switch all members to their previous generations, or none; no write since then is lost. Again: forward."""
    return _switched(group_id, host, caller, request, data, Scope.ROLLBACK)


def _switched(
    group_id: str,
    host: Host,
    caller: Caller,
    request: Request[Any, Any, Any],
    data: shadows.SwitchOptions | None,
    scope: Scope,
) -> bodies.GroupSwitched:
    data = data or shadows.SwitchOptions()
    scopes = [scope, Scope.FORCE_SWITCH] if data.force_switch else [scope]
    found = permitted(host, caller, group_id, *scopes)
    how = shadows.switch_request(data, caller)
    with host.long_call(caller):
        call = host.engine.switch_group if scope == Scope.SWITCH else host.engine.rollback_group
        result: GroupResult = call(found.id, how)
    if not result.success:
        mark_undone(request)
    return bodies.group_switched(result)


@changes(f"{ONE}/dissolve", Scope.SWITCH)
def dissolve(group_id: str, host: Host, caller: Caller, data: bodies.Dissolve | None = None) -> Group:
    """Let the members go: each is switched, rolled back and dropped alone from now on. Nothing else changes."""
    found = permitted(host, caller, group_id, Scope.SWITCH)
    reason = (data.reason if data is not None else "") or caller.reason
    return host.engine.dissolve_group(found.id, caller.author, reason)


HANDLERS = (start, list_all, status, switch, rollback, dissolve)
