"""Locks: the calls."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter

from shadowswitch.actors.branch.lock_queries import CheckWrite, ConfirmLock, ListLocks
from shadowswitch.actors.branch.lock_registry import LockRegistry
from shadowswitch.actors.branch.lock_requests import AbandonLocks, ExtendLock, ForceUnlock, HeartbeatLock, ReleaseLock
from shadowswitch.actors.branch.lock_waiters import AcquireLock
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.engine.arguments import check_text, check_whole
from shadowswitch.engine.branch_directory import ANSWER_TIMEOUT_S, BranchDirectory
from shadowswitch.engine.encode import lock_tokens
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import EngineClosed, InvalidConfig, LockConflict, LockLost, Timeout, UnknownBranch
from shadowswitch.model.locks.info import Lock, LockSpec, LockWaiter
from shadowswitch.model.locks.records import LockRequest, ProgressReport
from shadowswitch.model.locks.refusal import WritePermission
from shadowswitch.model.locks.targets import (
    LEASE_TTL_MAX_S,
    LockScope,
    LockType,
    check_duration,
    resource_target,
    target,
    type_target,
)
from shadowswitch.model.names import check_id, check_resource_type
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow

PRESENT_S = 0.5
"""The interval at which a waiting call asks `present`."""
OWNER_CHARS_MAX = 200
REASON_CHARS_MAX = 2000
LOCKS_MAX = 1000
"""Locks in one request: the table is stored whole with each change."""


class LockCalls:
    """Locks on a branch, a resource type or a resource, and leases of writers. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        router: BranchRouter,
        locks: LockRegistry,
    ) -> None:
        self._catalog = context.catalog
        self._clock = context.clock
        self._state = state
        self._branches = branches
        self._router = router
        self._locks = locks

    def acquire_lock(
        self,
        branch: str,
        lock_type: LockType | str,
        owner: str,
        scope: LockScope | str = "BRANCH",
        resource_type: str | None = None,
        resource_id: str | None = None,
        ttl_s: float | None = None,
        heartbeat_s: float | None = None,
        reason: str = "",
        wait_s: float = 0,
        *,
        tokens: Iterable[int] = (),
        shadow_index_id: str = "",
        present: Callable[[], bool] | None = None,
    ) -> Lock:
        """Take a lock, at once or, with `wait_s`, when its turn comes: first come, first served.

        Returns after every write that was admitted before is committed. The lock ends by `release_lock`, after
        `ttl_s` (by default that of its type), or after three missed intervals of `heartbeat_s`. `tokens` are those of
        locks that `owner` holds and that the new lock may overlap. With `shadow_index_id` progress and ETA of the work
        under the lock are measured from that build, else from the reports of `heartbeat`. Raises LockConflict, whose
        `blocked` names the holder, the reason and the alternatives; UnknownBranch, UnknownShadow, InvalidConfig,
        InvalidName, LockLost for a stale token.
        """
        wanted = LockSpec(
            lock_type, scope, resource_type, resource_id, ttl_s, heartbeat_s, reason, shadow_index_id=shadow_index_id
        )
        (lock,) = self.acquire_locks(branch, [wanted], owner, wait_s, tokens=tokens, present=present)
        return lock

    def acquire_locks(
        self,
        branch: str,
        requests: Sequence[LockSpec],
        owner: str,
        wait_s: float = 0,
        *,
        tokens: Iterable[int] = (),
        present: Callable[[], bool] | None = None,
    ) -> list[Lock]:
        """Take several locks of a branch, all or none, as `acquire_lock` takes one; in the order of `requests`.

        A caller that waits for several locks holds none of them, so two callers that want the same locks in another
        order do not wait for each other. Each lock has its own token and is released on its own. A host that waits on
        behalf of a client gives `present`, which is called twice a second: once it returns False, the wait ends.
        """
        row = self._branches.row(branch)
        if isinstance(requests, LockSpec) or not all(isinstance(wanted, LockSpec) for wanted in requests):
            raise InvalidConfig("requests must be a list of LockSpec", hint='give [LockSpec("MANUAL", ...)]')
        wait_s = check_duration("wait_s", wait_s, zero=True)
        owner = check_text("owner", owner, OWNER_CHARS_MAX)
        asked = tuple(self._request(row, wanted) for wanted in requests)
        if not asked or len(asked) > LOCKS_MAX:
            raise InvalidConfig(f"ask for 1 to {LOCKS_MAX} locks, not {len(asked)}", hint="a wider scope covers more")
        message = AcquireLock(asked, owner, wait_s, lock_tokens(tokens), Reply())
        self._router.tell(row, message)
        try:
            return list(self._await_locks(message, present))
        except (LockConflict, LockLost, InvalidConfig, EngineClosed):
            raise
        except BaseException:  # the caller does not know of the locks, so the branch must not keep them
            self._router.tell(row, AbandonLocks(message))
            raise

    def _await_locks(self, message: AcquireLock, present: Callable[[], bool] | None) -> tuple[Lock, ...]:
        """The reply. Raises Timeout at the deadline, or when the caller is not present any more."""
        deadline = self._clock.monotonic() + message.wait_s + ANSWER_TIMEOUT_S
        while present is not None and present() and self._clock.monotonic() < deadline:
            if message.reply.wait(PRESENT_S):
                break
        if present is None or present():
            left_s = max(0.0, deadline - self._clock.monotonic())
            locks: tuple[Lock, ...] = result_of(message.reply, left_s, "the lock")
            return locks
        raise Timeout("the caller of the lock is gone", operation="lock", hint="acquire the lock again")

    def _request(self, row: BranchRow, wanted: LockSpec) -> LockRequest:
        if wanted.resource_type is not None:
            check_resource_type(wanted.resource_type)
        if wanted.resource_id is not None:
            check_id(wanted.resource_id)
        return LockRequest(
            new_lock_id(row),
            _lock_type(wanted.lock_type),
            target(wanted.scope, wanted.resource_type, wanted.resource_id),
            wanted.ttl_s,
            wanted.heartbeat_s,
            check_text("reason", wanted.reason, REASON_CHARS_MAX),
            build=build_of(self._catalog, row, wanted.shadow_index_id),
        )

    def confirm_lock(self, lock_id: str, token: int) -> Lock:
        """Is this lock, or the lease of a WritePermission, still held under this token? Raises LockLost if not.

        The answer holds at this moment. A host with its own storage confirms last before it commits there, and lets its
        storage refuse a token smaller than the largest that it has seen for an overlapping lock (docs/locks.md).
        """
        row = self._holder_row(lock_id, token)
        return self._branches.ask(row, ConfirmLock(lock_id, token, Reply()), "the confirmation")  # type: ignore[no-any-return]

    def heartbeat(self, lock_id: str, token: int, progress: ProgressReport | float | None = None) -> Lock:
        """Say that the holder lives, and how far its work is (percent, or a ProgressReport). Raises LockLost.

        It does not extend the time to live; `extend_lock` does.
        """
        if progress is not None and not isinstance(progress, ProgressReport):
            progress = ProgressReport(progress)
        row = self._holder_row(lock_id, token)
        return self._branches.ask(row, HeartbeatLock(lock_id, token, progress, Reply()), "the heartbeat")  # type: ignore[no-any-return]

    def extend_lock(self, lock_id: str, token: int, extra_s: float) -> Lock:
        """Let a lock live longer. Raises LockLost, and InvalidConfig beyond the longest life of a lock."""
        row = self._holder_row(lock_id, token)
        return self._branches.ask(row, ExtendLock(lock_id, token, extra_s, Reply()), "the extension")  # type: ignore[no-any-return]

    def release_lock(self, lock_id: str, token: int) -> None:
        """Give a lock back. Raises LockLost when it is not held under that token (any more)."""
        self._branches.ask(self._holder_row(lock_id, token), ReleaseLock(lock_id, token, Reply()), "the release")

    def force_unlock(self, branch: str, admin: str, reason: str) -> list[Lock]:
        """Take away every lock of a branch; their holders are fenced out. `audit` has admin and reason."""
        admin, reason = check_text("admin", admin, OWNER_CHARS_MAX), check_text("reason", reason, REASON_CHARS_MAX)
        row = self._branches.row(branch)
        return list(self._branches.ask(row, ForceUnlock(admin, reason, Reply()), "the unlocking"))

    def locks(
        self,
        branch: str | None = None,
        limit: int | None = None,
        after: str = "",
        wanted: Callable[[str], bool] | None = None,
    ) -> list[Lock]:
        """The locks that are held now, of one branch or of all, in the order of the branches, the oldest first.

        By page: up to `limit` of them behind the one with the `place` `after`; for the next page, that of the last one.
        `wanted` is asked for the name of a branch: the others are left out. Raises UnknownBranch, InvalidConfig.
        """
        if limit is not None:
            check_whole("limit", limit, 1)
        behind = _place_of(after) if after != "" else None
        listed = self._listed(branch, behind[0] if behind is not None else 0, wanted)
        places = (sorted(((_place_of(lock.place), lock) for lock in locks), key=itemgetter(0)) for locks, _ in listed)
        found = (lock for locks in places for place, lock in locks if behind is None or place > behind)
        return list(islice(found, limit))

    def find_lock(self, lock_id: str) -> Lock | None:
        """The lock of that id, if it is held now. Asks its branch and no other."""
        row = self._row_of_lock(lock_id)
        found = self.locks(row.name) if row is not None else []
        return next((lock for lock in found if lock.lock_id == lock_id), None)

    def branch_of_lock(self, lock_id: str) -> str | None:
        """The branch of a lock that is or was held; None for an id that this engine never gave."""
        row = self._row_of_lock(lock_id)
        return row.name if row is not None else None

    def lock_waiters(self, branch: str | None = None) -> list[LockWaiter]:
        """The waiters for locks, of one branch or of all; those of a branch in the order of their service."""
        return [waiter for _, waiters in self._listed(branch) for waiter in waiters]

    def _listed(
        self, branch: str | None, least: int = 0, wanted: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[tuple[Lock, ...], tuple[LockWaiter, ...]]]:
        """Locks and waiters by branch, from the branch with the number `least` on."""
        self._state.check()
        every = [locks.row for locks in self._locks.all()]
        rows = [self._branches.row(branch)] if branch is not None else every
        for row in rows:
            if row.number < least or (wanted is not None and not wanted(row.name)):
                continue
            locks = self._locks.find(row.number)
            if locks is not None and not locks.quiet:
                try:
                    found = self._branches.ask(row, ListLocks(Reply()), "the list of locks")
                except UnknownBranch:  # it was dropped meanwhile
                    if branch is not None:
                        raise
                    continue
                yield found

    def check_write(
        self,
        branch: str,
        action: str,
        resource_type: str,
        resource_id: str | None = None,
        owner: str = "",
        *,
        tokens: Iterable[int] = (),
        lease_s: float | None = None,
    ) -> WritePermission:
        """Whether this may be written at this moment; `action` is write, create, update, delete or read.

        A host that writes into a storage of its own gives `lease_s`, at most 60, and an `owner`: a permission then
        comes with a lease (`lock_id`, `token`, `expires_at`), and no overlapping lock is granted beside it. Write, then
        give the lease back with `release_lock`; `confirm_lock` says whether it still holds, `extend_lock` lengthens it.
        While a caller waits for an overlapping lock, no new lease is given. Raises LockLost for a stale token.
        """
        row = self._branches.row(branch)
        check_resource_type(resource_type)
        if resource_id is not None:
            check_id(resource_id)
        lease = None if lease_s is None else _lease(row, resource_type, resource_id, lease_s)
        owner = check_text("owner", owner, OWNER_CHARS_MAX)
        message = CheckWrite(action, resource_type, resource_id, owner, lock_tokens(tokens), Reply(), lease)
        permission: WritePermission = self._branches.ask(row, message, "the check")
        return permission

    def _holder_row(self, lock_id: str, token: int) -> BranchRow:
        """The branch of a lock; the id of the lock begins with its number. Raises LockLost for any other id."""
        lock_tokens([token])
        row = self._row_of_lock(lock_id)
        if row is None:
            raise LockLost(
                f"lock {lock_id!r:.80} is not held",
                operation="lock",
                object=f"{lock_id!r:.80}",
                hint="acquire it again",
            )
        return row

    def _row_of_lock(self, lock_id: str) -> BranchRow | None:
        """The branch of a lock; None for an id that this engine did not give."""
        self._state.check()
        number = _branch_number(lock_id)
        locks = self._locks.find(number) if number is not None else None
        return locks.row if locks is not None else None


