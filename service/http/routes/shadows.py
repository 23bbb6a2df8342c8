"""`/shadow-index`: builds, switches, and their status."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Annotated, Any

from litestar import Request
from litestar.params import Parameter, QueryParameter

from shadowswitch.engine.quality.comparing import LIMIT_MAX
from shadowswitch.model.errors import InvalidConfig, Timeout, UnknownIndex, UnknownShadow
from shadowswitch.model.search.comparison import Comparison
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.model.views import BuildCost, ShadowIndex, SwitchResult, derive
from shadowswitch.service.http.access import Caller, Forbidden, Scope
from shadowswitch.service.http.bodies import shadows as bodies
from shadowswitch.service.http.bodies.fields import WHOLE_MAX
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.idempotency import mark_undone
from shadowswitch.service.http.middleware import decode_segment
from shadowswitch.service.http.routes.metrics import counts_of
from shadowswitch.service.http.routing import PREFIX, changes, reads, removes
from shadowswitch.storage.backends.registry import foreign_code

BASE = f"{PREFIX}/shadow-index"
RECENT = 10
PAGE = 1000
"""The entries of a page where the caller says nothing."""
START_TIMEOUT_S = 10.0
COMPLETE_WAIT_S = 25.0
"""Less than the usual timeout of HTTP clients."""
COMPLETED = (ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.ACTIVE)
RUNNING_OR_COMPLETED = (ShadowState.PREPARING, ShadowState.BUILDING, *COMPLETED)
_BEGUN = {ShadowState.BUILT: "is BUILT"}
COMPARE_S_MAX = 30.0
QUERIES = "A query; may be repeated. Default: the judged ones of the branch, or else the last ones of readers."
ROWS_PER_S = 10_000.0
"""The assumed pace of an index that has no live generation."""
Branch = Annotated[str, Parameter(required=False, description="Only of this branch; empty: of all.")]
State = Annotated[str, QueryParameter(name="state", required=False, schema_extra={"enum": ["", *ShadowState]})]
After = Annotated[int, Parameter(required=False, ge=0, le=WHOLE_MAX, description="Begin after this one.")]
Limit = Annotated[int, Parameter(required=False, ge=1, le=10_000, description="The most entries of a page.")]
NewestFirst = Annotated[bool, Parameter(required=False, description="In the reverse order.")]
Reason = Annotated[str, Parameter(required=False, max_length=2000)]


@changes(f"{BASE}/start", Scope.BUILD, status_code=201)
def start(data: bodies.StartBuild, host: Host, caller: Caller) -> bodies.StartedBuild:
    """Start a build in the shadow. 409 while a build of the same branch and type is under way.

    While as many builds copy as may, it is queued, and its `start_lsn` is 0 until it begins.
    """
    caller.require(Scope.BUILD, data.branch_name)
    check_code(host, data.build_config or {})
    service = data.service_name or caller.name
    if bodies.SERVICE_SEPARATOR in service:
        raise InvalidConfig(f"service_name contains {bodies.SERVICE_SEPARATOR}", hint="leave it out of the name")
    if data.service_instance_id:
        service = f"{service}{bodies.SERVICE_SEPARATOR}{data.service_instance_id}"
    found = host.engine.start_build(
        data.branch_name, data.index_type, data.resource_types, data.build_config, data.external, service,
        track_ready=data.track_ready, by=caller.author, reason=caller.reason, priority=data.priority,
        of_rebuild=data.of_rebuild, seed=data.seed,
    )  # fmt: skip
    queued = found.phase == Phase.QUEUED
    with contextlib.suppress(Timeout):  # the build is claimed; its start LSN is known once it is BUILDING
        found = (
            found
            if queued
            else host.engine.wait_for(
                found.shadow_index_id, "BUILDING", "BUILT", "FAILED", "CANCELLED", timeout_s=START_TIMEOUT_S
            )
        )
    what = f"the build of {found.index_type} of {found.branch_name}"
    message = f"{what} is {found.stands_still}" if queued else f"{what} {_BEGUN.get(found.state, 'has begun')}"
    return derive(bodies.StartedBuild, found, message=message, estimated_build_time_minutes=estimate(host, found))


@changes(f"{BASE}/cost", Scope.BUILD)
def cost(data: bodies.PlannedBuild, host: Host, caller: Caller) -> BuildCost:
    """Count what a build would read and embed, if it began now. Changes nothing.

    `to_embed` is the number of different texts whose vectors are not kept yet; `embedding_s` the seconds for them by
    the last rate, null where the embedder has embedded nothing here.
    """
    caller.require(Scope.BUILD, data.branch_name)
    check_code(host, data.build_config or {})
    what = (data.branch_name, data.index_type, data.resource_types, data.build_config)
    with host.long_call(caller):
        return host.engine.build_cost(*what, timeout_s=COMPARE_S_MAX)


def check_code(host: Host, build_config: Mapping[str, Any]) -> None:
    """Raise Forbidden for a backend or an embedder that the operator has not named: an import would run its code."""
    for named in foreign_code(build_config):
        if named not in host.options.backends:
            raise Forbidden(
                f"this server does not load {named!r:.120} for clients",
                hint=f"use a built-in backend, or start the server with --backend {named:.120}",
            )


def estimate(host: Host, found: ShadowIndex) -> int:
    """Minutes, from the pace of the build of the live index."""
    pace = None
    with contextlib.suppress(UnknownIndex, UnknownShadow):
        live = host.engine.index(found.branch_name, found.index_type)
        pace = host.engine.shadow(live.shadow_index_id).records_per_second
    records = sum(host.engine.count(found.branch_name, name) for name in found.resource_types)
    return math.ceil(records / (pace or ROWS_PER_S) / 60) or 1


def permitted(host: Host, caller: Caller, shadow_id: str, scope: Scope) -> ShadowIndex:
    """A shadow of a branch for which the caller has a scope. Raises Forbidden."""
    found = host.engine.shadow(decode_segment(shadow_id))
    caller.require(scope, found.branch_name)
    return found


@changes(f"{BASE}/{{shadow_id:str}}/progress", Scope.BUILD)
def progress(shadow_id: str, data: bodies.Progress, host: Host, caller: Caller) -> bodies.Done:
    """The heartbeat and progress of an external builder. The engine measures its own builds and notes nothing."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    if not found.external and found.state in RUNNING_OR_COMPLETED:
        return bodies.Done(True, "the engine builds this index and measures how far it is", found.shadow_index_id)
    host.engine.report_progress(
        found.shadow_index_id, data.progress_percent, data.estimated_completion_seconds, data.record_count
    )
    return bodies.Done(True, f"noted: {data.progress_percent:g} %", found.shadow_index_id)


