"""The checker, on histories with a known verdict: a register, and locks."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

from tests.linearizability.checker import Call, linearizable
from tests.linearizability.spec import Held, State, What, step

Register = tuple[str, int]


def register(state: int, what: Register) -> int | None:
    """Writes always succeed; a read gives the last written value."""
    kind, value = what
    if kind == "write":
        return value
    return state if state == value else None


def history(*calls: tuple[float, float, str, int]) -> list[Call]:
    return [Call(begun, ended, (kind, value)) for begun, ended, kind, value in calls]


RIGHT = {
    "nothing": history(),
    "one after the other": history((0, 1, "write", 1), (2, 3, "read", 1), (4, 5, "write", 2), (6, 7, "read", 2)),
    "a read beside a write may see the old": history((0, 9, "write", 1), (1, 2, "read", 0), (3, 4, "read", 1)),
    "writes at the same time may come in either order": history(
        (0, 9, "write", 1), (0, 9, "write", 2), (10, 11, "read", 1), (12, 13, "read", 1)
    ),
    "a write without an answer may have happened": history((0, math.inf, "write", 1), (5, 6, "read", 1)),
    "a write without an answer may happen late": history(
        (0, math.inf, "write", 1), (5, 6, "read", 0), (7, 8, "read", 1)
    ),
    "a write without an answer may never happen": history((0, math.inf, "write", 1), (5, 6, "read", 0)),
    "the first choice is wrong, and undone": history(
        (0, 9, "write", 1), (0, 9, "write", 2), (0, 9, "write", 3), (1, 9, "read", 3), (1, 9, "read", 1),
        (10, 11, "read", 2),
    ),
}  # fmt: skip
WRONG = {
    "a stale read": history((0, 1, "write", 1), (2, 3, "write", 2), (4, 5, "read", 1)),
    "back in time": history((0, 9, "write", 1), (1, 2, "read", 1), (3, 4, "read", 0)),
    "two readers see two orders": history(
        (0, 9, "write", 1), (0, 9, "write", 2), (10, 11, "read", 1), (12, 13, "read", 2)
    ),
    "a value that was never written": history((0, 1, "write", 1), (0, 1, "read", 7)),
    "an effect before its call": history((0, 1, "read", 1), (2, math.inf, "write", 1)),
    "an effect that is undone again": history((0, math.inf, "write", 1), (1, 2, "read", 1), (3, 4, "read", 0)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_linearizable_history_is_accepted(name: str) -> None:
    assert linearizable(RIGHT[name], 0, register)


@pytest.mark.parametrize("name", WRONG)
def test_a_history_that_is_not_linearizable_is_rejected(name: str) -> None:
    assert not linearizable(WRONG[name], 0, register)


def by_trying_all(calls: list[Call]) -> bool:
    """By definition: an order gives the answers, and no call in it precedes a call that ended before it began."""
    for order in itertools.permutations(calls):
        keeps_time = all(not later.ended < one.begun for n, one in enumerate(order) for later in order[n + 1 :])
        state: int | None = 0
        for call in order:
            state = register(state, call.what) if state is not None else None
        if keeps_time and state is not None:
            return True
    return False


def test_the_checker_agrees_with_trying_every_order() -> None:
    chance, verdicts = random.Random(7), {True: 0, False: 0}
    for _ in range(300):
        calls = []
        for _ in range(chance.randrange(2, 6)):
            begun = chance.randrange(10)
            what = (chance.choice(("write", "read")), chance.randrange(3))
            calls.append(Call(begun, begun + chance.randrange(1, 6) + 0.5, what))
        expected = by_trying_all(calls)
        assert linearizable(calls, 0, register) is expected, calls
        verdicts[expected] += 1
    assert min(verdicts.values()) > 30


def lock(begun: float, ended: float, kind: str, owner: str, *answer: Any, **more: Any) -> Call:
    return Call(begun, ended, What(kind, owner, answer, **more))


GRANT = lock(0, 1, "acquire", "alice", "granted", "id", 1, target=("object_type",))
RECORD = ("object_type", "1")


@pytest.mark.parametrize(
    "then",
    [
        lock(2, 3, "acquire", "bob", "granted", "id2", 2, target=("link_type",)),
        lock(2, 3, "acquire", "bob", "conflict", "LOCK", "id", target=RECORD, blocker=1),
        lock(2, 3, "write", "bob", "blocked", "LOCK", "id", target=RECORD, blocker=1),
        lock(2, 3, "write", "alice", "lsn", 5, target=RECORD, token=1),
        lock(0, 3, "write", "bob", "lsn", 5, target=RECORD),
        lock(2, 3, "release", "bob", "lost", token=1),
        lock(2, 3, "force", "root", "forced", [1]),
    ],
)
def test_a_call_that_a_lock_allows_is_accepted(then: Call) -> None:
    assert linearizable([GRANT, then], State(), step)


@pytest.mark.parametrize(
    "then",
    [
        lock(2, 3, "acquire", "bob", "granted", "id2", 2, target=()),
        lock(2, 3, "acquire", "bob", "granted", "id2", 2, target=RECORD),
        lock(2, 3, "acquire", "bob", "granted", "id2", 1, target=("link_type",)),
        lock(2, 3, "write", "bob", "lsn", 5, target=RECORD),
        lock(2, 3, "write", "bob", "lsn", 5, target=RECORD, token=1),
        lock(2, 3, "write", "alice", "lost", target=RECORD, token=1),
        lock(2, 3, "write", "bob", "blocked", "LOCK", "id9", target=RECORD, blocker=9),
        lock(2, 3, "check", "bob", "allowed", target=RECORD),
        lock(2, 3, "release", "alice", "lost", token=1),
        lock(2, 3, "release", "bob", "ok", token=1),
        lock(2, 3, "force", "root", "forced", []),
        lock(2, 3, "head", "bob", "head", 1),
    ],
)
def test_a_call_that_a_lock_excludes_is_rejected(then: Call) -> None:
    assert not linearizable([GRANT, then], State(), step)


def test_a_lock_ends_when_it_expires_and_not_before() -> None:
    expiry = lock(10, 11, "expire", "alice", token=1)
    for begun, ended, right in ((2, 3, False), (2, 12, True), (12, 13, True)):
        write = lock(begun, ended, "write", "bob", "lsn", 5, target=RECORD)
        assert linearizable([GRANT, expiry, write], State(), step) is right
    late = lock(12, 13, "write", "alice", "lsn", 5, target=RECORD, token=1)
    assert not linearizable([GRANT, expiry, late], State(), step)


def test_a_state_is_the_result_of_its_calls() -> None:
    after = step(State(), GRANT.what)
    assert after == State(frozenset({Held(1, "alice", ("object_type",))}), 1, 0)
