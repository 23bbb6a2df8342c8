"""RemoteForks: the calls on forks of a RemoteEngine."""

from __future__ import annotations

from typing import Any

from shadowswitch.model.names import check_named_branch, check_new_branch
from shadowswitch.model.views import SWITCH_TIMEOUT_S_MAX, BranchInfo
from shadowswitch.service.merge_report import MergeReport
from shadowswitch.service.remote_connection import RemoteConnection, branch_segment

LONG_TIMEOUT_S = SWITCH_TIMEOUT_S_MAX + 60.0
"""A switch includes its validation, a merge all of its batches; the server ends both by its own deadlines."""


class RemoteForks(RemoteConnection):
    """Branches made from others. One thread."""

    def fork_branch(
        self,
        name: str,
        parent: str,
        mode: str = "snapshot",
        at_lsn: int | None = None,
        *,
        by: str = "",
        reason: str = "",
    ) -> BranchInfo:
        """See Engine. The server adds the name of the token to `by`."""
        path = f"branches/{branch_segment(check_new_branch(name))}/fork"
        body = {"parent": check_named_branch(parent), "mode": mode, "at_lsn": at_lsn}
        return self._call("POST", path, body, BranchInfo, by=by, reason=reason)

    def merge_into(
        self,
        target: str,
        source: str,
        on_conflict: str = "refuse",
        dry_run: bool = False,
        *,
        timeout_s: float = 10,
        by: str = "",
        reason: str = "",
    ) -> MergeReport:
        """See Engine. The answer lists the first conflicts only."""
        body = {"target": check_named_branch(target), "dry_run": dry_run}
        return self._merge(source, "merge-into", on_conflict, timeout_s, body, by, reason)

    def rebase(
        self, branch: str, on_conflict: str = "refuse", *, timeout_s: float = 10, by: str = "", reason: str = ""
    ) -> MergeReport:
        """See Engine. The answer lists the first conflicts only."""
        return self._merge(branch, "rebase", on_conflict, timeout_s, {}, by, reason)

    def _merge(
        self, branch: str, what: str, on_conflict: str, timeout_s: float, body: dict[str, Any], by: str, reason: str
    ) -> MergeReport:
        path = f"branches/{branch_segment(branch)}/{what}"
        sent = {**body, "on_conflict": on_conflict, "timeout_s": timeout_s}
        return self._call("POST", path, sent, MergeReport, LONG_TIMEOUT_S, by=by, reason=reason)

    def drop_branch(self, name: str, cascade: bool = False, by: str = "", reason: str = "") -> None:
        """See Engine. The server adds the name of the token to `by`."""
        path = f"branches/{branch_segment(name)}?cascade={str(cascade).lower()}"
        self._call("DELETE", path, None, dict[str, Any], by=by, reason=reason)
