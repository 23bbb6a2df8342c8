"""The one error tree. Grouped by when an error occurs.

    ShadowSwitchError
    |- opening      EngineAlreadyOpen, EngineClosed, UnsupportedFilesystem, UnsupportedFormat
    |- naming       InvalidName, InvalidChange, InvalidConfig, InvalidEvent, UnknownBranch, UnknownShadow, UnknownIndex
    |- writing      WriteBlocked, StorageFull, JournalTrimmed
    |- building     DuplicateBuild, BuildFailed, BuildCancelled, NotConverging, CompletionRefused
    |- switching    InvalidTransition, StaleFence
    |- locking      LockConflict, LockLost
    |- any time     Timeout, CorruptData, InternalFailure

Every error says what happened in `message` (lower case, no full stop) and what to do next in `hint`;
`operation` and `object` say what was being done to what, `recoverable` whether trying again can help.
"""

from __future__ import annotations

from typing import Any


class ShadowSwitchError(Exception):
    """Base of all errors of this library.

    Attributes:
        message: what happened, lower case, without a full stop.
        operation: what was being done ("write", "switch", ...), or "".
        object: what it was done to (a branch, a shadow id, ...), or "".
        hint: what to do next, or "".
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
    """The data directory is held by an engine, of this or another process; `holder` describes it."""

    def __init__(self, message: str, *, holder: dict[str, Any] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.holder = holder or {}


class EngineClosed(ShadowSwitchError):
    """The engine was closed, or is closing."""


class UnsupportedFilesystem(ShadowSwitchError):
    """The data directory is on a network or FUSE file system, where LMDB is not safe."""


class UnsupportedFormat(ShadowSwitchError):
    """The data directory was written by another, incompatible version."""


class InvalidName(ShadowSwitchError, ValueError):
    """A branch, resource type, id or index type that cannot be used as a name."""


class InvalidChange(ShadowSwitchError, ValueError):
    """A change, or a batch of them, that cannot be stored: wrong type, too large, not JSON-like."""


class InvalidConfig(ShadowSwitchError, ValueError):
    """A setting, build_config or request value that is unknown or out of range."""


class InvalidEvent(ShadowSwitchError, ValueError):
    """An event from outside that is no CloudEvent of an accepted type, or of a source that is not heard."""


class UnknownBranch(ShadowSwitchError, LookupError):
    """No branch of that name."""


class UnknownShadow(ShadowSwitchError, LookupError):
    """No shadow index of that id."""


class UnknownIndex(ShadowSwitchError, LookupError):
    """No live index of that type on that branch, or no previous generation to go back to."""


class WriteBlocked(ShadowSwitchError):
    """A lock or the state of the branch refuses the write; `blocked` tells who, why, progress, ETA, alternatives."""

    recoverable = True

    def __init__(self, message: str, *, blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.blocked = blocked


class StorageFull(ShadowSwitchError):
    """The disk or the LMDB map has no room for what was to be stored; nothing of it was stored."""

    recoverable = True


class JournalTrimmed(ShadowSwitchError):
    """Changes below `oldest_lsn` were removed; read the records with `scan` and go on from `head`."""

    def __init__(self, message: str, *, oldest_lsn: int = 0, **details: Any) -> None:
        super().__init__(message, **details)
        self.oldest_lsn = oldest_lsn


class DuplicateBuild(ShadowSwitchError):
    """Another build of the same branch and index type is under way; `shadow_index_id` names it, and `blocked` says who
    builds, since when, how far that is and what else can be done."""

    def __init__(self, message: str, *, shadow_index_id: str = "", blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.shadow_index_id = shadow_index_id
        self.blocked = blocked


class BuildFailed(ShadowSwitchError):
    """The build ended FAILED; the message carries its reason."""


class BuildCancelled(ShadowSwitchError):
    """The build was cancelled."""


class CompletionRefused(ShadowSwitchError):
    """What an external builder left is not what it should be; `problems` says all that is wrong."""

    def __init__(self, message: str, *, problems: list[str] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.problems = problems or []


NOT_CONVERGING = "NOT_CONVERGING"
"""How the reason of a build begins that failed so: it is all that is stored of the error."""


class NotConverging(BuildFailed):
    """Writers are faster than the replay; the message carries both rates."""


class InvalidTransition(ShadowSwitchError):
    """The shadow or branch is in a state from which this cannot be done."""


class StaleFence(ShadowSwitchError):
    """The caller's fencing token, or the generation it expected to be live, is no longer the present one."""


class LockConflict(ShadowSwitchError):
    """A lock that overlaps is held; `blocked` tells by whom, why and for how long."""

    recoverable = True

    def __init__(self, message: str, *, blocked: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.blocked = blocked


class LockLost(ShadowSwitchError):
    """The lock expired, was released or forced; its token no longer opens anything."""


class Timeout(ShadowSwitchError, TimeoutError):
    """The deadline passed; the message says whether the work may still happen."""

    recoverable = True


class CorruptData(ShadowSwitchError):
    """What was read from disk is not what was written."""


class InternalFailure(ShadowSwitchError):
    """A part of the engine failed in a way it does not know; the cause is attached."""
