"""What every search has, whatever the backend: the bound of its query, and the time that it may take."""

from __future__ import annotations

import math
from collections.abc import Callable

from shadowswitch.model.errors import InvalidConfig, Timeout

QUERY_CHARS_MAX = 4000
"""The part of a query that counts. A backend that splits it into tokens bounds these, too."""
SEARCH_TIMEOUT_S = 10.0


def check_query(query: str) -> str:
    """A query. Raises InvalidConfig for what is no string."""
    if not isinstance(query, str):
        raise InvalidConfig(f"a query is a string, not {type(query).__name__}", operation="search")
    return query


def check_page(limit: int, offset: int) -> None:
    """Raise InvalidConfig for a page without a hit, or before the first one."""
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidConfig(f"{name} is {value!r}", operation="search", hint=f"use a whole number from {least}")


_LESS = {"search": "use fewer or rarer words, or a longer prefix"}


class TimeLimit:
    """The time that one search, or another query, may take. Its thread asks `is_over` now and then."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], operation: str = "search") -> None:
        self._operation = operation
        self._seconds = seconds
        self._monotonic = monotonic
        self._end = monotonic() + seconds
        self.ended = False
        """`is_over` was true once: the search was stopped, whatever error came of it."""

    def is_over(self) -> bool:
        """Whether the time has passed."""
        self.ended = self.ended or self._monotonic() >= self._end
        return self.ended

    @property
    def left_s(self) -> float:
        """The time that is left; 0 or less when it is over."""
        return self._end - self._monotonic()

    def check(self) -> None:
        """Raise Timeout when the time has passed."""
        if self.is_over():
            raise self.error()

    def error(self) -> Timeout:
        """The error of a search that was stopped."""
        return Timeout(
            f"the {self._operation} took longer than {self._seconds:g} s and was stopped",
            operation=self._operation,
            hint=_LESS.get(self._operation, "ask for less (limit, depth, kinds)") + "; timeout_s gives it more time",
        )


UNLIMITED = TimeLimit(math.inf, lambda: 0.0)
