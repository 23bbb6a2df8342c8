"""The types, scopes and targets of locks, the overlap of targets, and the bounds of durations.

Targets nest: BRANCH contains every RESOURCE_TYPE, which contains its RESOURCEs. Two targets overlap when one contains
the other. An INDEX target is the claim of a build: it overlaps only the same INDEX, so a build blocks no writer.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from shadowswitch.model.errors import InvalidConfig


class LockType(StrEnum):
    """The work of the holder. It sets the default time to live and, for INDEXING of a branch, the branch's state."""

    INDEXING = "INDEXING"
    MIGRATION = "MIGRATION"
    BACKUP = "BACKUP"
    MAINTENANCE = "MAINTENANCE"
    MANUAL = "MANUAL"


class LockScope(StrEnum):
    """The scope of a lock; INDEX is the claim of a build and covers no record."""

    BRANCH = "BRANCH"
    RESOURCE_TYPE = "RESOURCE_TYPE"
    RESOURCE = "RESOURCE"
    INDEX = "INDEX"


HOUR_S = 3600.0
DEFAULT_TTL_S: dict[LockType, float] = {
    LockType.INDEXING: 4 * HOUR_S,
    LockType.MIGRATION: 6 * HOUR_S,
    LockType.BACKUP: 2 * HOUR_S,
    LockType.MAINTENANCE: 1 * HOUR_S,
    LockType.MANUAL: 24 * HOUR_S,
}

DURATION_MAX_S = 30 * 24 * HOUR_S
"""The longest duration of a request, and the longest life of a lock with all its extensions."""

LEASE_TTL_S = 5.0
"""The default life of a shared lock (a write lease): enough for one write into the host's own storage."""

LEASE_TTL_MAX_S = 60.0
"""The longest life of a shared lock: exclusive locks wait behind every lease."""

MISSED_HEARTBEATS_MAX = 3
"""Intervals without a heartbeat after which a lock that promised heartbeats expires."""


class Target(msgspec.Struct, frozen=True):
    """The target of a lock, a waiter or a write. The functions below make one and check the combination."""

    scope: LockScope
    resource_type: str | None = None
    resource_id: str | None = None
    index_type: str | None = None

    def __str__(self) -> str:
        match self.scope:
            case LockScope.BRANCH:
                return "the whole branch"
            case LockScope.RESOURCE_TYPE:
                return f"all of {self.resource_type}"
            case LockScope.RESOURCE:
                return f"{self.resource_type} {self.resource_id}"
            case LockScope.INDEX:
                return f"the build of {self.index_type}"


BRANCH = Target(LockScope.BRANCH)
"""The whole branch."""


def type_target(resource_type: str) -> Target:
    """All records of one resource type."""
    return Target(LockScope.RESOURCE_TYPE, resource_type)


def resource_target(resource_type: str, resource_id: str) -> Target:
    """One record."""
    return Target(LockScope.RESOURCE, resource_type, resource_id)


def index_target(index_type: str) -> Target:
    """The claim to build one index: conflicts with another build of the same index and with nothing else."""
    return Target(LockScope.INDEX, index_type=index_type)


def target(scope: LockScope | str, resource_type: str | None = None, resource_id: str | None = None) -> Target:
    """The target of a scope as users name it. Raises InvalidConfig when a name is missing or not allowed."""
    try:
        chosen = LockScope(scope)
    except ValueError:
        raise InvalidConfig(f"unknown lock scope {scope!r}", hint="use BRANCH, RESOURCE_TYPE or RESOURCE") from None
    if chosen is LockScope.INDEX:
        raise InvalidConfig("an INDEX claim cannot be taken as a lock", hint="start a build, it takes its own claim")
    wanted = Target(chosen, resource_type, resource_id)
    check_target(wanted)
    return wanted


def check_target(wanted: Target) -> None:
    """Raise InvalidConfig unless exactly the names that the scope needs are given."""
    needs = {
        LockScope.BRANCH: (False, False, False),
        LockScope.RESOURCE_TYPE: (True, False, False),
        LockScope.RESOURCE: (True, True, False),
        LockScope.INDEX: (False, False, True),
    }[wanted.scope]
    given = (wanted.resource_type, wanted.resource_id, wanted.index_type)
    for name, value, needed in zip(("resource_type", "resource_id", "index_type"), given, needs, strict=True):
        if needed and not value:
            raise InvalidConfig(f"scope {wanted.scope} needs a {name}", hint=f"name the {name}, or use a wider scope")
        if not needed and value is not None:
            raise InvalidConfig(f"scope {wanted.scope} takes no {name}", hint=f"leave {name} out, or narrow the scope")


def overlaps(one: Target, other: Target) -> bool:
    """True if one contains the other; symmetric."""
    if LockScope.INDEX in (one.scope, other.scope):
        return one == other
    if LockScope.BRANCH in (one.scope, other.scope):
        return True
    if one.resource_type != other.resource_type:
        return False
    return LockScope.RESOURCE_TYPE in (one.scope, other.scope) or one.resource_id == other.resource_id


def check_duration(name: str, value: float, *, longest_s: float = DURATION_MAX_S, zero: bool = False) -> float:
    """The duration in seconds as a float. Raises InvalidConfig for anything not finite, not positive or too long."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidConfig(f"{name} must be a finite number of seconds, not {value!r}", hint="give seconds")
    if value < 0 or (value == 0 and not zero):
        raise InvalidConfig(f"{name} must be positive, not {value!r}", hint="give seconds greater than 0")
    if value > longest_s:
        raise InvalidConfig(
            f"{name} is {value:g} s, at most {longest_s:g} are allowed", hint="ask for less, extend later"
        )
    return float(value)
