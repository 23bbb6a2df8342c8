"""`/shadow-index/{id}`: operating a build: pause, resume, throttle, priority, and the schedule of its switch."""

from __future__ import annotations

from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.bodies import operating as bodies
from shadowswitch.service.http.bodies.shadows import Shadow, shadow, switch_request
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routes.shadows import BASE, permitted
from shadowswitch.service.http.routing import changes, removes


@changes(f"{BASE}/{{shadow_id:str}}/pause", Scope.BUILD)
def pause(shadow_id: str, host: Host, caller: Caller, data: bodies.Why | None = None) -> Shadow:
    """Let a build stand still until it is resumed, also over restarts. Its place in the queue is free."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    return shadow(host.engine.pause_build(found.shadow_index_id, caller.author, bodies.reason_of(data, caller)))


@changes(f"{BASE}/{{shadow_id:str}}/resume", Scope.BUILD)
def resume(shadow_id: str, host: Host, caller: Caller, data: bodies.Why | None = None) -> Shadow:
    """Let a paused build go on, as soon as it has a place again."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    return shadow(host.engine.resume_build(found.shadow_index_id, caller.author, bodies.reason_of(data, caller)))


@changes(f"{BASE}/{{shadow_id:str}}/throttle", Scope.BUILD)
def throttle(shadow_id: str, data: bodies.Throttle, host: Host, caller: Caller) -> Shadow:
    """Let a build work only a share of the time, also over restarts."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    why = bodies.reason_of(data, caller)
    return shadow(host.engine.throttle_build(found.shadow_index_id, data.share, caller.author, why))


@changes(f"{BASE}/{{shadow_id:str}}/priority", Scope.BUILD)
def priority(shadow_id: str, data: bodies.Priority, host: Host, caller: Caller) -> Shadow:
    """Give a build another place in the queue: the highest priority goes first, then the oldest."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    why = bodies.reason_of(data, caller)
    return shadow(host.engine.set_priority(found.shadow_index_id, data.priority, caller.author, why))


@changes(f"{BASE}/{{shadow_id:str}}/schedule", Scope.SWITCH)
def schedule(shadow_id: str, host: Host, caller: Caller, data: bodies.Schedule | None = None) -> Shadow:
    """Switch to a shadow at the first quiet moment of its branch, at the latest after `within_s`; durable."""
    found = permitted(host, caller, shadow_id, Scope.SWITCH)
    data = data or bodies.Schedule()
    if data.force_switch:
        caller.require(Scope.FORCE_SWITCH, found.branch_name)
    request = switch_request(data, caller)
    return shadow(host.engine.schedule_switch(found.shadow_index_id, data.quiet_for_s, data.within_s, request))


@removes(f"{BASE}/{{shadow_id:str}}/schedule", Scope.SWITCH)
def unschedule(shadow_id: str, host: Host, caller: Caller) -> Shadow:
    """Take a scheduled switch back."""
    found = permitted(host, caller, shadow_id, Scope.SWITCH)
    return shadow(host.engine.unschedule_switch(found.shadow_index_id, caller.author, caller.reason))


HANDLERS = (pause, resume, throttle, priority, schedule, unschedule)