def _place_of(place: object) -> tuple[int, datetime, str]:
    """The order of the places. Raises InvalidConfig for a text that is none."""
    granted, _, lock_id = place.partition("/") if isinstance(place, str) else ("", "", "")
    number = _branch_number(lock_id)
    try:
        if number is not None:
            return number, datetime.fromisoformat(granted).astimezone(UTC), lock_id
    except (ValueError, OverflowError):
        pass
    raise InvalidConfig(f"{place!r:.80} is no place of a lock", hint="use the `place` of the last one of a page")


def _branch_number(lock_id: str) -> int | None:
    """The number of the branch of a lock, with which its id begins; None when that cannot be an id of ours."""
    number = lock_id.partition("-")[0] if isinstance(lock_id, str) else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 12 else None


def build_of(catalog: Catalog, row: BranchRow, shadow_index_id: str) -> str:
    """The build whose progress a lock shows. Raises InvalidConfig for a build of another branch."""
    if shadow_index_id and catalog.shadow(shadow_index_id).branch != row.number:
        raise InvalidConfig(
            f"shadow {shadow_index_id} is not of branch {row.name}",
            hint="name a build of the branch that is locked",
        )
    return shadow_index_id


def new_lock_id(row: BranchRow) -> str:
    """An id for a lock; it begins with the number of its branch, see `_holder_row`."""
    return f"{row.number}-{uuid.uuid4().hex}"


def _lease(row: BranchRow, resource_type: str, resource_id: str | None, lease_s: float) -> LockRequest:
    covered = type_target(resource_type) if resource_id is None else resource_target(resource_type, resource_id)
    check_duration("lease_s", lease_s, longest_s=LEASE_TTL_MAX_S)
    return LockRequest(new_lock_id(row), LockType.MANUAL, covered, lease_s, reason="write lease", shared=True)


def _lock_type(name: LockType | str) -> LockType:
    try:
        return LockType(name)
    except ValueError:
        raise InvalidConfig(f"unknown lock type {name!r:.80}", hint=f"one of {', '.join(LockType)}") from None
