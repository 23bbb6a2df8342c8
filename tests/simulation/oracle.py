"""The invariants at every step of a simulation, judged from outside.

The oracle sees every transaction in its order (`wrote`, `stored`, then `committed`), every call with its times, and the
tables in memory. It judges locks only by docs/locks.md. Deadlines are kept as bounds: a lock lives at least until
`surely_until`, and at most until `at_most_until`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from shadowswitch import Engine
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.model.errors import LockConflict, LockLost, Timeout, WriteBlocked
from shadowswitch.model.locks.records import Lock, LockEvent, LockEventKind
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, DEFAULT_TTL_S, LockType, resource_target
from shadowswitch.storage.catalog.locks import LocksRow
from tests.simulation.host import GRACE_S
from tests.simulation.ops import Op, number_of, overlap
from tests.simulation.world import Violation, World
from tests.support import inside
from tests.support.interventions import resumed_at

MOVES = {
    ("ACTIVE", "LOCKED_FOR_WRITE"), ("READY", "LOCKED_FOR_WRITE"), ("ERROR", "LOCKED_FOR_WRITE"),
    ("LOCKED_FOR_WRITE", "ACTIVE"), ("ACTIVE", "READY"), ("LOCKED_FOR_WRITE", "READY"), ("ACTIVE", "ERROR"),
    ("LOCKED_FOR_WRITE", "ERROR"), ("READY", "ERROR"), ("ERROR", "ACTIVE"), ("READY", "ACTIVE"), ("MERGED", "ACTIVE"),
    ("READY", "MERGED"), ("ACTIVE", "ARCHIVED"), ("READY", "ARCHIVED"), ("MERGED", "ARCHIVED"), ("ERROR", "ARCHIVED"),
}  # fmt: skip
CLOSED = {"MERGED", "ARCHIVED", "ERROR"}


@dataclass(eq=False, slots=True)
class Fact:
    """A lock that was granted durably, and the bounds of its lifetime."""

    lock: Lock
    op: Op
    granted: float
    surely_until: float
    at_most_until: float
    alive_surely: float
    """The same bounds by heartbeats; infinite for a lock without heartbeats."""
    alive_at_most: float
    ended: float = math.inf

    def over_before(self, moment: float, forgiven_until: float) -> bool:
        alive = max(self.alive_at_most, forgiven_until)
        return self.ended < moment or min(self.at_most_until, alive) < moment

    def surely_lives(self, moment: float) -> bool:
        return self.ended > moment and min(self.surely_until, self.alive_surely) > moment


class Branch:
    """The knowledge of the oracle about one branch."""

    def __init__(self) -> None:
        self.row: LocksRow | None = None
        self.facts: dict[int, Fact] = {}
        self.last_token = 0
        self.last_lsn = 0
        self.open_since = -math.inf

    @property
    def state(self) -> str:
        return str(self.row.status.state) if self.row is not None else "ACTIVE"


class Oracle:
    """Judges one run."""

    def __init__(self, world: World, branches: dict[str, int]) -> None:
        self.world = world
        self.ops: list[Op] = []
        self.engine: Engine | None = None
        self._queued: set[int] = set()
        self.branches = {number: Branch() for number in branches.values()}
        self.numbers = branches
        self.violation: Violation | None = None
        self.pending = 0
        """The number of calls without an answer yet."""
        self.counts: Counter[str] = Counter()
        """How often each kind of event happened, by its name."""
        self._inside: list[tuple[float, int, Any]] = []
        self._seen: dict[int, Any] = {}

    def of(self, op: Op) -> Branch:
        return self.branches[self.numbers[op.branch]]

    def fail(self, invariant: str, what: str) -> None:
        """Keep the first violation. The handler that runs would catch an exception."""
        self.violation = self.violation or Violation(f"{invariant}: {what}")

    # -- transactions, in their order ------------------------------------------------------------------------------

    def begun(self) -> None:
        """A transaction begins; everything before it that is not committed has no effect."""
        self._inside.clear()

    def wrote(self, branch: int, batch: Any, lsn: int) -> None:
        """A batch in the present transaction."""
        self._inside.append((self.world.now, branch, (batch, lsn)))

    def stored(self, row: LocksRow, events: Iterable[LockEvent]) -> None:
        """A lock table in the present transaction."""
        self._inside.append((self.world.now, row.branch, (row, tuple(events))))

    def put(self, row: Any) -> None:
        """Another row in the present transaction."""

    def put_branch(self, row: Any) -> None:
        """A branch in the present transaction."""

    def pointed(self, index: LiveIndex, before: Any) -> None:
        """The live pointer of an index moved from a generation (or none) to another (or none)."""

    def applied(self, number: int, in_time: bool) -> None:
        """A switch or a validation applied to a generation up to an LSN, or did not reach it in time."""

    def committed(self) -> None:
        """The present transaction is durable."""
        inside, self._inside = self._inside, []
        for at, number, (what, more) in inside:
            if isinstance(what, LocksRow):
                self._locks_committed(at, self.branches[number], what, more)
            else:
                self._write_committed(at, self.branches[number], what, more)

    def _write_committed(self, at: float, branch: Branch, batch: Any, lsn: int) -> None:
        op = self.ops[msgspec.msgpack.decode(batch.changes[0].fields)["op"]]
        self.world.note("commit of #%d at LSN %d", op.number, lsn)
        if op.refused or op.lsns:
            self.fail("ST-5", f"{op} was {'refused' if op.refused else 'committed'} and is committed now")
        if lsn <= branch.last_lsn:
            self.fail("ST-1", f"{op} got LSN {lsn} after {branch.last_lsn}")
        branch.last_lsn, op.lsns = lsn, (lsn,)
        self.counts["writes under a lock"] += bool(op.tokens)
        if branch.state in CLOSED:
            self.fail("LK-3", f"{op} was committed while the branch is {branch.state}")
        for token in op.tokens:
            fact = branch.facts.get(token)
            if fact is None or fact.over_before(at, self.forgiven_until) or fact.op.client != op.client:
                self.fail("LK-3", f"{op} was committed with the stale token {token}")
        for token, fact in branch.facts.items():
            foreign = token not in op.tokens and not fact.lock.shared and fact.surely_lives(at)
            if foreign and any(overlap(fact.lock.target, target) for target in op.targets):
                self.fail("LK-1", f"{op} was committed under the lock {token} of {fact.op}")

    def _locks_committed(self, at: float, branch: Branch, row: LocksRow, events: tuple[LockEvent, ...]) -> None:
        before = branch.state
        branch.row = row
        self.world.note(
            "commit of locks, revision %d: %s; %s", row.revision, [f"{e.kind} {_of(e)}" for e in events], branch.state
        )
        for event in events:
            self.counts[str(event.kind)] += 1
            if event.lock is not None:
                self._lock_event(at, branch, event.kind, event.lock)
        self._check_state(before, branch, row)
        self._check_exclusion(branch, row)
        for event in events:
            if event.kind is LockEventKind.GRANTED and event.lock is not None:
                self._check_turn(event.lock, row)

    def _lock_event(self, at: float, branch: Branch, kind: LockEventKind, lock: Lock) -> None:
        fact = branch.facts.get(lock.token)
        if kind is LockEventKind.GRANTED:
            if lock.token <= branch.last_token:
                self.fail("LK-2", f"token {lock.token} was granted after {branch.last_token}")
            branch.last_token = lock.token
            branch.facts[lock.token] = self._new_fact(lock)
            self.counts["locks that were waited for"] += branch.facts[lock.token].op.number in self._queued
            return
        if fact is None or fact.ended < at:
            self.fail("LK-2", f"{kind} of lock {lock.token}, which is not held")
            return
        if kind is not LockEventKind.EXTENDED:
            if kind is LockEventKind.EXPIRED and fact.surely_lives(at):
                self.fail("LK-3", f"lock {lock.token} expired at {at}, it lives until {fact.surely_until} at least")
            fact.ended = at

    def _new_fact(self, lock: Lock) -> Fact:
        op = self._asked(lock)
        granted = lock.granted_at + self.world.booted
        if not op.called <= granted <= self.world.now:
            self.fail("LK-2", f"{op} was granted at {granted}")
        ttl_s = op.ttl_s if op.ttl_s is not None else DEFAULT_TTL_S[op.lock_type]
        beat = 3 * op.heartbeat_s if op.heartbeat_s is not None else math.inf
        return Fact(lock, op, granted, granted + ttl_s, granted + ttl_s, granted + beat, granted + beat)

    def _asked(self, lock: Lock) -> Op:
        """The operation that acquired a lock."""
        if lock.reason == "write lease":
            return next(op for op in reversed(self.ops) if op.client == lock.owner and op.kind == "lease")
        return self.ops[number_of(lock.reason)]

    def _check_state(self, before: str, branch: Branch, row: LocksRow) -> None:
        after = branch.state
        if after != before:
            between = {b for a, b in MOVES if a == before and (b, after) in MOVES}
            if (before, after) not in MOVES and not between:
                self.fail("ST-4", f"the branch went from {before} to {after}")
            if after in CLOSED:
                branch.open_since = math.inf
            elif before in CLOSED:
                branch.open_since = self.world.now
            if after in ("ARCHIVED", "MERGED") and row.table.locks:
                self.fail(
                    "LK-3", f"the branch became {after} under locks of {[lock.owner for lock in row.table.locks]}"
                )
        locks = [lock for lock in row.table.locks if lock.lock_type is LockType.INDEXING and not lock.shared]
        whole = any(lock.target == BRANCH for lock in locks)
        if whole != (after == "LOCKED_FOR_WRITE") and after not in CLOSED:
            self.fail("ST-4", f"the branch is {after}; is an indexing lock of all of it held: {whole}")

    def _check_exclusion(self, branch: Branch, row: LocksRow) -> None:
        locks = sorted(row.table.locks, key=lambda lock: lock.token)
        for number, earlier in enumerate(locks):
            for later in locks[number + 1 :]:
                if (earlier.shared and later.shared) or not overlap(earlier.target, later.target):
                    continue
                one, other = branch.facts[earlier.token].op, branch.facts[later.token].op
                if one is not other and not (one.client == other.client and earlier.token in other.tokens):
                    self.fail("LK-1", f"locks {earlier.token} ({one}) and {later.token} ({other}) are held together")

    def _check_turn(self, lock: Lock, row: LocksRow) -> None:
        op = self._asked(lock)
        for waiter in row.table.waiters:
            earlier = self.ops[number_of(waiter.requests[0].reason)]
            wanted = [request.target for request in waiter.requests]
            clash = any(overlap(mine, theirs) for mine in op.targets for theirs in wanted)
            if clash and earlier.number < op.number and not op.tokens:
                self.fail("LK-4", f"{op} was served before {earlier}")

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(self, op: Op) -> None:
        """A client calls."""
        self.world.note("%s", op)
        self.ops.append(op)
        self.pending += 1
        fact = self._fact(op)
        if fact is not None and op.kind == "heartbeat":
            fact.alive_at_most = math.inf
        elif fact is not None and op.kind == "extend":
            fact.at_most_until += op.extra_s

    def acknowledged(self, branch: str) -> int:
        """The LSN of the newest acknowledged write of a branch; 0 if there is none."""
        return max(
            (op.result.lsn for op in self.ops if op.branch == branch and op.kind == "write" and op.result), default=0
        )

    def _fact(self, op: Op) -> Fact | None:
        token = op.tokens[0] if op.tokens and op.lock_id else 0
        fact = self.of(op).facts.get(token)
        return fact if fact is not None and fact.lock.lock_id == op.lock_id else None

    def answer(self, op: Op) -> None:
        """The call ended, or its process died."""
        op.over, op.ended = True, self.world.now
        self.pending -= 1
        fact = self._fact(op)
        if fact is not None and op.kind == "heartbeat" and fact.op.heartbeat_s is not None:
            fact.alive_at_most = op.ended + 3 * fact.op.heartbeat_s
            if op.error is None and op.result is not None:
                fact.alive_surely = max(fact.alive_surely, op.called + 3 * fact.op.heartbeat_s)
        if fact is not None and op.kind == "extend" and op.error is None and op.result is not None:
            fact.surely_until += op.extra_s
        self.world.note("%s", op.outcome())
        if op.error is not None:
            self.counts[f"{op.kind}: {type(op.error).__name__}"] += 1
            self._refused(op, op.error)
        elif op.result is not None:
            self._done(op, fact)

    def _done(self, op: Op, fact: Fact | None) -> None:
        if op.kind == "write" and op.lsns != (op.result.lsn,):
            self.fail("ST-5", f"{op} was acknowledged at LSN {op.result.lsn}, committed at {op.lsns}")
        for lock in op.result if op.kind in ("acquire", "lease", "index") else ():
            granted = self.of(op).facts.get(lock.token)
            if granted is None or granted.op is not op:
                self.fail("LK-2", f"{op} was given token {lock.token}, which is not stored")
        if op.kind in ("heartbeat", "extend", "release", "confirm") and (
            fact is None or fact.over_before(op.called, self.forgiven_until)
        ):
            self.fail("LK-3", f"{op} was let through after its lock was over")
        if op.kind == "release" and (fact is None or fact.ended > op.ended):
            self.fail("LK-3", f"{op} was acknowledged and not stored")

    def _refused(self, op: Op, error: Exception) -> None:
        op.refused = not isinstance(error, Timeout) or "not begun" in str(error)
        if op.refused and op.lsns:
            self.fail("ST-5", f"{op} was refused ({error}) and committed at {op.lsns}")
        smooth = self.world.troubles == op.troubles and not self.world.broken
        if isinstance(error, Timeout) and smooth and not self._just_freed(op) and op.kind != "built":
            self.fail("LK-6", f"{op} ended in a timeout although nothing went wrong: {error}")
        if isinstance(error, WriteBlocked | LockConflict):
            self._blocked(op, error)
        if isinstance(error, LockLost):
            held = [self.of(op).facts.get(token) for token in op.tokens]
            if all(fact is not None and fact.op.client == op.client and fact.surely_lives(op.ended) for fact in held):
                self.fail("LK-3", f"{op} was refused although its locks are held: {error}")

    def _just_freed(self, op: Op) -> bool:
        """Did the targets of a waiting caller become free only at its deadline: a lock ended, a waiter left?"""
        deadline = op.called + op.wait_s
        late = [fact.op for fact in self.of(op).facts.values() if fact.ended >= deadline]
        late += [other for other in self.ops if other.wait_s and not (other.over and other.ended < deadline)]
        others = [other for other in late if other is not op and other.branch == op.branch]
        clash = any(overlap(target, wanted) for other in others for target in other.targets for wanted in op.targets)
        return op.wait_s > 0 and clash

    def _blocked(self, op: Op, error: WriteBlocked | LockConflict) -> None:
        blocked: Any = error.blocked
        branch = self.of(op)
        if blocked.cause == "STATE":
            if branch.open_since < op.called:
                self.fail("LK-3", f"{op} was refused although the branch was open: {error}")
            return
        if op.wait_s and self.world.now < op.called + op.wait_s:
            self.fail("LK-6", f"{op} gave up early: {error}")
        if blocked.cause == "LOCK":
            fact = next((f for f in branch.facts.values() if f.lock.lock_id == blocked.lock_id), None)
            if fact is None or fact.over_before(op.called, self.forgiven_until):
                self.fail("LK-3", f"{op} was refused for a lock that was over: {error}")

    # -- the process -----------------------------------------------------------------------------------------------

    def died(self) -> None:
        """The process of the engine died: no call that waits gets an answer."""
        self._inside.clear()
        self._seen.clear()
        for op in self.ops:
            if not op.over:
                self.answer(op)

    @property
    def forgiven_until(self) -> float:
        """The engine that is open now forgives missed heartbeats until then: the machine stood still before."""
        return resumed_at(self.engine) + self.world.booted + GRACE_S if self.engine is not None else -math.inf

    def reopened(self) -> None:
        """The engine is open again: each holder has the grace interval for its next heartbeat.

        After a reboot the time that passed is unknown: a lock has as much time left as when it was stored.
        """
        now = self.world.now
        for branch in self.branches.values():
            rebooted = branch.row is not None and branch.row.table.clock_id != self.world.boot
            for fact in branch.facts.values():
                fact.alive_surely = min(fact.alive_surely, now + GRACE_S) if fact.alive_surely < math.inf else math.inf
                fact.alive_at_most = max(fact.alive_at_most, now + GRACE_S)
                if rebooted:
                    fact.at_most_until = now + max(fact.at_most_until - fact.granted, GRACE_S)

    def look(self, engine: Engine) -> None:
        """After each step: memory and disk agree, and every waiter has something in its way."""
        for locks in inside.branch_locks(engine):
            number, held = locks.row.number, locks.held
            if self._seen.get(number) is held or inside.locks_in_doubt(locks):
                continue
            self._seen[number] = held
            row = self.branches[number].row
            revision = row.revision if row is not None else 0
            if held.revision != revision:
                self.fail("ST-4", f"branch {number} has revision {held.revision} in memory, {revision} on disk")
            stored = {lock.lock_id: lock.token for lock in row.table.locks} if row is not None else {}
            if {lock_id: lock.token for lock_id, lock in held.table.locks.items()} != stored:
                self.fail("ST-4", f"branch {number} holds other locks in memory than on disk")
            self._check_waiters(held.table)

    def _check_waiters(self, table: LockTable) -> None:
        ahead: list[Any] = []
        for waiter in table.waiters:
            targets = [request.target for request in waiter.requests]
            in_the_way = [lock.target for lock in table.locks.values() if lock.lock_id not in waiter.under]
            in_the_way += [request.target for other in ahead for request in other.requests]
            if not waiter.under and not any(overlap(a, b) for a in targets for b in in_the_way):
                self.fail("LK-6", f"{waiter.owner} waits for {targets[0]} although nothing is in the way")
            ahead.append(waiter)
            self._queued.add(number_of(waiter.requests[0].reason))


def keys_of(records: Iterable[tuple[str, str]]) -> tuple[Any, ...]:
    """The targets of a write."""
    return tuple(resource_target(resource_type, id) for resource_type, id in records)


def _of(event: LockEvent) -> str:
    lock = event.lock
    return f"{lock.owner} {lock.token} of {lock.target}" if lock is not None else ""
