"""Branches: the calls that make them, read and change their state, and note when indexing begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

from shadowswitch.actors.branch.lifecycle import EndIndexing, MoveBranch, StartIndexing
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.engine.arguments import check_number, check_text, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.calls.locks import OWNER_CHARS_MAX, REASON_CHARS_MAX, build_of, new_lock_id
from shadowswitch.engine.encode import lock_tokens
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import BranchExists, InvalidConfig
from shadowswitch.model.locks.branch_state import BranchOperation, BranchStatus, Completion
from shadowswitch.model.locks.info import Lock
from shadowswitch.model.locks.records import LockRequest
from shadowswitch.model.locks.targets import BRANCH, LockType, type_target
from shadowswitch.model.names import check_new_branch, check_resource_type
from shadowswitch.model.views import BranchInfo, QuietHours
from shadowswitch.storage.activity import quiet_hours
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.branch_pages import branch_count, branch_pages
from shadowswitch.storage.catalog.transaction import Commit, signed

WITHIN_S_MAX = 7 * 86400.0


class BranchCalls:
    """Branches and their states. Any thread."""

    def __init__(self, context: EngineContext, state: OpenState, branches: BranchDirectory, views: Views) -> None:
        self._context = context
        self._catalog = context.catalog
        self._clock = context.clock
        self._state = state
        self._branches = branches
        self._views = views

    def create_branch(self, name: str, exist_ok: bool = False, *, by: str = "", reason: str = "") -> BranchInfo:
        """Make a branch. With `exist_ok` one of that name that there is already is returned as it is, fork or not.

        Raises InvalidName for a name that cannot be used, BranchExists for one that is taken, InvalidConfig.
        """
        check_new_branch(name)
        if not isinstance(exist_ok, bool):
            raise InvalidConfig(f"exist_ok is True or False, not {exist_ok!r:.80}")
        self._state.check()

        def create(commit: Commit) -> BranchRow:
            row = commit.create_branch(name, self._clock.wall())
            commit.audit("branch.created", name, {"branch_name": name})
            return row

        try:
            row = self._context.transact(signed(create, *_author(by, reason)), "create branch")
        except BranchExists:
            if not exist_ok:
                raise
            row = self._branches.row(name)
        return self._views.branch(row)

    def branch(self, name: str) -> BranchInfo:
        """A branch. Raises UnknownBranch."""
        return self._views.branch(self._branches.row(name))

    def branches(self, limit: int | None = None, after: int = 0) -> list[BranchInfo]:
        """All branches, in the order of their creation.

        By page: up to `limit` of them whose `number` is above `after`; for the next page, that of the last one. A page
        takes as long as its branches, however many there are.
        """
        self._state.check()
        if limit is not None:
            check_whole("limit", limit, 1)
        check_whole("after", after, 0)
        return [self._views.branch(row) for row in islice(branch_pages(self._catalog, after), limit)]

    def count_branches(self, wanted: Callable[[str], bool] | None = None) -> int:
        """How many branches there are; O(1). With `wanted`, how many have a name of which it is true."""
        self._state.check()
        if wanted is None:
            return branch_count(self._catalog)
        return sum(wanted(row.name) for row in branch_pages(self._catalog))

    def start_indexing(
        self,
        branch: str,
        owner: str,
        resource_types: Sequence[str] | None = None,
        *,
        shadow: bool = False,
        ttl_s: float | None = None,
        heartbeat_s: float | None = None,
        track_ready: bool = True,
        reason: str = "",
        shadow_index_id: str = "",
        by: str = "",
    ) -> list[Lock]:
        """Begin indexing: of the whole branch, which locks it, or of some types, which locks only those.

        With `shadow` nothing is locked. With `track_ready` the branch becomes READY when all tracked indexing is
        complete and none failed. With `shadow_index_id` a refused write shows the progress of that build. A lock that
        ends before `complete_indexing` counts as a failure. Raises LockConflict, InvalidTransition; then nothing began.
        """
        row = self._branches.row(branch)
        types = _types_of(resource_types)
        by, why = _author(by, reason)
        targets = [BRANCH] if types is None else [type_target(name) for name in types]
        build = build_of(self._catalog, row, shadow_index_id)
        requests = tuple(
            LockRequest(new_lock_id(row), LockType.INDEXING, wanted, ttl_s, heartbeat_s, reason, build=build)
            for wanted in targets
            if not shadow
        )
        owner = check_text("owner", owner, OWNER_CHARS_MAX)
        message = StartIndexing(requests, types, owner, track_ready, reason, Reply(), (by, why))
        return list(self._branches.ask(row, message, "the start"))

    def complete_indexing(
        self,
        branch: str,
        owner: str = "",
        resource_types: Sequence[str] | None = None,
        *,
        failed: bool = False,
        reason: str = "",
        tokens: Iterable[int] = (),
        by: str = "",
    ) -> Completion:
        """End the indexing of these types (None: of all, of this owner if given); its locks are released.

        `tokens` are those of the locks that `start_indexing` returned: only indexing under these locks completes. So a
        holder that was away beyond the end of its lock does not complete the work of the next holder, of the same name.
        The answer names the types that `completed`, those `remaining`, and the `status` of the branch. Raises
        InvalidTransition when the branch is not being indexed (any more), for example because its lock expired;
        LockLost for a stale token.
        """
        row = self._branches.row(branch)
        owner, named = check_text("owner", owner, OWNER_CHARS_MAX), _author(by, reason)
        message = EndIndexing(_types_of(resource_types), owner, failed, reason, Reply(), lock_tokens(tokens), named)
        completion: Completion = self._branches.ask(row, message, "the completion")
        return completion

    def branch_status(self, branch: str) -> BranchStatus:
        """The state of a branch with its time, author and reason, and its tracked indexing. Raises UnknownBranch."""
        return self._views.branch_status(self._branches.row(branch))

    def quiet_hours(self, branch: str, within_s: float = 86400, calm_s: float = 3600) -> QuietHours:
        """The quietest hour of a branch within `within_s`, advised only where that beats the quiet rule on its past.

        The answer describes the backtest. The past is known in slots of five minutes, for half a year, without the slot
        that runs. Takes up to a second for a busy branch. Raises UnknownBranch, InvalidConfig.
        """
        row = self._branches.row(branch)
        check_number("within_s", within_s, WITHIN_S_MAX)
        check_number("calm_s", calm_s, WITHIN_S_MAX)
        now, pause = self._clock.wall(), partial(self._clock.sleep, 0.0)
        return quiet_hours(self._catalog, row, now, float(within_s), float(calm_s), pause)

    def resource_types(self, branch: str) -> list[str]:
        """The resource types of which a branch has records, sorted. Raises UnknownBranch."""
        row = self._branches.row(branch)
        names = self._catalog.types()
        return sorted(names[number] for number in self._catalog.counts(row.number))

    def archive_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Close a branch for good; it stays readable. Raises InvalidTransition while it is locked."""
        return self._move(branch, BranchOperation.ARCHIVE, by, reason)

    def merge_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Note that a READY branch was merged elsewhere; it admits no write until it is reopened."""
        return self._move(branch, BranchOperation.MERGE, by, reason)

    def reopen_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Go on working on a READY or MERGED branch."""
        return self._move(branch, BranchOperation.REOPEN, by, reason)

    def recover_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Say that the cause of a branch's ERROR is gone."""
        return self._move(branch, BranchOperation.RECOVER, by, reason)

    def _move(self, branch: str, operation: BranchOperation, by: str, reason: str) -> BranchInfo:
        row = self._branches.row(branch)
        by, reason = _author(by, reason)
        self._branches.ask(row, MoveBranch(operation, by, reason, Reply()), "the change of state")
        self._state.check()
        return self._views.branch(row)


def _author(by: str, reason: str) -> tuple[str, str]:
    """Author and reason; the status of a branch keeps them, so they are shorter than those of a build."""
    return author(check_text("by", by, OWNER_CHARS_MAX), check_text("reason", reason, REASON_CHARS_MAX))


def _types_of(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise InvalidConfig("resource_types must be a list of different names", hint="leave it out for all of them")
    return tuple(check_resource_type(name) for name in names)
