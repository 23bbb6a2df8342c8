"""Locks: the calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import (
    AbandonLocks,
    AcquireLock,
    CheckWrite,
    ConfirmLock,
    ExtendLock,
    ForceUnlock,
    HeartbeatLock,
    ListLocks,
    ReleaseLock,
)
from shadowswitch.engine.encode import lock_tokens
from shadowswitch.engine.lifecycle import Running, text_of
from shadowswitch.model.errors import EngineClosed, InvalidConfig, LockConflict, LockLost, Timeout
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
from shadowswitch.storage.catalog.rows import BranchRow

ANSWER_TIMEOUT_S = 10.0
PRESENT_S = 0.5
OWNER_CHARS_MAX = 200
REASON_CHARS_MAX = 2000
LOCKS_MAX = 1000
"""Locks in one request: the table is stored whole with each change."""


class Locking(Running):
    """Locks that stand in the way of writers for as long as they must, and say so. Any thread."""

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
        `ttl_s` (by default what its type says), or after three missed intervals of `heartbeat_s`. `tokens` are those
        of locks that `owner` holds and that the new one may overlap. With `shadow_index_id` progress and ETA of the
        work under the lock are measured from that build, else from what `heartbeat` reports. Raises LockConflict,
        whose `blocked` says who, why and what else can be done; UnknownBranch, UnknownShadow, InvalidConfig,
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

        While somebody waits for several nothing of it is held, so two who want the same in another order do not wait
        for each other. Each lock has its own token and is released on its own. A host that waits for somebody else
        gives `present`, which is asked twice a second whether they are still there: if not, the wait is given up.
        """
        row = self._branch_row(branch)
        if isinstance(requests, LockSpec) or not all(isinstance(wanted, LockSpec) for wanted in requests):
            raise InvalidConfig("requests must be a list of LockSpec", hint='give [LockSpec("MANUAL", ...)]')
        wait_s = check_duration("wait_s", wait_s, zero=True)
        owner = text_of("owner", owner, OWNER_CHARS_MAX)
        asked = tuple(self._request(row, wanted) for wanted in requests)
        if not asked or len(asked) > LOCKS_MAX:
            raise InvalidConfig(f"ask for 1 to {LOCKS_MAX} locks, not {len(asked)}", hint="a wider scope covers more")
        message = AcquireLock(asked, owner, wait_s, lock_tokens(tokens), Reply())
        self._branches.tell(row, message)
        try:
            return list(_await_locks(message, present))
        except (LockConflict, LockLost, InvalidConfig, EngineClosed):
            raise
        except BaseException:  # nobody may go on holding what nobody knows of
            self._branches.tell(row, AbandonLocks(message))
            raise

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
            text_of("reason", wanted.reason, REASON_CHARS_MAX),
            build=self._build_of(row, wanted.shadow_index_id),
        )

    def _build_of(self, row: BranchRow, shadow_index_id: str) -> str:
        if shadow_index_id and self._house.catalog.shadow(shadow_index_id).branch != row.number:
            raise InvalidConfig(
                f"shadow {shadow_index_id} is not of branch {row.name}",
                hint="name a build of the branch that is locked",
            )
        return shadow_index_id

    def confirm_lock(self, lock_id: str, token: int) -> Lock:
        """Is this lock, or the lease of a WritePermission, still held under this token? Raises LockLost if not.

        True at this moment: a host with its own storage asks last before it commits there, and lets its storage
        refuse a token smaller than the largest that it has seen for an overlapping lock (docs/locks.md).
        """
        row = self._holder_row(lock_id, token)
        return self._ask(row, ConfirmLock(lock_id, token, Reply()), "the confirmation")  # type: ignore[no-any-return]

    def heartbeat(self, lock_id: str, token: int, progress: ProgressReport | float | None = None) -> Lock:
        """Say that the holder lives, and how far its work is (percent, or a ProgressReport). Raises LockLost.

        It does not extend the time to live; `extend_lock` does.
        """
        if progress is not None and not isinstance(progress, ProgressReport):
            progress = ProgressReport(progress)
        row = self._holder_row(lock_id, token)
        return self._ask(row, HeartbeatLock(lock_id, token, progress, Reply()), "the heartbeat")  # type: ignore[no-any-return]

    def extend_lock(self, lock_id: str, token: int, extra_s: float) -> Lock:
        """Let a lock live longer. Raises LockLost, and InvalidConfig beyond the longest life of a lock."""
        row = self._holder_row(lock_id, token)
        return self._ask(row, ExtendLock(lock_id, token, extra_s, Reply()), "the extension")  # type: ignore[no-any-return]

    def release_lock(self, lock_id: str, token: int) -> None:
        """Give a lock back. Raises LockLost when it is not held under that token (any more)."""
        self._ask(self._holder_row(lock_id, token), ReleaseLock(lock_id, token, Reply()), "the release")

    def force_unlock(self, branch: str, admin: str, reason: str) -> list[Lock]:
        """Take away every lock of a branch; their holders are fenced out. Who and why is kept in `audit`."""
        by, why = text_of("admin", admin, OWNER_CHARS_MAX), text_of("reason", reason, REASON_CHARS_MAX)
        return list(self._ask(self._branch_row(branch), ForceUnlock(by, why, Reply()), "the unlocking"))

    def locks(self, branch: str | None = None) -> list[Lock]:
        """The locks that are held now, of one branch or of all."""
        return [lock for locks, _ in self._listed(branch) for lock in locks]

    def find_lock(self, lock_id: str) -> Lock | None:
        """The lock of that id, if it is held now. Asks its branch and no other."""
        number = _branch_number(lock_id)
        keeper = self._alive().locks.find(number) if number is not None else None
        found = self.locks(keeper.row.name) if keeper is not None else []
        return next((lock for lock in found if lock.lock_id == lock_id), None)

    def branch_of_lock(self, lock_id: str) -> str | None:
        """The branch whose lock that is or was; None for what can be no lock of ours."""
        number = _branch_number(lock_id)
        keeper = self._alive().locks.find(number) if number is not None else None
        return keeper.row.name if keeper is not None else None

    def lock_waiters(self, branch: str | None = None) -> list[LockWaiter]:
        """Who waits for locks, of one branch or of all; those of a branch in the order in which they will be served."""
        return [waiter for _, waiters in self._listed(branch) for waiter in waiters]

    def _listed(self, branch: str | None) -> Iterator[tuple[tuple[Lock, ...], tuple[LockWaiter, ...]]]:
        house = self._alive()
        every = [locks.row for locks in house.locks.all()]
        rows = [self._branch_row(branch)] if branch is not None else every
        for row in rows:
            keeper = house.locks.find(row.number)
            if keeper is not None and not keeper.quiet:
                yield self._ask(row, ListLocks(Reply()), "the list of locks")

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
        comes with a lease (`lock_id`, `token`, `expires_at`) that no overlapping lock is granted beside. Write, then
        give it back with `release_lock`; `confirm_lock` says whether it still holds, `extend_lock` lengthens it. While
        somebody waits for an overlapping lock no new lease is given. Raises LockLost for a stale token.
        """
        row = self._branch_row(branch)
        check_resource_type(resource_type)
        if resource_id is not None:
            check_id(resource_id)
        lease = None if lease_s is None else _lease(row, resource_type, resource_id, lease_s)
        owner = text_of("owner", owner, OWNER_CHARS_MAX)
        message = CheckWrite(action, resource_type, resource_id, owner, lock_tokens(tokens), Reply(), lease)
        permission: WritePermission = self._ask(row, message, "the check")
        return permission

    # -- how -------------------------------------------------------------------------------------------------------

    def _ask(self, row: BranchRow, message: Any, what: str) -> Any:
        self._branches.tell(row, message)
        return result_of(message.reply, ANSWER_TIMEOUT_S, what)

    def _holder_row(self, lock_id: str, token: int) -> BranchRow:
        """The branch of a lock, whose number its id begins with. Raises LockLost when it can be none of ours."""
        lock_tokens([token])
        number = _branch_number(lock_id)
        keeper = self._alive().locks.find(number) if number is not None else None
        if keeper is None:
            raise LockLost(
                f"lock {lock_id!r:.80} is not held",
                operation="lock",
                object=f"{lock_id!r:.80}",
                hint="acquire it again",
            )
        return keeper.row


def _await_locks(message: AcquireLock, present: Callable[[], bool] | None) -> tuple[Lock, ...]:
    """The answer; raises Timeout at the deadline, or once nobody is there any more who could use it."""
    limit_s = message.wait_s + ANSWER_TIMEOUT_S
    deadline = time.monotonic() + limit_s
    while present is not None and present() and time.monotonic() < deadline:
        if message.reply.wait(PRESENT_S):
            break
    if present is None or present():
        locks: tuple[Lock, ...] = result_of(message.reply, max(0.0, deadline - time.monotonic()), "the lock")
        return locks
    raise Timeout("nobody waits for the lock any more", operation="lock", hint="whoever asked has gone away")


def _branch_number(lock_id: str) -> int | None:
    """The number of the branch of a lock, with which its id begins; None when that cannot be an id of ours."""
    number = lock_id.partition("-")[0] if isinstance(lock_id, str) else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 12 else None


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
