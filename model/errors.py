"""The one error tree, grouped by the moment of an error.

    ShadowSwitchError
    |- opening      EngineAlreadyOpen, EngineClosed, CloseInCallback, DirectoryLost,
    |               UnsupportedFilesystem, UnsupportedFormat
    |- naming       InvalidName (BranchExists), InvalidChange, InvalidConfig, InvalidEvent
    |               UnknownBranch, UnknownShadow, UnknownGroup, UnknownIndex
    |- writing      WriteBlocked, StorageFull, JournalTrimmed
    |- following    PlaceLost
    |- building     DuplicateBuild, BuildFailed, BuildCancelled, NotConverging, CompletionRefused
    |- switching    InvalidTransition (InUse), StaleFence
    |- locking      LockConflict, LockLost
    |- shipping     StoreUnavailable, StoreUnsafe, Fenced, StaleReplica
    |- any time     Timeout, ResourceExhausted, CorruptData, InternalFailure

`message` is the fact (lower case, no full stop), `hint` the next step for the caller, `operation` and `object` the
failed operation and its object. `recoverable` is True if a retry can succeed.
"""

from __future__ import annotations

from typing import Any


class ShadowSwitchError(Exception):
    """Base of all errors of this library.

    Attributes:
        message: the fact, lower case, without a full stop.
        operation: the operation that failed ("write", "switch", ...), or "".
        object: its object (a branch, a shadow id, ...), or "".
        hint: the next step for the caller, or "".
        recoverable: True when the same call may succeed later without a change by the caller.
    """

    recoverable = False

    def __init__(
        self, message: str, *, operation: str = "", object: str = "", hint: str = "", cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.object = object
        self.hint = hint
        if cause is not None:
            self.__cause__ = cause

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.__dict__, self.args))


