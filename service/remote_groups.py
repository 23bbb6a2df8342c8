"""RemoteGroups: the calls on groups of a RemoteEngine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shadowswitch.model.groups.views import Group, GroupMember, GroupResult
from shadowswitch.model.views import SwitchRequest
from shadowswitch.service.remote_connection import segment
from shadowswitch.service.remote_forks import LONG_TIMEOUT_S, RemoteForks


class RemoteGroups(RemoteForks):
    """Several indexes that are switched together. One thread."""

    def start_group(self, name: str, members: Sequence[GroupMember], *, by: str = "", reason: str = "") -> Group:
        """See Engine. The server adds the name of the token to `by`."""
        sent = [
            {
                "branch_name": one.branch,
                "index_type": one.index_type,
                "resource_types": list(one.resource_types),
                "build_config": one.build_config,
            }
            for one in members
        ]
        return self._call("POST", "groups", {"name": name, "members": sent}, Group, by=by, reason=reason)

    def group(self, group_id: str) -> Group:
        """See Engine."""
        return self._call("GET", f"groups/{segment(group_id)}", None, Group)

    def groups(self) -> list[Group]:
        """See Engine."""
        return msgspec.convert(self._call("GET", "groups", None, dict[str, Any])["groups"], list[Group])

    def switch_group(self, group_id: str, request: SwitchRequest | None = None) -> GroupResult:
        """See Engine."""
        return self._switch_group(group_id, "switch", request)

    def rollback_group(self, group_id: str, request: SwitchRequest | None = None) -> GroupResult:
        """See Engine."""
        return self._switch_group(group_id, "rollback", request)

    def _switch_group(self, group_id: str, what: str, request: SwitchRequest | None) -> GroupResult:
        request = request or SwitchRequest()
        path = f"groups/{segment(group_id)}/{what}"
        return self._call("POST", path, options_of(request), GroupResult, LONG_TIMEOUT_S, by=request.performed_by)

    def dissolve_group(self, group_id: str, by: str = "", reason: str = "") -> Group:
        """See Engine. The server adds the name of the token to `by`."""
        return self._call("POST", f"groups/{segment(group_id)}/dissolve", {}, Group, by=by, reason=reason)


def options_of(request: SwitchRequest) -> dict[str, Any]:
    """A request as fields of a body. Its author is a header."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    del fields["performed_by"]
    return fields
