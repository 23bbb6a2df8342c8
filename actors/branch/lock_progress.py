"""BuildProgress: the progress of the work under a lock, measured from the build that the lock names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.records import Lock, Progress
from shadowswitch.model.locks.refusal import Blocked, blocked_by_lock
from shadowswitch.model.locks.targets import BRANCH, LockType, Target, index_target, resource_target, type_target
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.environment import Catalog

BUILDING = (ShadowState.PREPARING, ShadowState.BUILDING)
DONE = (ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.ACTIVE)


class BuildProgress:
    """Percent and ETA of builds, for locks and refusals. Any thread."""

    def __init__(self, catalog: Catalog, builds: RunningBuilds) -> None:
        self._catalog = catalog
        self._builds = builds

    def of(self, shadow_id: str, now: float) -> Progress | None:
        """Percent and ETA of a build; None for a build that failed, was cancelled or is unknown."""
        row = self._catalog.find_shadow(shadow_id)
        if row is None or row.state not in (*BUILDING, *DONE):
            return None
        at = self._builds.heard_at.get(shadow_id) or now
        percent, eta_s = (row.progress, row.eta_s) if row.state in BUILDING else (100.0, 0.0)
        stands = row.paused_by or self._builds.queue.position(shadow_id) is not None
        meter = self._builds.meters.get(shadow_id) if not stands else None
        if meter is not None and row.state in BUILDING and not row.external:
            known, eta_s = meter.read(now)
            percent = max(percent, known)
        return Progress(percent, at, percent, at, eta_s, message=row.phase)

    def with_progress(self, lock: Lock, now: float) -> Lock:
        """The lock with the progress of the build that it names; the same lock if it names none."""
        if not lock.build:
            return lock
        return msgspec.structs.replace(lock, progress=self.of(lock.build, now))

    def blocked_by_build(self, shadow_id: str, now: float) -> Blocked:
        """Why an index cannot be built: the claim of the build that is under way, with its progress."""
        row = self._catalog.shadow(shadow_id)
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
            progress=self.of(shadow_id, now),
        )
        blocked = blocked_by_lock(claim, claim.target, now, held=(), known_types=(), waiting=0)
        if row.state == ShadowState.BUILT:  # a BUILT shadow waits without end
            ways = ("switch to it, or discard it with cancel_build",)
            return msgspec.structs.replace(blocked, eta_s=None, retry_after_s=None, alternatives=ways)
        return blocked


def known_types(catalog: Catalog, branch: int) -> Iterator[str]:
    """The resource types of which a branch has records. A generator: only a refusal reads the catalog."""
    types = catalog.types()
    for number in catalog.counts(branch):
        yield types[number]


def with_build_progress(
    blocked: Blocked, lock: Lock, now: float, *, held: Iterable[Lock], types: Iterable[str]
) -> Blocked:
    """The same refusal with the progress of `lock`, which was measured from a build."""
    return blocked_by_lock(lock, _asked(blocked), now, held=held, known_types=types, waiting=blocked.waiting)


def _asked(blocked: Blocked) -> Target:
    if blocked.resource_type is None:
        return BRANCH
    if blocked.resource_id is None:
        return type_target(blocked.resource_type)
    return resource_target(blocked.resource_type, blocked.resource_id)


def conflict_with_progress(error: LockConflict, with_progress: Callable[[Blocked], Blocked]) -> LockConflict:
    """The same conflict with the progress of the build under the lock."""
    blocked = with_progress(error.blocked)
    if blocked is error.blocked:
        return error
    return LockConflict(
        blocked.message, blocked=blocked, operation=error.operation, object=error.object, hint=blocked.alternatives[0]
    )