def _rebuild(kind: type[ShadowSwitchError], state: dict[str, Any], args: tuple[Any, ...]) -> ShadowSwitchError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class EngineAlreadyOpen(ShadowSwitchError):
    """An engine of this or another process has the data directory open; `holder` describes that process."""

    def __init__(self, message: str, *, holder: dict[str, Any] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.holder = holder or {}


class EngineClosed(ShadowSwitchError):
    """The engine was closed, or is closing."""


class CloseInCallback(ShadowSwitchError):
    """A function that the engine calls (a subscriber, a health check, a validator) tried to close it; it stays open."""


class DirectoryLost(ShadowSwitchError):
    """The data directory is not this engine's any more: it was removed or replaced, as a whole or in part, or another
    process writes to it."""


class UnsupportedFilesystem(ShadowSwitchError):
    """The data directory is on a network or FUSE file system, where LMDB is not safe."""


class UnsupportedFormat(ShadowSwitchError):
    """Another, incompatible version wrote the data directory."""


class InvalidName(ShadowSwitchError, ValueError):
    """The name of a branch, resource type, record or index type is not allowed."""


class BranchExists(InvalidName):
    """There is a branch of that name already."""


class InvalidChange(ShadowSwitchError, ValueError):
    """A change, or a batch, cannot be stored: wrong type, too large, not JSON-like."""


class InvalidConfig(ShadowSwitchError, ValueError):
    """A value of a setting, build_config or request is unknown or out of range."""


class InvalidEvent(ShadowSwitchError, ValueError):
    """An event from outside is no CloudEvent of an accepted type, or its source is not accepted."""


class UnknownBranch(ShadowSwitchError, LookupError):
    """No branch has that name."""


class UnknownShadow(ShadowSwitchError, LookupError):
    """No shadow index has that id."""


class UnknownGroup(ShadowSwitchError, LookupError):
    """No group has that id."""


class UnknownIndex(ShadowSwitchError, LookupError):
    """The branch has no live index of that type, or no previous generation for a rollback."""


class WriteBlocked(ShadowSwitchError):
    """A lock or the state of the branch refuses the write; `blocked` has holder, progress, ETA, alternatives."""

    recoverable = True

    def __init__(self, message: str, *, blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.blocked = blocked


class StorageFull(ShadowSwitchError):
    """The disk, its quota, RLIMIT_FSIZE or the LMDB map has no room; nothing of the operation was stored."""

    recoverable = True


class JournalTrimmed(ShadowSwitchError):
    """Changes below `oldest_lsn` were removed; read the records with `scan` and go on from `head`."""

    def __init__(self, message: str, *, oldest_lsn: int = 0, **details: Any) -> None:
        super().__init__(message, **details)
        self.oldest_lsn = oldest_lsn


class DuplicateBuild(ShadowSwitchError):
    """Another build of the same branch and index type is under way.

    `shadow_index_id` is its shadow; `blocked` has its owner, start, progress and the alternatives.
    """

    def __init__(self, message: str, *, shadow_index_id: str = "", blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.shadow_index_id = shadow_index_id
        self.blocked = blocked


class BuildFailed(ShadowSwitchError):
    """The build ended FAILED; the message has the reason."""


class BuildCancelled(ShadowSwitchError):
    """The build was cancelled."""


class CompletionRefused(ShadowSwitchError):
    """The delivery of an external builder did not pass its check; `problems` lists every reason."""

    def __init__(self, message: str, *, problems: list[str] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.problems = problems or []


NOT_CONVERGING = "NOT_CONVERGING"
"""The first word of the stored reason of a build that failed with NotConverging."""


class NotConverging(BuildFailed):
    """Writers are faster than the replay; the message has both rates."""


class InvalidTransition(ShadowSwitchError):
    """The state of the shadow or branch does not allow the operation."""


class InUse(InvalidTransition):
    """What is to be removed is in use; `uses` names everything that uses it."""

    def __init__(self, message: str, *, uses: list[str] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.uses = uses or []


class PlaceLost(ShadowSwitchError):
    """A sequence number that the event log never reached: the client read it from another data directory."""


class StaleFence(ShadowSwitchError):
    """The caller's fencing token, or its expected live generation, is no longer the present one."""


class LockConflict(ShadowSwitchError):
    """A held lock overlaps; `blocked` has its holder, reason and ETA."""

    recoverable = True

    def __init__(self, message: str, *, blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.blocked = blocked


class LockLost(ShadowSwitchError):
    """The lock expired, was released or was forced open; its token is no longer valid."""


class StoreUnavailable(ShadowSwitchError):
    """A folder or a bucket for backups cannot be reached, or refuses: nothing of the data directory is changed."""

    recoverable = True


class StoreUnsafe(ShadowSwitchError):
    """A store does not do what its requests ask for: it can hold no chain."""


class Fenced(ShadowSwitchError):
    """Another host has taken over the data directory; this one commits nothing more."""


class StaleReplica(ShadowSwitchError):
    """What a replica would go on with was removed, or is older than the caller allows."""


class Timeout(ShadowSwitchError, TimeoutError):
    """The deadline passed; the message says whether the operation may still take effect."""

    recoverable = True


class ResourceExhausted(ShadowSwitchError):
    """Descriptors, memory, threads, processes or a permission cannot be had: `resource` names the limit.

    Nothing is damaged and nothing was changed; the same call succeeds once the resource can be had.
    """

    recoverable = True

    def __init__(self, message: str, *, resource: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.resource = resource


class CorruptData(ShadowSwitchError):
    """Data on disk is not the data that was written."""


class InternalFailure(ShadowSwitchError):
    """A part of the engine failed with an unexpected exception, which is the cause."""


def no_branch(name: str) -> UnknownBranch:
    """The error for a branch that is not there, or not any more."""
    hint = "create it with create_branch, or see branches()"
    return UnknownBranch(f"there is no branch {name!r}", object=name, hint=hint)


def no_shadow(shadow_id: object) -> UnknownShadow:
    """The error for a shadow that is not there, or not any more."""
    hint = "see shadows() for what there is"
    return UnknownShadow(f"there is no shadow index {shadow_id!r:.80}", object=str(shadow_id)[:80], hint=hint)


def no_group(group_id: object) -> UnknownGroup:
    """The error for a group that is not there, or not any more."""
    hint = "see groups() for what there is"
    return UnknownGroup(f"there is no group {group_id!r:.80}", object=str(group_id)[:80], hint=hint)