@changes(f"{BASE}/{{shadow_id:str}}/complete", Scope.BUILD)
def complete(shadow_id: str, data: bodies.Complete, host: Host, caller: Caller) -> bodies.Completed:
    """The end of an external build. The engine verifies its files; then the shadow is BUILT.

    For a build of the engine itself the call waits until the shadow is BUILT, and ignores the claims of the body.
    """
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    with host.long_call(caller):
        if found.external:
            done = host.engine.complete_build(
                found.shadow_index_id, data.index_size_bytes, data.record_count, data.applied_lsn, data.build_summary,
                caller.author, caller.reason,
            )  # fmt: skip
        else:
            done = host.engine.wait_for(found.shadow_index_id, *COMPLETED, timeout_s=COMPLETE_WAIT_S)
    message = f"the shadow is {done.state}"
    return derive(bodies.Completed, done, {"switch_ready": "ready_for_switch"}, success=True, message=message)


@changes(f"{BASE}/{{shadow_id:str}}/fail", Scope.BUILD)
def fail(shadow_id: str, data: bodies.Fail, host: Host, caller: Caller) -> bodies.Done:
    """The failure of a build, with its error. A build of the engine itself is stopped, and FAILED with that error."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    host.engine.fail_build(found.shadow_index_id, data.error, caller.author)
    return bodies.Done(True, "the build is FAILED", found.shadow_index_id)


@changes(f"{BASE}/{{shadow_id:str}}/retry", Scope.BUILD)
def retry(shadow_id: str, host: Host, caller: Caller) -> bodies.Shadow:
    """Resume a FAILED build from its stored progress."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    return bodies.shadow(host.engine.retry_build(found.shadow_index_id, caller.author, caller.reason))


@changes(f"{BASE}/{{shadow_id:str}}/switch", Scope.SWITCH)
def switch(
    shadow_id: str, host: Host, caller: Caller, request: Request[Any, Any, Any], data: bodies.Switch | None = None
) -> bodies.Switched:
    """Make a BUILT shadow the live index. 200 also for a switch that failed: see `success` and `message`."""
    found = permitted(host, caller, shadow_id, Scope.SWITCH)
    data = data or bodies.Switch()
    if data.shadow_index_id not in (None, found.shadow_index_id):
        raise InvalidConfig(
            "shadow_index_id of the body is not that of the path", hint="leave it out of the body, or make them equal"
        )
    if data.force_switch:
        caller.require(Scope.FORCE_SWITCH, found.branch_name)
    with host.long_call(caller):
        return switch_answer(host.engine.switch(found.shadow_index_id, bodies.switch_request(data, caller)), request)


