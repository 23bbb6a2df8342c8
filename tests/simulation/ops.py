"""The operations of clients in a simulation, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shadowswitch.model.locks.targets import LockScope, LockType, Target


@dataclass(eq=False, slots=True)
class Op:
    """One call of one client. The records that it writes and the reason of its locks have its number."""

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
    source: str = ""
    """The fork that is merged into `branch`."""
    way: str = ""
    """What settles the conflicts of a merge or a rebase."""
    min_lsn: int = 0
    """A read must show this LSN: the LSN that it asks for, and the LSN of every read that ended before it."""
    over: bool = False
    """The call was answered, or the process died before."""
    ended: float = 0.0
    result: Any = None
    error: Exception | None = None
    refused: bool = False
    """The answer says that the operation has and will have no effect."""
    lsns: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = ", ".join(str(target) for target in self.targets)
        more = f" under {list(self.tokens)}" if self.tokens else ""
        more += f" for {self.ttl_s:g} s" if self.ttl_s is not None else ""
        more += f" with a heartbeat each {self.heartbeat_s:g} s" if self.heartbeat_s is not None else ""
        more += f" within {self.wait_s:g} s" if self.wait_s else ""
        return f"{self.client}: #{self.number} {self.kind} {self.branch} {what}{more}"

    def outcome(self) -> str:
        """The outcome, as text for the trace."""
        if self.error is not None:
            return f"{self.client}: #{self.number} {type(self.error).__name__}: {self.error}"
        found = self.result if isinstance(self.result, list) else [self.result]
        tokens = [one.token for one in found if getattr(one, "token", 0)]
        shown = f"token {tokens}" if tokens else getattr(self.result, "lsn", "")
        return f"{self.client}: #{self.number} done {shown}"


def number_of(reason: str) -> int:
    """The number of the operation, from the reason of its lock."""
    return int(reason.removeprefix("#"))


def overlap(one: Target, other: Target) -> bool:
    """Do two targets overlap? Written from docs/locks.md, and not as the product does it."""
    if one.scope is LockScope.INDEX or other.scope is LockScope.INDEX:
        return one.index_type == other.index_type
    for mine, theirs in ((one.resource_type, other.resource_type), (one.resource_id, other.resource_id)):
        if mine is None or theirs is None:
            return True
        if mine != theirs:
            return False
    return True
