"""Is a history of concurrent calls linearizable? The algorithm of Wing and Gong, with Lowe's memoisation.

J. M. Wing, C. Gong: Testing and verifying concurrent objects, J. Parallel Distrib. Comput. 17 (1993). G. Lowe: Testing
for linearizability, Concurrency Computat. Pract. Exper. 29 (2017). A. Horn, D. Kroening: Faster linearizability
checking via P-compositionality, FORTE 2015; the linked list of calls and returns comes from that paper.

A history is linearizable when each call has a moment between its beginning and its end such that the calls, done one
after the other at these moments, give the recorded answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Call:
    """One call with its beginning and its end, on one clock for all calls.

    A call without an answer ends at infinity: it may have happened at any time since its beginning, or never.
    """

    begun: float
    ended: float
    what: Any

    @property
    def answered(self) -> bool:
        return self.ended < math.inf


class _Entry:
    """The beginning or the end of a call in the linked list of the checker."""

    __slots__ = ("bit", "call", "end", "following", "previous")

    def __init__(self, call: Call | None, bit: int) -> None:
        self.call = call
        self.bit = bit
        self.end: _Entry | None = None
        self.previous: _Entry | None = None
        self.following: _Entry | None = None

    def lift(self) -> None:
        """Take a call, beginning and end, out of the list."""
        for entry in (self, self.end):
            if entry is not None and entry.previous is not None:
                entry.previous.following = entry.following
                if entry.following is not None:
                    entry.following.previous = entry.previous

    def put_back(self) -> None:
        """Undo `lift`; the latest call first."""
        for entry in (self.end, self):
            if entry is not None and entry.previous is not None:
                entry.previous.following = entry
                if entry.following is not None:
                    entry.following.previous = entry


def _list_of(history: Iterable[Call]) -> _Entry:
    ends: list[tuple[float, int, int, _Entry]] = []
    for number, call in enumerate(history):
        begin = _Entry(call, 1 << number)
        ends.append((call.begun, 0, number, begin))
        if call.answered:
            begin.end = _Entry(None, 1 << number)
            ends.append((call.ended, 1, number, begin.end))
    head = last = _Entry(None, 0)
    for _, _, _, entry in sorted(ends, key=lambda end: end[:3]):
        last.following, entry.previous = entry, last
        last = entry
    return head


def linearizable(history: Iterable[Call], initial: S, step: Callable[[S, Any], S | None]) -> bool:
    """Whether such an order exists. `step` gives the state after a call, or None when the answer was not possible.

    Exponential in the number of calls that overlap at one time, not in the length of the history.
    """
    calls = list(history)
    head, state, done, left = _list_of(calls), initial, 0, sum(call.answered for call in calls)
    taken: list[tuple[_Entry, S]] = []
    seen: set[tuple[int, S]] = {(0, initial)}
    entry = head.following
    while left:
        after = step(state, entry.call.what) if entry is not None and entry.call is not None else None
        if entry is not None and after is not None and (done | entry.bit, after) not in seen:
            seen.add((done | entry.bit, after))
            taken.append((entry, state))
            state, done = after, done | entry.bit
            left -= entry.end is not None
            entry.lift()
            entry = head.following
        elif entry is not None and entry.call is not None:
            entry = entry.following
        elif taken:  # the end of a call without a moment: an earlier call must have another moment
            entry, state = taken.pop()
            done &= ~entry.bit
            left += entry.end is not None
            entry.put_back()
            entry = entry.following
        else:
            return False
    return True
