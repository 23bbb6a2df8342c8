"""The held locks by target: the cost of admitting a write does not depend on the number of locks."""

from __future__ import annotations

from collections.abc import Iterable

from shadowswitch.model.locks.records import Lock
from shadowswitch.model.locks.targets import LockScope, Target


class LockIndex:
    """The ids of the held locks by target. Built once for a set of locks, then only read."""

    __slots__ = ("_branch", "_claims", "_in_type", "_resources", "_types", "_whole")

    def __init__(self, locks: Iterable[Lock]) -> None:
        self._whole: list[str] = []
        self._branch: list[str] = []
        self._types: dict[str | None, list[str]] = {}
        self._in_type: dict[str | None, list[str]] = {}
        self._resources: dict[tuple[str | None, str | None], list[str]] = {}
        self._claims: dict[str | None, list[str]] = {}
        for lock in locks:
            self._add(lock.lock_id, lock.target)

    def _add(self, lock_id: str, target: Target) -> None:
        if target.scope is LockScope.INDEX:
            self._claims.setdefault(target.index_type, []).append(lock_id)
            return
        self._whole.append(lock_id)
        if target.scope is LockScope.BRANCH:
            self._branch.append(lock_id)
            return
        self._in_type.setdefault(target.resource_type, []).append(lock_id)
        if target.scope is LockScope.RESOURCE_TYPE:
            self._types.setdefault(target.resource_type, []).append(lock_id)
        else:
            self._resources.setdefault((target.resource_type, target.resource_id), []).append(lock_id)

    def overlapping(self, target: Target) -> list[str]:
        """The ids of the locks whose targets overlap this one: the widest first, then in order of grant."""
        match target.scope:
            case LockScope.INDEX:
                return self._claims.get(target.index_type, [])
            case LockScope.BRANCH:
                return self._branch + [i for i in self._whole if i not in self._branch]
            case LockScope.RESOURCE_TYPE:
                inside = self._in_type.get(target.resource_type, [])
                wide = self._types.get(target.resource_type, [])
                return self._branch + wide + [i for i in inside if i not in wide]
            case LockScope.RESOURCE:
                return (
                    self._branch
                    + self._types.get(target.resource_type, [])
                    + self._resources.get((target.resource_type, target.resource_id), [])
                )
