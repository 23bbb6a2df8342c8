"""A branch as clients see it, one call at a time: the locks and the head after each answer."""

from __future__ import annotations

from typing import Any, NamedTuple

Target = tuple[str, ...]
"""() is the branch, (type,) a resource type, (type, id) a record; the shorter contains the longer."""


class Held(NamedTuple):
    """A lock that is held."""

    token: int
    owner: str
    target: Target


class State(NamedTuple):
    """A branch at one moment."""

    locks: frozenset[Held] = frozenset()
    last_token: int = 0
    head: int = 0


class What(NamedTuple):
    """A call and its answer; see `perform` for the answers. `token` is the token of the released or used lock."""

    kind: str
    owner: str
    answer: tuple[Any, ...]
    target: Target = ()
    token: int = 0
    blocker: int = 0
    """The token of the lock that a refusal names; 0 when it names none."""


def overlap(one: Target, other: Target) -> bool:
    """Whether one contains the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def step(state: State, what: What) -> State | None:
    """The state after a call, or None when the answer was not possible."""
    mine = next((lock for lock in state.locks if lock.token == what.token and lock.owner == what.owner), None)
    return STEPS[what.kind](state, what, mine)


def _acquire(state: State, what: What, _: Held | None) -> State | None:
    if what.answer[0] == "conflict":
        return state if _refused(state, what) else None
    token = what.answer[2]
    if token <= state.last_token or any(overlap(lock.target, what.target) for lock in state.locks):
        return None
    return state._replace(locks=state.locks | {Held(token, what.owner, what.target)}, last_token=token)


def _refused(state: State, what: What) -> bool:
    if what.answer[1] == "QUEUE":
        return True  # waiters are not part of the state
    others = [lock for lock in state.locks if lock.token != what.token and overlap(lock.target, what.target)]
    return any(what.blocker in (0, lock.token) for lock in others)


def _release(state: State, what: What, mine: Held | None) -> State | None:
    if what.answer[0] == "lost":
        return state if mine is None else None
    return None if mine is None else state._replace(locks=state.locks - {mine})


def _heartbeat(state: State, what: What, mine: Held | None) -> State | None:
    return state if (what.answer[0] == "lost") == (mine is None) else None


def _write(state: State, what: What, mine: Held | None) -> State | None:
    lost = what.token != 0 and mine is None
    if what.answer[0] == "lost":
        return state if lost else None
    if what.answer[0] == "blocked":
        return state if not lost and _refused(state, what) else None
    if lost or any(lock is not mine and overlap(lock.target, what.target) for lock in state.locks):
        return None
    if what.kind == "check":
        return state
    lsn = what.answer[1]
    return state._replace(head=lsn) if lsn > state.head else None


def _head(state: State, what: What, _: Held | None) -> State | None:
    return state if what.answer[1] == state.head else None


def _force(state: State, what: What, _: Held | None) -> State | None:
    return State(frozenset(), *state[1:]) if {lock.token for lock in state.locks} == set(what.answer[1]) else None


def _expire(state: State, what: What, mine: Held | None) -> State:
    return state if mine is None else state._replace(locks=state.locks - {mine})


STEPS = {
    "acquire": _acquire,
    "release": _release,
    "heartbeat": _heartbeat,
    "write": _write,
    "check": _write,
    "head": _head,
    "force": _force,
    "expire": _expire,
}
