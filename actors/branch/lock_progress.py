"""How far the work under a lock is, measured from the build that it named; and refusals told with that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.records import Lock, Progress
from shadowswitch.model.locks.refusal import Blocked, blocked_by_lock
from shadowswitch.model.locks.targets import BRANCH, LockType, Target, index_target, resource_target, type_target
from shadowswitch.model.shadow_state import ShadowState

if TYPE_CHECKING:
    from shadowswitch.actors.house import House

UNDER_WAY = (ShadowState.PREPARING, ShadowState.BUILDING)
DONE = (ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.ACTIVE)


def known_types(house: House, branch: int) -> Iterator[str]:
    """The resource types of which a branch has records. Read only when somebody is refused."""
    types = house.catalog.types()
    for number, digest in house.catalog.digests(branch).items():
        if digest.count:
            yield types[number]


def measured(house: House, lock: Lock, now: float) -> Lock:
    """The lock with the progress of the build that is the work under it, if it named one."""
    if not lock.build:
        return lock
    return msgspec.structs.replace(lock, progress=progress_of_build(house, lock.build, now))


def progress_of_build(house: House, shadow_id: str, now: float) -> Progress | None:
    """Percent and ETA of a build, measured; None for one that failed, was cancelled or is not known."""
    row = house.catalog.find_shadow(shadow_id)
    if row is None or row.state not in (*UNDER_WAY, *DONE):
        return None
    at = house.external.heard_at(shadow_id) or now
    percent, eta_s = (row.progress, row.eta_s) if row.state in UNDER_WAY else (100.0, 0.0)
    meter = house.running_builds.meters.get(shadow_id)
    if meter is not None and row.state in UNDER_WAY and not row.external:
        percent, eta_s = max(percent, meter.percent), meter.eta_s
    return Progress(percent, at, percent, at, eta_s, message=row.phase)


def blocked_by_build(house: House, shadow_id: str, now: float) -> Blocked:
    """Why an index cannot be built: the claim of the build that is under way, with its measured progress."""
    row = house.catalog.shadow(shadow_id)
    claim = Lock(
        lock_id=row.id,
        token=row.token,
        branch=row.branch_name,
        owner=row.service_name or "shadowswitch",
        lock_type=LockType.INDEXING,
        target=index_target(row.index_type),
        reason=f"shadow {row.id} is {row.state}, {row.phase}",
        granted_at=now,
        granted_wall=datetime.fromtimestamp(row.created_at, UTC),
        expires_at=None,
        expires_wall=None,
        progress=progress_of_build(house, shadow_id, now),
    )
    blocked = blocked_by_lock(claim, claim.target, now, held=(), known_types=(), waiting=0)
    if row.state == ShadowState.BUILT:  # it would wait for ever
        ways = ("switch to it, or discard it with cancel_build",)
        return msgspec.structs.replace(blocked, eta_s=None, retry_after_s=None, alternatives=ways)
    return blocked


def retold(blocked: Blocked, lock: Lock, now: float, *, held: Iterable[Lock], types: Iterable[str]) -> Blocked:
    """The same refusal with the progress of the lock as it was measured from a build."""
    return blocked_by_lock(lock, _asked(blocked), now, held=held, known_types=types, waiting=blocked.waiting)


def _asked(blocked: Blocked) -> Target:
    if blocked.resource_type is None:
        return BRANCH
    if blocked.resource_id is None:
        return type_target(blocked.resource_type)
    return resource_target(blocked.resource_type, blocked.resource_id)


def with_progress(error: LockConflict, retell: Callable[[Blocked], Blocked]) -> LockConflict:
    """The same conflict, told with measured progress."""
    blocked = retell(error.blocked)
    if blocked is error.blocked:
        return error
    return LockConflict(
        blocked.message, blocked=blocked, operation=error.operation, object=error.object, hint=blocked.alternatives[0]
    )
