"""The lock table against a naive model: random operations by several owners over every pair of scopes and ids."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from typing import TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shadowswitch.model.errors import InvalidConfig, LockConflict, LockLost
from shadowswitch.model.locks.records import Grant, Lock, LockRequest, LockTableState, ProgressReport
from shadowswitch.model.locks.step import Queued, Step
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import (
    BRANCH,
    DURATION_MAX_S,
    LockType,
    Target,
    index_target,
    overlaps,
    resource_target,
    type_target,
)
from tests.support.lock_helpers import STATUS, WALL
from tests.support.naive_locks import IDS, TYPES, Model, Waiting, excludes, points

T = TypeVar("T")
INDEXES, OWNERS = ("S", "G"), ("alice", "bob", "carol")
RECORDS = [(t, i) for t in TYPES for i in IDS]
TARGETS = [
    BRANCH,
    *map(type_target, TYPES),
    *(resource_target(t, i) for t, i in RECORDS),
    *map(index_target, INDEXES),
]
targets, owners = st.sampled_from(TARGETS), st.sampled_from(OWNERS)


@given(targets, targets)
def test_targets_overlap_exactly_when_they_share_a_point(one: Target, other: Target) -> None:
    assert overlaps(one, other) == overlaps(other, one) == bool(points(one) & points(other))


class LockTableAgainstNaiveModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.ids = 1000.0, 0
        self.real, self.model = LockTable("main", clock_id="boot"), Model()
        self.ever: list[tuple[str, int, str]] = []
        self.tokens_seen = 0

    def both(
        self, real: Callable[[], Step[LockTable, T]], model: Callable[[Model], bool], refusal: type[Exception]
    ) -> T | None:
        """Do an operation on both: both accept and change, or both refuse and stay unchanged."""
        draft = deepcopy(self.model)
        draft.settle(self.now)
        accepted = model(draft)
        try:
            step = real()
        except refusal:
            assert not accepted, "refused what the model accepts"
            return None
        assert accepted, "accepted what the model refuses"
        self.model, self.real = draft, step.table
        for event in step.events:
            if event.kind == "lock.granted" and event.lock is not None:
                assert event.lock.token > self.tokens_seen
                self.tokens_seen = event.lock.token
                self.ever.append((event.lock.lock_id, event.lock.token, event.lock.owner))
        return step.value

    def some_held(self, data: st.DataObject) -> tuple[str, int, str]:
        return data.draw(st.sampled_from(self.ever))

    @rule(dt=st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
    def time_passes(self, dt: float) -> None:
        self.now += dt

    @rule(
        data=st.data(),
        owner=owners,
        wanted=st.lists(targets, min_size=1, max_size=3),
        shared=st.booleans(),
        ttl_s=st.sampled_from([None, 2.0, 7.0]),
        heartbeat_s=st.sampled_from([None, None, 1.0]),
        wait_s=st.sampled_from([0.0, 2.0, 20.0]),
    )
    def acquire(
        self,
        data: st.DataObject,
        owner: str,
        wanted: list[Target],
        shared: bool,
        ttl_s: float | None,
        heartbeat_s: float | None,
        wait_s: float,
    ) -> None:
        under = data.draw(st.sets(st.sampled_from(self.ever), max_size=2)) if self.ever else set()
        requests = []
        for target in wanted:
            self.ids += 1
            lock_type = LockType.MIGRATION
            requests.append(LockRequest(f"l{self.ids}", lock_type, target, ttl_s, heartbeat_s, shared=shared))
        waiter_id = f"w{self.ids}"

        def model(m: Model) -> bool:
            opened = {i for i, token, _ in under if i in m.held and m.held[i].token == token}
            if len(opened) < len(under) or any(m.held[i].owner != owner for i in opened):
                return False
            exempt = frozenset(opened)
            if not m.in_the_way(requests, exempt, list(m.waiting.values())):
                m.grant(self.now, owner, requests, exempt)
                return True
            if wait_s:
                m.waiting[waiter_id] = Waiting(owner, requests, self.now + wait_s, exempt)
            return bool(wait_s)

        tokens = [token for _, token, _ in under]
        answer = self.both(
            lambda: self.real.acquire(
                self.now, WALL, requests, owner=owner, wait_s=wait_s, waiter_id=waiter_id, under=tokens
            ),
            model,
            (LockConflict, LockLost),  # type: ignore[arg-type]
        )
        assert answer is None or isinstance(answer, Grant) == (waiter_id not in self.model.waiting)
        assert not isinstance(answer, Queued) or answer.ahead < len(self.model.waiting)

    @precondition(lambda self: self.ever)
    @rule(data=st.data(), wrong=st.sampled_from([0, 0, 0, 1]))
    def release(self, data: st.DataObject, wrong: int) -> None:
        lock_id, token, _ = self.some_held(data)

        def model(m: Model) -> bool:
            if lock_id not in m.held or m.held[lock_id].token != token + wrong:
                return False
            del m.held[lock_id]
            m.serve(self.now)
            return True

        self.both(lambda: self.real.release(self.now, WALL, (lock_id, token + wrong)), model, LockLost)

    @precondition(lambda self: self.ever)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        lock_id, token, _ = self.some_held(data)

        def model(m: Model) -> bool:
            lock = m.held.get(lock_id)
            if lock is not None and lock.beat_s is not None:
                lock.beat_by = self.now + 3 * lock.beat_s
            return lock is not None

        report = ProgressReport(50)
        self.both(lambda: self.real.heartbeat(self.now, WALL, lock_id, token, report), model, LockLost)

    @precondition(lambda self: self.ever)
    @rule(data=st.data(), extra_s=st.sampled_from([1.0, 5.0, DURATION_MAX_S]))
    def extend(self, data: st.DataObject, extra_s: float) -> None:
        lock_id, token, _ = self.some_held(data)

        def model(m: Model) -> bool:
            lock = m.held.get(lock_id)
            if lock is None or lock.expires - lock.granted + extra_s > (60 if lock.shared else DURATION_MAX_S):
                return False
            lock.expires += extra_s
            return True

        self.both(
            lambda: self.real.extend(self.now, WALL, lock_id, token, extra_s),
            model,
            (LockLost, InvalidConfig),  # type: ignore[arg-type]
        )

    @rule()
    def sweep(self) -> None:
        self.both(lambda: self.real.expire_due(self.now, WALL), lambda m: True, LockLost)

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def drop_waiter(self, data: st.DataObject) -> None:
        waiter_id = data.draw(st.sampled_from(sorted(self.model.waiting)))

        def model(m: Model) -> bool:
            m.waiting.pop(waiter_id, None)
            m.serve(self.now)
            return True

        self.both(lambda: self.real.drop_waiter(self.now, WALL, waiter_id), model, LockLost)

    @rule(claims=st.booleans())
    def force_unlock(self, claims: bool) -> None:
        def model(m: Model) -> bool:
            m.held = {i: h for i, h in m.held.items() if not claims and any(p[0] == "index" for p in h.points)}
            m.serve(self.now)
            return True

        self.both(
            lambda: self.real.force_unlock(self.now, WALL, by="root", reason="test", claims=claims), model, LockLost
        )

    @rule(
        data=st.data(),
        keys=st.lists(st.sampled_from(RECORDS), min_size=1, max_size=3),
        owner=owners,
    )
    def check_write(self, data: st.DataObject, keys: list[tuple[str, str]], owner: str) -> None:
        mine = data.draw(st.sets(st.sampled_from(self.ever), max_size=2)) if self.ever else set()
        verdict: list[bool] = []

        def model(m: Model) -> bool:
            if any(i not in m.held or m.held[i].owner != owner for i, _, _ in mine):
                return False
            opened = {i for i, _, _ in mine}
            others = [h for i, h in m.held.items() if i not in opened and not h.shared]
            verdict.append(not any(key in h.points for key in keys for h in others))
            return True

        tokens = [token for _, token, _ in mine]
        answer = self.both(
            lambda: self.real.check_write(self.now, WALL, list(keys), status=STATUS, owner=owner, tokens=tokens),
            model,
            LockLost,
        )
        if answer is not None:
            assert answer.allowed == verdict[0] == (answer.blocked is None)

    @rule()
    def a_successor_resumes(self) -> None:
        state = msgspec.msgpack.encode(self.real.dump(self.now))
        self.real = LockTable.resume(msgspec.msgpack.decode(state, type=LockTableState))

    @rule(grace_s=st.sampled_from([0.0, 2.0]))
    def the_process_restarts(self, grace_s: float) -> None:
        state = msgspec.msgpack.encode(self.real.dump(self.now))
        decoded = msgspec.msgpack.decode(state, type=LockTableState)
        self.real = LockTable.load(decoded, self.now, grace_s, clock_id="boot")
        self.model.waiting = {}
        for lock in self.model.held.values():
            lock.beat_by = max(lock.beat_by, self.now + grace_s)

    @invariant()
    def both_hold_the_same(self) -> None:
        def row(lock: Lock) -> tuple[int, str, float, float]:
            inf = float("inf")
            expires = inf if lock.expires_at is None else lock.expires_at
            return lock.token, lock.owner, expires, inf if lock.heartbeat_by is None else lock.heartbeat_by

        model = {i: (h.token, h.owner, h.expires, h.beat_by) for i, h in self.model.held.items()}
        assert {i: row(lock) for i, lock in self.real.locks.items()} == model
        assert [w.waiter_id for w in self.real.waiters] == list(self.model.waiting)
        assert self.real.next_token == self.model.next_token

    @invariant()
    def overlapping_locks_are_held_only_one_under_the_other(self) -> None:
        held = sorted(self.model.held.items(), key=lambda item: item[1].token)
        for n, (earlier_id, earlier) in enumerate(held):
            for _, later in held[n + 1 :]:
                assert earlier_id in later.under or not excludes(earlier, later)

    @invariant()
    def the_next_due_time_is_the_earliest_of_all(self) -> None:
        dues = [min(h.expires, h.beat_by) for h in self.model.held.values()]
        dues += [w.deadline for w in self.model.waiting.values()]
        assert self.real.next_due() == (min(dues) if dues and min(dues) < float("inf") else None)


TestLockTable = LockTableAgainstNaiveModel.TestCase
TestLockTable.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(targets, st.floats(0.1, 50)), max_size=6), st.floats(0, 60), st.integers(-3600, 3600))
def test_an_expiry_leaves_the_same_locks_as_a_release(
    held: list[tuple[Target, float]], now: float, wall_jump_s: int
) -> None:
    table = LockTable("main")
    for n, (target, ttl_s) in enumerate(held):
        request = LockRequest(f"l{n}", LockType.MANUAL, target, ttl_s)
        try:
            table = table.acquire(0, WALL, [request], owner="alice").table
        except LockConflict:
            continue
    alive = [lock.lock_id for lock in table.live(now)]
    step = table.expire_due(now, WALL + timedelta(seconds=wall_jump_s))
    assert list(step.table.locks) == alive
    gone = [(lock.lock_id, lock.token) for lock in step.value]
    assert step.table.locks == table.release(0, WALL, *gone).table.locks
