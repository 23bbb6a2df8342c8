"""Forks: the calls that make a branch from another, compare the two, and bring the changes of one into the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from shadowswitch.actors.context import EngineContext
from shadowswitch.engine.arguments import check_seconds, check_text, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.calls.locks import OWNER_CHARS_MAX
from shadowswitch.engine.calls.records import RecordCalls
from shadowswitch.engine.encode import lock_tokens
from shadowswitch.engine.forks.bringing import Bound, Bringing
from shadowswitch.engine.forks.comparison import (
    changed_on_fork,
    changed_on_parent,
    diff_of,
    diff_page,
    fork_and_parent,
    moved_below,
)
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.forks.merging import OnConflict, check_on_conflict
from shadowswitch.model.forks.views import DiffPage, MergeResult, RecordDiff
from shadowswitch.model.names import check_new_branch, check_resource_type
from shadowswitch.model.views import BranchInfo
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import FOLLOWING, LSN_MAX, SNAPSHOT, BranchRow
from shadowswitch.storage.catalog.source.own_changes import Sides, sides_of
from shadowswitch.storage.catalog.transaction import signed


class ForkCalls:
    """Branches made from others. Any thread."""

    def __init__(
        self, context: EngineContext, state: OpenState, branches: BranchDirectory, records: RecordCalls, views: Views
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._state = state
        self._branches = branches
        self._records = records
        self._views = views

    def fork_branch(
        self,
        name: str,
        parent: str,
        mode: str = SNAPSHOT,
        at_lsn: int | None = None,
        *,
        by: str = "",
        reason: str = "",
    ) -> BranchInfo:
        """Make a branch that shows `parent` as it is now; one transaction at any size.

        What either changes from then on shows on that one alone. The fork has the indexes of its parent as well, each
        made when it is first read. A branch with forks saves the old image of a record at its first overwrite. With
        `at_lsn` the fork shows its parent as of that LSN, of a receipt for example; possible where every version is
        still there, see docs/branches.md, and otherwise refused.

        With the mode "following" the fork shows what its parent has at each moment, until it changes a record itself:
        that record is its own from then on. So it shows no one moment of its parent. Each write of the parent costs a
        little more; 10 forks at most follow a branch. Raises UnknownBranch, InvalidName, BranchExists, InvalidConfig.
        """
        check_new_branch(name)
        row = self._branches.row(parent)
        if mode not in (SNAPSHOT, FOLLOWING):
            known = f"{SNAPSHOT!r} or {FOLLOWING!r}"
            raise InvalidConfig(f"the mode of a fork is {known}, not {mode!r:.80}", operation="fork_branch")
        if at_lsn is not None:
            check_whole("at_lsn", at_lsn, 0)
            if mode == FOLLOWING:
                raise InvalidConfig(
                    "a fork that follows its parent shows it as it is, not as of an LSN",
                    operation="fork_branch",
                    hint=f"leave at_lsn out, or use mode={SNAPSHOT!r}",
                )
        named, follows = author(by, reason), mode == FOLLOWING
        work = partial(transitions.fork_branch, name=name, parent=row.number, at_lsn=at_lsn, follows=follows)
        return self._views.branch(self._context.transact(signed(work, *named), "fork branch"))

    def diff(self, branch: str, against: str | None = None, resource_type: str | None = None) -> Iterator[RecordDiff]:
        """What a fork changed since it was made, or since its last rebase, of one type or of all.

        Costs as much as it changed. Read in slices: a record written meanwhile may or may not be as it was. `against`
        is the parent, or None. A record that was changed back to what it was is not in it. Raises UnknownBranch,
        InvalidConfig for a branch that is no fork.
        """
        fork, _ = self._fork(branch, against, "diff")
        if resource_type is not None:
            check_resource_type(resource_type)
        return self._diff(fork, resource_type)

    def _diff(self, fork: BranchRow, resource_type: str | None) -> Iterator[RecordDiff]:
        for slice_ in self._whole(fork, changed_on_fork(self._catalog, fork, resource_type)):
            yield from map(diff_of, slice_)

    def _whole(self, fork: BranchRow, slices: Iterator[list[Sides]]) -> Iterator[list[Sides]]:
        """The same. Raises UnknownBranch once the fork is dropped, for its records may be half gone."""
        for slice_ in slices:
            self._state.check()
            self._branches.check(fork)
            yield slice_
        self._branches.check(fork)

    def diff_page(
        self,
        branch: str,
        against: str | None = None,
        resource_type: str | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> DiffPage:
        """The next entries of `diff` after a cursor, for a caller that cannot hold an iterator. Raises as `diff`.

        A page looks at 10,000 records of the fork at most, so it may have fewer entries than `limit`, and a next page.
        """
        check_whole("limit", limit, 1)
        fork, _ = self._fork(branch, against, "diff")
        if resource_type is not None:
            check_resource_type(resource_type)
        page = diff_page(self._catalog, fork, resource_type, cursor, limit)
        self._branches.check(fork)
        return page

    def merge_into(
        self,
        target: str,
        source: str,
        on_conflict: OnConflict = "refuse",
        dry_run: bool = False,
        *,
        owner: str = "",
        tokens: Iterable[int] = (),
        timeout_s: float = 10,
        by: str = "",
        reason: str = "",
    ) -> MergeResult:
        """Bring what the fork `source` changed into its parent `target`, field by field.

        A record that the target changed, too, is merged by fields; a field that both changed differently is a conflict.
        With "refuse" a conflict is in the result, and nothing is written. "ours" takes the fork's value, "theirs" that
        of the target; a function is given each Conflict and returns the fields of the record, or None to delete it.
        With `dry_run` nothing is written at all.

        Up to 500 records are one transaction, which is admitted like a write of `owner` under `tokens`, within
        `timeout_s`. A larger merge is several, of 20 records each. A record that is written meanwhile is compared
        again; a conflict that comes so ends a merge that refuses, and what was brought stays. A merge that was cut
        short is called again. The fork stays as it is: before work on it goes on, `rebase` it. Raises UnknownBranch,
        InvalidConfig when `source` is no fork of `target`, NotConverging, and what `write` raises.
        """
        fork, parent = self._fork(source, target, "merge")
        bound, named = self._bound(owner, tokens, timeout_s), author(by, reason)
        settle = check_on_conflict(on_conflict)
        made = partial(Bringing, self._records, self._context.config, fork, parent, settle, bound)

        def read() -> Iterator[list[Sides]]:
            return self._whole(fork, changed_on_fork(self._catalog, fork))

        counted: Bringing = made()
        if dry_run or on_conflict == "refuse":
            counted.count(read())
            if dry_run or counted.is_refused:
                return counted.result()
        bringing: Bringing = made()
        bringing.bring(read(), partial(self._again, fork, upto=LSN_MAX))
        result = bringing.result()
        if result.receipt is not None:
            work = partial(transitions.note_merged, target=target, source=source, what=_figures(result))
            self._context.transact(signed(work, *named), "merge")
        return result

    def rebase(
        self,
        branch: str,
        on_conflict: OnConflict = "refuse",
        *,
        owner: str = "",
        tokens: Iterable[int] = (),
        timeout_s: float = 10,
        by: str = "",
        reason: str = "",
    ) -> MergeResult:
        """Bring what the parent of a fork changed since into the fork, which then shows its parent as of its head.

        Conflicts are settled as in `merge_into`: "ours" is the fork's value. What was brought in becomes the fork's own
        copy. On a fork that follows, only the records that it changed itself are brought together with what the parent
        has. A rebase that was cut short goes on with the next call. Raises as `merge_into`.
        """
        fork, _ = self._fork(branch, None, "rebase")
        settle, bound, named = check_on_conflict(on_conflict), self._bound(owner, tokens, timeout_s), author(by, reason)
        while True:
            went_on = fork.rebase_lsn >= 0
            if fork.follows:
                read, upto = partial(moved_below, self._catalog, fork), LSN_MAX
            else:
                fork = self._transact(partial(transitions.begin_rebase, number=fork.number), "begin rebase")
                upto = fork.rebase_lsn
                read = partial(changed_on_parent, self._catalog, fork, upto)
            made = partial(Bringing, self._records, self._context.config, fork, fork, settle, bound)
            counted: Bringing = made()
            if settle == "refuse":
                counted.count(read())
            bringing: Bringing = made()
            if not counted.is_refused:
                bringing.bring(read(), partial(self._again, fork, upto=upto))
            refused = counted.is_refused or bringing.is_refused
            result = counted.result() if counted.is_refused else bringing.result()
            fork = self._end_rebase(fork, not refused, result, named)
            self._branches.forget(branch)
            if refused or not went_on:
                return result

    def _end_rebase(self, fork: BranchRow, done: bool, result: MergeResult, named: tuple[str, str]) -> BranchRow:
        if not fork.follows:
            work = partial(transitions.end_rebase, number=fork.number, done=done, what=_figures(result))
        elif done:
            work = partial(transitions.end_rebase_of_follower, number=fork.number, what=_figures(result))
        else:
            return fork
        return self._transact(signed(work, *named), "end rebase")

    def _transact(self, work: Any, what: str) -> BranchRow:
        row: BranchRow = self._context.transact(work, what)
        return row

    def _again(self, fork: BranchRow, compared: list[Sides], upto: int) -> list[Sides]:
        return sides_of(self._catalog, fork, [(sides.resource_type, sides.id) for sides in compared], upto)

    def _bound(self, owner: str, tokens: Iterable[int], timeout_s: float) -> Bound:
        owner = check_text("owner", owner, OWNER_CHARS_MAX)
        return Bound(owner, lock_tokens(tokens), check_seconds("timeout_s", timeout_s))

    def _fork(self, name: str, parent: str | None, operation: str) -> tuple[BranchRow, BranchRow]:
        self._state.check()
        return fork_and_parent(self._catalog, name, parent, operation)


def _figures(result: MergeResult) -> dict[str, Any]:
    lsn = result.receipt.lsn if result.receipt is not None else None
    return {"applied": result.applied, "same": result.same, "conflicts": len(result.conflicts), "lsn": lsn}
