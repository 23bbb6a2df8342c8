"""The heads of branches in memory. One object for each engine."""

from __future__ import annotations

from shadowswitch.storage.catalog.environment import Catalog


class Heads:
    """The LSN of the last durable change of each branch. Any thread reads; the JournalWriter's thread advances."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[int, int] = {}
        """The heads of the branches with a commit since the start. The catalog has the other heads."""

    def of(self, branch: int) -> int:
        """The LSN of the last committed change of a branch. Memory follows the catalog a moment later."""
        head = self._known.get(branch)
        return head if head is not None else self._catalog.head(branch)[0]

    def advance(self, heads: dict[int, int]) -> None:
        """A transaction with these heads is durable."""
        self._known.update(heads)
