"""`/branch-locks/indexing` and `/branch-locks/status`: indexing in place, and the states of branches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated

from litestar.params import Parameter

from shadowswitch.model.locks.branch_state import WHOLE, IndexingWork
from shadowswitch.model.locks.targets import LockScope, LockType
from shadowswitch.service.http.access import Caller, Forbidden, Scope
from shadowswitch.service.http.bodies import indexing as bodies
from shadowswitch.service.http.bodies.locks import branch_lock
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routes.locks import BASE, visible
from shadowswitch.service.http.routing import changes, permitted_branch, reads

Service = Annotated[str, Parameter(required=False, min_length=1, max_length=200)]


@changes(f"{BASE}/indexing/{{branch_name:str}}/start", Scope.LOCK)
def start(
    branch_name: str,
    host: Host,
    caller: Caller,
    data: bodies.StartIndexing | None = None,
    service_name: Service = "funnel-service",
) -> bodies.IndexingStarted:
    """Start indexing in place: it locks the given types only, or with `force_branch_lock` the whole branch.

    The locks of an indexer that sends no heartbeats end. A build in the shadow locks nothing.
    """
    branch = permitted_branch(branch_name, caller, Scope.LOCK)
    data = data or bodies.StartIndexing()
    present = host.engine.resource_types(branch)
    types = None if data.force_branch_lock else data.resource_types or present or None
    locks = host.engine.start_indexing(
        branch, caller.owner(service_name), types, ttl_s=data.ttl_s, heartbeat_s=data.heartbeat_s, reason=data.reason,
        by=caller.author,
    )  # fmt: skip
    free = sorted(set(present) - set(types)) if types is not None else []
    what = ", ".join(types) if types is not None else "the whole branch"
    return bodies.IndexingStarted(
        lock_ids=[lock.lock_id for lock in locks],
        tokens=[lock.token for lock in locks],
        locked_resource_types=types or present,
        lock_scope="branch" if types is None else "resource_type",
        message=f"{what} of {branch} is locked for indexing" if types is not None else f"{branch} is locked",
        branch_state=host.engine.branch(branch).state,
        other_resources_available=bool(free),
        heartbeat_s=data.heartbeat_s,
        expires_at=min((lock.expires_at for lock in locks if lock.expires_at is not None), default=None),
    )


@changes(f"{BASE}/indexing/{{branch_name:str}}/complete", Scope.LOCK)
def complete(
    branch_name: str, host: Host, caller: Caller, data: bodies.CompleteIndexing | None = None
) -> bodies.IndexingCompleted:
    """Complete indexing in place, of some types or of all, and release its locks. 409 when none is under way.

    Indexing by another owner takes the scope `admin`.
    """
    branch = permitted_branch(branch_name, caller, Scope.LOCK)
    data = data or bodies.CompleteIndexing()
    completed: tuple[str, ...] = ()
    for owner, types in completable(host, caller, branch, data.resource_types, data.tokens).items():
        done = host.engine.complete_indexing(
            branch, owner, types, tokens=data.tokens, reason=data.reason, by=caller.author
        )
        completed += done.completed
    left = [lock for lock in host.engine.locks(branch) if lock.lock_type is LockType.INDEXING]
    return bodies.IndexingCompleted(
        message="indexing is complete" if not done.remaining else "a part of the indexing is complete",
        completed_resource_types=["all"] if WHOLE in completed else list(completed),
        completion_type="partial" if done.remaining else "complete",
        branch_state=host.engine.branch(branch).state,
        remaining_locks=len(left),
        remaining_resource_types=[name for name in done.remaining if name != WHOLE],
    )


def completable(
    host: Host, caller: Caller, branch: str, types: Sequence[str] | None, tokens: Collection[int]
) -> dict[str, list[str] | None]:
    """The indexing in place that a caller may complete, as resource types by owner. Raises Forbidden.

    The engine compares the owner in the step that completes the work, so work that another owner starts meanwhile is
    not touched. The owner "" stands for any owner, and needs the scope `admin`.
    """
    if caller.trusted or caller.may(Scope.ADMIN, branch):
        return {"": None if types is None else list(types)}
    works = under_way(host, branch, types)
    if tokens:
        fenced = {lock.lock_id for lock in host.engine.locks(branch) if lock.token in tokens}
        works = [work for work in works if work.lock_id in fenced]
    own = {work.resource_type: work.owner for work in works if caller.owns(work.owner)}
    if types is not None or not own:
        check_own(caller, works)
    first = next(iter(own.values()), caller.name)
    if types is None:
        return dict.fromkeys([first, *own.values()])
    # the engine refuses types that are not being indexed; they go to it with the first owner
    owners = [own.get(name, first) for name in types]
    return {
        owner: [name for name, its in zip(types, owners, strict=True) if its == owner]
        for owner in dict.fromkeys([first, *owners])
    }


def under_way(host: Host, branch: str, types: Sequence[str] | None) -> list[IndexingWork]:
    """The indexing in place of a branch. Builds in the shadow are left out: they end with their switch."""
    works = host.engine.branch_status(branch).indexing
    return [work for work in works if not work.shadow_id and (types is None or work.resource_type in types)]


def check_own(caller: Caller, works: Iterable[IndexingWork]) -> None:
    """Raise Forbidden for work of another owner."""
    others = sorted({f"{work.name} ({work.owner})" for work in works if not caller.owns(work.owner)})
    if others:
        raise Forbidden(
            f"another owner is indexing this: {', '.join(others)}", hint="its owner can complete it, or the scope admin"
        )


@reads(f"{BASE}/status/{{branch_name:str}}")
def status(branch_name: str, host: Host, caller: Caller) -> bodies.BranchStatusOut:
    """The state of a branch, and its locks."""
    branch = permitted_branch(branch_name, caller, Scope.READ)
    found, locks = host.engine.branch_status(branch), visible(host, caller, branch)
    began, ended = found.indexing_started_at, found.indexing_completed_at
    info = None
    if began is not None or ended is not None:
        duration = max(0, round((ended - began).total_seconds())) if began and ended and ended >= began else None
        service = found.indexing[0].owner if found.indexing else None
        info = bodies.IndexingInfo(began, ended, service, duration)
    return bodies.BranchStatusOut(
        branch_name=branch,
        current_state=found.state,
        is_write_locked=not found.admits_writes or any(lock.scope is LockScope.BRANCH for lock in locks),
        is_ready_for_merge=found.is_ready_for_merge,
        active_locks=[branch_lock(lock) for lock in locks],
        indexing_info=info,
    )


HANDLERS = (start, complete, status)
