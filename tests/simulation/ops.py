"""What clients of a simulation ask for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shadowswitch.model.locks.targets import LockScope, LockType, Target


@dataclass(eq=False, slots=True)
class Op:
    """One call of one client. Its number stands in the records that it writes and in the reason of its locks."""

    number: int
    client: str
    kind: str
    branch: str
    called: float
    troubles: int
    targets: tuple[Target, ...] = ()
    lock_type: LockType = LockType.MANUAL
    tokens: tuple[int, ...] = ()
    lock_id: str = ""
    wait_s: float = 0.0
    ttl_s: float | None = None
    heartbeat_s: float | None = None
    extra_s: float = 0.0
    min_lsn: int = 0
    """A read must show at least this much: what it asks for, and what reads showed that ended before it."""
    over: bool = False
    """It was answered, or the process died before it could be."""
    ended: float = 0.0
    result: Any = None
    error: Exception | None = None
    refused: bool = False
    """The answer says that nothing was or will be done."""
    lsns: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = ", ".join(str(target) for target in self.targets)
        more = f" under {list(self.tokens)}" if self.tokens else ""
        more += f" for {self.ttl_s:g} s" if self.ttl_s is not None else ""
        more += f" with a heartbeat each {self.heartbeat_s:g} s" if self.heartbeat_s is not None else ""
        more += f" within {self.wait_s:g} s" if self.wait_s else ""
        return f"{self.client}: #{self.number} {self.kind} {self.branch} {what}{more}"

    def outcome(self) -> str:
        """For the trace."""
        if self.error is not None:
            return f"{self.client}: #{self.number} {type(self.error).__name__}: {self.error}"
        found = self.result if isinstance(self.result, list) else [self.result]
        tokens = [one.token for one in found if getattr(one, "token", 0)]
        shown = f"token {tokens}" if tokens else getattr(self.result, "lsn", "")
        return f"{self.client}: #{self.number} done {shown}"


def number_of(reason: str) -> int:
    """The operation that a lock's reason names."""
    return int(reason.removeprefix("#"))


def overlap(one: Target, other: Target) -> bool:
    """Written again, and differently, from what docs/locks.md says."""
    if one.scope is LockScope.INDEX or other.scope is LockScope.INDEX:
        return one.index_type == other.index_type
    for mine, theirs in ((one.resource_type, other.resource_type), (one.resource_id, other.resource_id)):
        if mine is None or theirs is None:
            return True
        if mine != theirs:
            return False
    return True
