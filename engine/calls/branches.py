"""The states of branches, and indexing that is told of: the calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import EndIndexing, MoveBranch, StartIndexing
from shadowswitch.engine.calls.locks import OWNER_CHARS_MAX, REASON_CHARS_MAX, Locking, new_lock_id
from shadowswitch.engine.encode import lock_tokens
from shadowswitch.engine.lifecycle import text_of
from shadowswitch.engine.views import branch_info, moment
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.locks.branch_state import BranchOperation, BranchState, BranchStatus, Completion
from shadowswitch.model.locks.info import Lock
from shadowswitch.model.locks.records import LockRequest
from shadowswitch.model.locks.targets import BRANCH, LockType, type_target
from shadowswitch.model.names import check_resource_type
from shadowswitch.model.views import BranchInfo


class Branching(Locking):
    """What state a branch is in. Any thread."""

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
    ) -> list[Lock]:
        """Tell that indexing begins: of the whole branch, which locks it, or of some types, which locks only those.

        In a `shadow` nothing is locked. With `track_ready` the branch becomes READY when the last of it completes and
        none failed. With `shadow_index_id` blocked people are told the progress of that build. A lock that ends before
        `complete_indexing` counts as a failure. Raises LockConflict, InvalidTransition; then nothing was begun.
        """
        row = self._branch_row(branch)
        types = _types_of(resource_types)
        why = text_of("reason", reason, REASON_CHARS_MAX)
        targets = [BRANCH] if types is None else [type_target(name) for name in types]
        build = self._build_of(row, shadow_index_id)
        requests = tuple(
            LockRequest(new_lock_id(row), LockType.INDEXING, wanted, ttl_s, heartbeat_s, why, build=build)
            for wanted in targets
            if not shadow
        )
        who = text_of("owner", owner, OWNER_CHARS_MAX)
        return list(self._ask(row, StartIndexing(requests, types, who, track_ready, why, Reply()), "the start"))

    def complete_indexing(
        self,
        branch: str,
        owner: str = "",
        resource_types: Sequence[str] | None = None,
        *,
        failed: bool = False,
        reason: str = "",
        tokens: Iterable[int] = (),
    ) -> Completion:
        """Tell that indexing of these types (None: of all, of this owner if given) is over; its locks are released.

        With `tokens`, those of the locks that `start_indexing` gave, only what is indexed under these is meant; so who
        was away beyond the end of its lock does not complete the work of whoever came next, under the same name.
        The answer says what `completed`, what is `remaining`, and the `status` of the branch. Raises InvalidTransition
        when it is not being indexed (any more), for example because its lock expired; LockLost for a stale token.
        """
        row = self._branch_row(branch)
        who, why = text_of("owner", owner, OWNER_CHARS_MAX), text_of("reason", reason, REASON_CHARS_MAX)
        message = EndIndexing(_types_of(resource_types), who, failed, why, Reply(), lock_tokens(tokens))
        completion: Completion = self._ask(row, message, "the completion")
        return completion

    def branch_status(self, branch: str) -> BranchStatus:
        """The state of a branch with since when, by whom and why, and the indexing that is told of. UnknownBranch."""
        row = self._branch_row(branch)
        keeper = self._alive().locks.find(row.number)
        if keeper is not None:
            return msgspec.structs.replace(keeper.held.status, state=keeper.state_now())
        return BranchStatus(row.name, moment(row.created_at) or datetime.now(UTC), BranchState(row.state))

    def resource_types(self, branch: str) -> list[str]:
        """The resource types of which a branch has records, sorted. Raises UnknownBranch."""
        catalog, row = self._alive().catalog, self._branch_row(branch)
        names = catalog.types()
        return sorted(names[number] for number, digest in catalog.digests(row.number).items() if digest.count)

    def archive_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Close a branch for good; it stays readable. Raises InvalidTransition while it is locked."""
        return self._move_branch(branch, BranchOperation.ARCHIVE, by, reason)

    def merge_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Note that a READY branch was merged elsewhere; it admits no write until it is reopened."""
        return self._move_branch(branch, BranchOperation.MERGE, by, reason)

    def reopen_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Go on working on a READY or MERGED branch."""
        return self._move_branch(branch, BranchOperation.REOPEN, by, reason)

    def recover_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """Say that the cause of a branch's ERROR is gone."""
        return self._move_branch(branch, BranchOperation.RECOVER, by, reason)

    def _move_branch(self, branch: str, operation: BranchOperation, by: str, reason: str) -> BranchInfo:
        row = self._branch_row(branch)
        who, why = text_of("by", by, OWNER_CHARS_MAX), text_of("reason", reason, REASON_CHARS_MAX)
        self._ask(row, MoveBranch(operation, who, why, Reply()), "the change of state")
        return branch_info(self._alive(), row)


def _types_of(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise InvalidConfig("resource_types must be a list of different names", hint="leave it out for all of them")
    return tuple(check_resource_type(name) for name in names)
