"""Removal: the calls that drop an index, and a branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.actors.branch.dropping import DROP_TIMEOUT_S, DropBranch, switched
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import CommitSwitch
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.names import check_index_type
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import BranchRow, IndexRow
from shadowswitch.storage.catalog.source.branch_pages import branch_rows
from shadowswitch.storage.catalog.source.fork_table import forks_of
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.catalog.transitions.removal import in_use, is_dropped


class RemovalCalls:
    """Removal of indexes and branches. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        branches: BranchDirectory,
        router: BranchRouter,
        indexes: LiveIndexes,
        generations: OpenGenerations,
        switches: RunningSwitches,
        broken: dict[tuple[int, str], str],
    ) -> None:
        """An index that is dropped leaves `broken`: by branch and type, the reason why an index is not served."""
        self._catalog = context.catalog
        self._branches = branches
        self._router = router
        self._indexes = indexes
        self._generations = generations
        self._switches = switches
        self._broken = broken

    def drop_index(self, branch: str, index_type: str, by: str = "", reason: str = "") -> None:
        """Remove an index of a branch; its records stay, and a new build of it may begin at once.

        From now on it is unknown to every call. A reader that is open goes on to read what it has pinned; the files go
        once no reader pins them. An index that a settings file describes is built again: take it out of the file first.
        Raises UnknownIndex when nothing is live, InUse while a build, a switch or a rollback of it is under way.
        """
        row = self._branches.row(branch)
        check_index_type(index_type)
        named = author(by, reason)
        what = f"{index_type} of branch {branch!r}"
        uses = [text for kind, text in switched(self._catalog, row.number, self._switches) if kind == index_type]
        if uses:
            raise in_use(what, uses, "drop_index", branch)
        index = self._indexes.of(row.number, index_type)
        reply: Reply[IndexRow] = Reply()
        message = CommitSwitch(  # in the line of the switches, so that a switch is committed before it or behind it
            lambda: None,
            signed(partial(transitions.drop_index, branch=row, index_type=index_type), *named),
            partial(index.agree, self._catalog, self._generations),
            reply,
        )
        self._router.tell(row, message)
        result_of(reply, DROP_TIMEOUT_S, "the drop of the index")
        self._broken.pop((row.number, index_type), None)

    def drop_branch(self, name: str, cascade: bool = False, by: str = "", reason: str = "") -> None:
        """Remove a branch with its records, its journal, its indexes, its shadows and its holds.

        From now on the branch is unknown to every call, and its name can be given again at once. Its rows and files go
        in the background, in slices; a reader that is open goes on to read what it has pinned. With `cascade` its
        forks, and theirs, are dropped before it, one after the other. A branch that a settings file mirrors into is
        made again: take it out of the file first. Raises UnknownBranch, and InUse while a fork, a build, a switch,
        indexing, or a lock of another owner than `by` uses it. With `cascade`, forks that were dropped before stay so.
        """
        row = self._branches.row(name)
        if not isinstance(cascade, bool):
            raise InvalidConfig(f"cascade is True or False, not {cascade!r:.80}")
        named = author(by, reason)
        own = tuple(filter(None, (by.strip(), named[0])))
        for branch in [*(self._forks_below(row) if cascade else ()), row]:
            self._drop(branch, own, named)

    def _forks_below(self, row: BranchRow) -> list[BranchRow]:
        """The forks of a branch, and theirs, each before the one that it was forked from."""
        found = [row]
        for branch in found:
            with self._catalog.read() as txn:
                numbers = [number for _, number in forks_of(txn, self._catalog.db, branch.number)]
            found += branch_rows(self._catalog, numbers).values()
        return list({branch.number: branch for branch in found[:0:-1]}.values())

    def _drop(self, row: BranchRow, own: tuple[str, ...], named: tuple[str, str]) -> None:
        def work(uses: list[str]) -> Callable[[Commit], Any]:
            return signed(partial(transitions.drop_branch, number=row.number, uses=uses), *named)

        self._branches.ask(row, DropBranch(own, work, partial(self._settle, row.number), Reply()), "the drop")
        for key in [key for key in self._broken if key[0] == row.number]:
            self._broken.pop(key, None)

    def _settle(self, number: int, _: object) -> None:
        """Behind the transaction, on the thread of the JournalWriter: what is in memory agrees with the catalog."""
        if is_dropped(self._catalog, number):
            for index in self._indexes.of_branch(number):
                index.agree(self._catalog, self._generations, None)
            self._router.drop(number)
