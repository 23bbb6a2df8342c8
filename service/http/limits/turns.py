"""A limited number of places for which requests wait, without a thread, until one is free."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from shadowswitch.service.http.limits.shares import Overloaded


class Turns:
    """Places for one kind of work: `total` of them, `each` for one caller, taken in turn. On the event loop.

    A caller that has its share waits for its own places only, so others pass it.
    """

    def __init__(self, what: str, total: int, each: int, waiting_max: int) -> None:
        self._what = what
        self._total = total
        self._each = each
        self._waiting_max = waiting_max
        self._taken: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    @contextlib.asynccontextmanager
    async def place(self, caller: str, wait_s: float) -> AsyncIterator[None]:
        """A place, for the time of the block. "" is a caller without a share of its own.

        Raises Overloaded at once when too many wait, or when none is free in time.
        """
        await self._take(caller, wait_s)
        try:
            yield
        finally:
            self._give(caller)

    async def _take(self, caller: str, wait_s: float) -> None:
        if self._is_free(caller):
            self._taken[caller] += 1
            return
        own = sum(one == caller for one in self._waiting.values())
        if len(self._waiting) >= self._waiting_max or (caller and own >= self._waiting_max // 2):
            raise Overloaded(f"too many {self._what} wait already", hint="try again in a moment")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = caller
        try:
            await asyncio.wait([turn], timeout=wait_s)
        except asyncio.CancelledError:
            if turn.done():
                self._give(caller)
            raise
        finally:
            self._waiting.pop(turn, None)
        if not turn.done():
            raise Overloaded(
                f"{self._what} take all their places, and none came free in {wait_s:g} s", hint="try again in a moment"
            )

    def _is_free(self, caller: str) -> bool:
        return self._taken.total() < self._total and not (caller and self._taken[caller] >= self._each)

    def _give(self, caller: str) -> None:
        """Give a place back, and each free place to the first that may have it."""
        self._taken[caller] -= 1
        self._taken += Counter()  # forgets callers without a place
        for turn, waiting in list(self._waiting.items()):
            if self._is_free(waiting):
                del self._waiting[turn]
                self._taken[waiting] += 1
                turn.set_result(None)
