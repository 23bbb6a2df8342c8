"""Locks: the calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from shadowswitch.actors.base import result_of
from shadowswitch.actors.messages import (
    AbandonLocks,
    AcquireLock,
    CheckWrite,
    ExtendLock,
    ForceUnlock,
    HeartbeatLock,
    ListLocks,
    ReleaseLock,
)
from shadowswitch.engine.preparing import lock_tokens
from shadowswitch.engine.running import Running
from shadowswitch.model.blocked import WritePermission
from shadowswitch.model.errors import EngineClosed, InvalidConfig, LockConflict, LockLost
from shadowswitch.model.lock_info import Lock
from shadowswitch.model.lock_records import LockRequest, ProgressReport
from shadowswitch.model.lock_scopes import LockScope, LockType, check_duration, target
from shadowswitch.model.names import check_id, check_resource_type
from shadowswitch.storage.rows import BranchRow

ANSWER_TIMEOUT_S = 10.0
OWNER_CHARS_MAX = 200
REASON_CHARS_MAX = 2000


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
    ) -> Lock:
        """Take a lock, at once or, with `wait_s`, when its turn comes: first come, first served.

        Returns after every write that was admitted before is committed. The lock ends by `release_lock`, after
        `ttl_s` (by default what its type says), or after three missed intervals of `heartbeat_s`. `tokens` are those
        of locks that `owner` holds and that the new one may overlap. Raises LockConflict, whose `blocked` says who,
        why and what else can be done; UnknownBranch, InvalidConfig, InvalidName, LockLost for a stale token.
        """
        row = self._branch_row(branch)
        if resource_type is not None:
            check_resource_type(resource_type)
        if resource_id is not None:
            check_id(resource_id)
        request = LockRequest(
            f"{row.number}-{uuid.uuid4().hex}",
            _lock_type(lock_type),
            target(scope, resource_type, resource_id),
            ttl_s,
            heartbeat_s,
            text_of("reason", reason, REASON_CHARS_MAX),
        )
        wait_s = check_duration("wait_s", wait_s, zero=True)
        owner = text_of("owner", owner, OWNER_CHARS_MAX)
        message = AcquireLock((request,), owner, wait_s, lock_tokens(tokens), Future())
        self._branches.tell(row, message)
        try:
            (lock,) = result_of(message.reply, wait_s + ANSWER_TIMEOUT_S, "the lock")
        except (LockConflict, LockLost, InvalidConfig, EngineClosed):
            raise
        except BaseException:  # nobody may go on holding what nobody knows of
            self._branches.tell(row, AbandonLocks(message))
            raise
        return lock  # type: ignore[no-any-return]

    def heartbeat(self, lock_id: str, token: int, progress: ProgressReport | float | None = None) -> Lock:
        """Say that the holder lives, and how far its work is (percent, or a ProgressReport). Raises LockLost.

        It does not extend the time to live; `extend_lock` does.
        """
        if progress is not None and not isinstance(progress, ProgressReport):
            progress = ProgressReport(progress)
        row = self._holder_row(lock_id, token)
        return self._ask(row, HeartbeatLock(lock_id, token, progress, Future()), "the heartbeat")  # type: ignore[no-any-return]

    def extend_lock(self, lock_id: str, token: int, extra_s: float) -> Lock:
        """Let a lock live longer. Raises LockLost, and InvalidConfig beyond the longest life of a lock."""
        row = self._holder_row(lock_id, token)
        return self._ask(row, ExtendLock(lock_id, token, extra_s, Future()), "the extension")  # type: ignore[no-any-return]

    def release_lock(self, lock_id: str, token: int) -> None:
        """Give a lock back. Raises LockLost when it is not held under that token (any more)."""
        self._ask(self._holder_row(lock_id, token), ReleaseLock(lock_id, token, Future()), "the release")

    def force_unlock(self, branch: str, admin: str, reason: str) -> list[Lock]:
        """Take away every lock of a branch; their holders are fenced out. Who and why is kept in `audit`."""
        by, why = text_of("admin", admin, OWNER_CHARS_MAX), text_of("reason", reason, REASON_CHARS_MAX)
        return list(self._ask(self._branch_row(branch), ForceUnlock(by, why, Future()), "the unlocking"))

    def locks(self, branch: str | None = None) -> list[Lock]:
        """The locks that are held now, of one branch or of all."""
        house = self._alive()
        if branch is not None:
            rows = [self._branch_row(branch)]
        else:
            rows = [keeper.row for _, keeper in sorted(house.keepers.copy().items())]
        found: list[Lock] = []
        for row in rows:
            keeper = house.keepers.get(row.number)
            if keeper is not None and not keeper.quiet:
                found += self._ask(row, ListLocks(Future()), "the list of locks")
        return found

    def check_write(
        self,
        branch: str,
        action: str,
        resource_type: str,
        resource_id: str | None = None,
        owner: str = "",
        *,
        tokens: Iterable[int] = (),
    ) -> WritePermission:
        """Whether this may be written at this moment; `action` is write, create, update, delete or read.

        Only `write` admits and commits in one step. Raises LockLost for a stale token.
        """
        row = self._branch_row(branch)
        check_resource_type(resource_type)
        if resource_id is not None:
            check_id(resource_id)
        message = CheckWrite(action, resource_type, resource_id, owner, lock_tokens(tokens), Future())
        permission: WritePermission = self._ask(row, message, "the check")
        return permission

    # -- how -------------------------------------------------------------------------------------------------------

    def _ask(self, row: BranchRow, message: Any, what: str) -> Any:
        self._branches.tell(row, message)
        return result_of(message.reply, ANSWER_TIMEOUT_S, what)

    def _holder_row(self, lock_id: str, token: int) -> BranchRow:
        """The branch of a lock, whose number its id begins with. Raises LockLost when it can be none of ours."""
        lock_tokens([token])
        number = lock_id.partition("-")[0] if isinstance(lock_id, str) else ""
        known = number.isascii() and number.isdigit() and len(number) < 12
        keeper = self._alive().keepers.get(int(number)) if known else None
        if keeper is None:
            raise LockLost(
                f"lock {lock_id!r:.80} is not held",
                operation="lock",
                object=f"{lock_id!r:.80}",
                hint="acquire it again",
            )
        return keeper.row


def _lock_type(name: LockType | str) -> LockType:
    try:
        return LockType(name)
    except ValueError:
        raise InvalidConfig(f"unknown lock type {name!r:.80}", hint=f"one of {', '.join(LockType)}") from None


def text_of(name: str, value: str, most: int) -> str:
    """A text that can be stored; raises InvalidConfig otherwise."""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidConfig(f"{name} must be a string of at most {most} characters", hint=f"shorten the {name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig(f"{name} is not valid Unicode", hint="remove lone surrogates") from error
    return value
