"""Branches by name, and questions to their actors. One object for each engine."""

from __future__ import annotations

from typing import Any

from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import no_branch
from shadowswitch.model.names import check_named_branch
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow

ANSWER_TIMEOUT_S = 10.0


class BranchDirectory:
    """Finds the row of a branch, which stays valid until the branch is dropped. Any thread."""

    def __init__(self, state: OpenState, catalog: Catalog, router: BranchRouter) -> None:
        self._state = state
        self._catalog = catalog
        self._router = router
        self._rows: dict[str, BranchRow] = {}
        self.dropped = router.dropped
        """The numbers of dropped branches. Only ever grows."""

    def row(self, name: str) -> BranchRow:
        """The row of a branch. Raises EngineClosed, UnknownBranch."""
        self._state.check()
        row = self._rows.get(name) if isinstance(name, str) else None
        if row is None or row.number in self.dropped:
            check_named_branch(name)
            self._rows.pop(name, None)
            row = self._rows[name] = self._catalog.branch(name)
        return row

    def forget(self, name: str) -> None:
        """The row of a branch has changed: it is read again."""
        self._rows.pop(name, None)

    def check(self, row: BranchRow) -> None:
        """Raise UnknownBranch if the branch was dropped since its row was read: its records may be half gone."""
        if row.number in self.dropped:
            raise no_branch(row.name)

    def is_dropped(self, number: int) -> bool:
        """Was the branch dropped?"""
        return number in self.dropped

    def ask(self, row: BranchRow, message: Any, what: str) -> Any:
        """Send a message to the actor of a branch, and wait for the reply. Raises what the actor raises, or Timeout."""
        self._router.tell(row, message)
        return result_of(message.reply, ANSWER_TIMEOUT_S, what)