def switch_answer(result: SwitchResult, request: Request[Any, Any, Any]) -> bodies.Switched:
    """The answer to a switch or a rollback. One that failed has changed nothing."""
    if not result.success:
        mark_undone(request)
    return bodies.switched(result)


@reads(f"{BASE}/{{shadow_id:str}}/status")
def status(shadow_id: str, host: Host, caller: Caller) -> bodies.Shadow:
    """The status of a shadow."""
    return bodies.shadow(permitted(host, caller, shadow_id, Scope.READ))


@reads(f"{BASE}/{{shadow_id:str}}/compare")
def compare(
    shadow_id: str,
    host: Host,
    caller: Caller,
    q: Annotated[list[str] | None, Parameter(required=False, description=QUERIES)] = None,
    limit: Annotated[int, Parameter(required=False, ge=1, le=LIMIT_MAX, description="Hits of each query.")] = 10,
    timeout_s: Annotated[float, Parameter(required=False, gt=0, le=COMPARE_S_MAX)] = COMPARE_S_MAX,
) -> Comparison:
    """Ask the live index and a shadow the same queries. `rows` has both lists of hits, `summary` means and a verdict.

    Without `q` the queries are the judged ones, or else the last ones of readers; `rows` has those that lose most.
    """
    found = permitted(host, caller, shadow_id, Scope.READ)
    with host.long_call(caller):
        return host.engine.compare(found.shadow_index_id, q or None, limit, timeout_s)


@reads(f"{BASE}/list")
def list_all(
    host: Host,
    caller: Caller,
    branch_name: Branch = "",
    in_state: State = "",
    after: After = 0,
    limit: Limit = PAGE,
    newest_first: NewestFirst = False,
) -> bodies.Shadows:
    """Shadows, oldest first, by page; of one branch or of all, in one state or in any.

    The counts are of all pages. `next_after` is the `after` of the next page; the last page has none.
    """
    if branch_name:
        caller.require(Scope.READ, branch_name)
    counts = counts_of(host, caller, branch_name, in_state)
    page = host.engine.shadows(
        branch_name or None, in_state or None, limit, after, newest_first=newest_first, wanted=caller.wanted
    )
    return bodies.Shadows(
        shadows=list(map(bodies.shadow, page)),
        total_count=counts.total(),
        active_builds=counts[ShadowState.BUILDING],
        ready_for_switch=counts[ShadowState.BUILT],
        next_after=page[-1].generation if len(page) == limit else None,
    )


@removes(f"{BASE}/{{shadow_id:str}}", Scope.BUILD)
def cancel(shadow_id: str, host: Host, caller: Caller, reason: Reason = "") -> bodies.Done:
    """Cancel a build, or discard a BUILT or FAILED shadow."""
    found = permitted(host, caller, shadow_id, Scope.BUILD)
    why = reason or caller.reason or "Manual cancellation"
    host.engine.cancel_build(found.shadow_index_id, f"{why} (by {caller.name})", caller.author)
    return bodies.Done(True, "the shadow is CANCELLED", found.shadow_index_id)


@reads(f"{BASE}/dashboard")
def overview(host: Host, caller: Caller) -> bodies.Overview:
    """Counts by state, recent activity, switch times."""
    counts = counts_of(host, caller)
    newest = host.engine.shadows(limit=RECENT, newest_first=True, wanted=caller.wanted)
    latencies = host.engine.latencies()
    switches, turns = latencies.get("switch"), latencies.get("sealed")
    return bodies.Overview(
        total_shadows=counts.total(),
        state_distribution=dict(counts),
        recent_activity=[
            derive(bodies.Activity, one, {"shadow_index_id": "id"}, progress=math.floor(one.build_progress_percent))
            for one in newest
        ],
        performance_metrics=bodies.Performance(
            average_switch_time_seconds=switches["mean_ms"] / 1000 if switches else None,
            completed_switches_count=int(switches["count"]) if switches else 0,
            active_builds=counts["BUILDING"],
            ready_for_switch=counts["BUILT"],
            sealed_p50_ms=turns["p50_ms"] if turns else None,
            sealed_max_ms=turns["max_ms"] if turns else None,
        ),
    )


HANDLERS = (start, cost, progress, complete, fail, retry, switch, status, compare, list_all, cancel, overview)
