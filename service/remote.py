"""RemoteEngine: the engine of a running server for commands, over HTTP. Errors keep their classes.

It has the methods of Engine that commands use. `get` and `count` read the disk beside the server.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from shadowswitch.model.config import Config
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.names import (
    check_id,
    check_index_type,
    check_named_branch,
    check_new_branch,
    check_resource_type,
)
from shadowswitch.model.records import Delete, Put, Receipt, Record
from shadowswitch.model.search.comparison import Comparison
from shadowswitch.model.views import (
    BranchInfo,
    CheckProgress,
    Finding,
    IndexInfo,
    ShadowIndex,
    SwitchRequest,
    SwitchResult,
)
from shadowswitch.service import caller, host_file
from shadowswitch.service.host_file import HostFile
from shadowswitch.service.remote_connection import TIMEOUT_S, ServerGone, branch_segment, segment
from shadowswitch.service.remote_forks import LONG_TIMEOUT_S
from shadowswitch.service.remote_groups import RemoteGroups, options_of
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import get_record
from shadowswitch.storage.generations.seeding import AUTO

STATUS_TIMEOUT_S = 2.0
"""A status without the daemon's part is better than a long wait."""
CHECKS_POLL_S = 0.5
HEALTH_TIMEOUT_S = 5.0


class RemoteEngine(RemoteGroups):
    """A client of the server of a data directory. One thread."""

    def __init__(self, found: HostFile, data: Path, catalog: Catalog) -> None:
        super().__init__(found, data)
        self._found = found
        self.config = Config()
        self._catalog = catalog

    def branch(self, name: str) -> BranchInfo:
        """See Engine."""
        return self._call("GET", f"branches/{branch_segment(name)}", None, BranchInfo)

    def create_branch(self, name: str, *, by: str = "", reason: str = "") -> BranchInfo:
        """See Engine."""
        return self._call("POST", "branches", {"name": check_new_branch(name)}, BranchInfo, by=by, reason=reason)

    def recover_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """See Engine. The server adds the name of the token to `by`."""
        return self._move("recover", branch, reason, by)

    def reopen_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """See Engine."""
        return self._move("reopen", branch, reason, by)

    def merge_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """See Engine."""
        return self._move("merge", branch, reason, by)

    def archive_branch(self, branch: str, by: str = "", reason: str = "") -> BranchInfo:
        """See Engine."""
        return self._move("archive", branch, reason, by)

    def _move(self, operation: str, branch: str, reason: str, by: str) -> BranchInfo:
        return self._call(
            "POST", f"branches/{branch_segment(branch)}/{operation}", {"reason": reason}, BranchInfo, by=by
        )

    def count(self, branch: str, resource_type: str) -> int:
        """See Engine."""
        return self._catalog.count(self._catalog.branch(branch).number, resource_type)

    def get(self, branch: str, resource_type: str, id: str) -> Record | None:
        """See Engine."""
        return get_record(self._catalog, self._catalog.branch(branch).number, resource_type, check_id(id))

    def write(self, branch: str, changes: Sequence[Put | Delete], owner: str = "", timeout_s: float = 10) -> Receipt:
        """See Engine."""
        sent = [
            {"resource_type": one.resource_type, "id": one.id, "fields": one.fields}
            if isinstance(one, Put)
            else {"resource_type": one.resource_type, "id": one.id, "kind": "delete"}
            for one in changes
        ]
        body = {"changes": sent, "owner": owner, "timeout_s": timeout_s}
        return self._call("POST", f"branches/{branch_segment(branch)}/write", body, Receipt)

    def start_build(
        self,
        branch: str,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None = None,
        service_name: str = "",
        by: str = "",
        reason: str = "",
        priority: int = 0,
        of_rebuild: bool = False,
        seed: str = AUTO,
    ) -> ShadowIndex:
        """See Engine."""
        service, _, instance = service_name.partition(caller.SEPARATOR)
        body = {
            "branch_name": check_named_branch(branch),
            "index_type": check_index_type(index_type),
            "resource_types": [check_resource_type(name) for name in resource_types],
            "build_config": build_config,
            "service_name": service,
            "service_instance_id": instance or None,
            "priority": priority,
            "of_rebuild": of_rebuild,
            "seed": seed,
        }
        started = self._call("POST", "shadow-index/start", body, dict[str, Any], by=by, reason=reason)
        return self.shadow(started["shadow_index_id"])

    def daemon_status(self) -> dict[str, Any]:
        """The UpkeepStatus of the server's daemon. An Engine has no daemon."""
        return self._call("GET", "upkeep", None, dict[str, Any], STATUS_TIMEOUT_S)

    def shadow(self, shadow_id: str) -> ShadowIndex:
        """See Engine."""
        return _shadow(self._call("GET", f"shadow-index/{segment(shadow_id)}/status", None, dict[str, Any]))

    def shadows(self, branch: str | None, state: str, timeout_s: float = TIMEOUT_S) -> list[ShadowIndex]:
        """See Engine. The first page."""
        of_branch = f"branch_name={branch_segment(branch)}&" if branch is not None else ""
        path = f"shadow-index/list?{of_branch}state={state}"
        return [_shadow(one) for one in self._call("GET", path, None, dict[str, Any], timeout_s)["shadows"]]

    def cancel_build(self, shadow_id: str, reason: str = "", by: str = "") -> ShadowIndex:
        """See Engine."""
        path = f"shadow-index/{segment(shadow_id)}?reason={quote(reason)}"
        self._call("DELETE", path, None, dict[str, Any], by=by)
        return self.shadow(shadow_id)

    def retry_build(self, shadow_id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        return self._operate(shadow_id, "retry", None, by, reason)

    def pause_build(self, shadow_id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        return self._operate(shadow_id, "pause", None, by, reason)

    def resume_build(self, shadow_id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        return self._operate(shadow_id, "resume", None, by, reason)

    def throttle_build(self, shadow_id: str, share: float, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        return self._operate(shadow_id, "throttle", {"share": share}, by, reason)

    def set_priority(self, shadow_id: str, priority: int, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        return self._operate(shadow_id, "priority", {"priority": priority}, by, reason)

    def schedule_switch(
        self, shadow_id: str, quiet_for_s: float = 900, within_s: float = 86400, request: SwitchRequest | None = None
    ) -> ShadowIndex:
        """See Engine."""
        request = request or SwitchRequest()
        body = {"quiet_for_s": quiet_for_s, "within_s": within_s, **options_of(request)}
        return self._operate(shadow_id, "schedule", body, request.performed_by, request.reason)

    def unschedule_switch(self, shadow_id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """See Engine."""
        path = f"shadow-index/{segment(shadow_id)}/schedule"
        return self._call("DELETE", path, None, ShadowIndex, by=by, reason=reason)

    def _operate(self, shadow_id: str, what: str, body: Any, by: str, reason: str) -> ShadowIndex:
        path = f"shadow-index/{segment(shadow_id)}/{what}"
        return self._call("POST", path, body, ShadowIndex, by=by, reason=reason)

    def switch(self, shadow_id: str, request: SwitchRequest | None = None) -> SwitchResult:
        """See Engine."""
        return self._switch(f"shadow-index/{segment(shadow_id)}/switch", {}, request)

    def rollback(self, branch: str, index_type: str, request: SwitchRequest | None = None) -> SwitchResult:
        """See Engine."""
        what = {"branch_name": check_named_branch(branch), "index_type": check_index_type(index_type)}
        return self._switch("indexes/rollback", what, request)

    def _switch(self, path: str, body: dict[str, Any], request: SwitchRequest | None) -> SwitchResult:
        request = request or SwitchRequest()
        sent = {**body, **options_of(request)}
        return self._call("POST", path, sent, SwitchResult, LONG_TIMEOUT_S, by=request.performed_by)

    def compare(
        self, shadow_index_id: str, queries: Sequence[str] | None = None, limit: int = 10, timeout_s: float = 30
    ) -> Comparison:
        """See Engine."""
        asked = urlencode([("limit", limit), ("timeout_s", timeout_s), *(("q", query) for query in queries or ())])
        path = f"shadow-index/{segment(shadow_index_id)}/compare?{asked}"
        return self._call("GET", path, None, Comparison, timeout_s + LONG_TIMEOUT_S)

    def retune(
        self, branch: str, index_type: str, build_config: Mapping[str, Any], by: str = "", reason: str = ""
    ) -> IndexInfo:
        """See Engine."""
        what = {"branch_name": check_named_branch(branch), "index_type": check_index_type(index_type)}
        body = {**what, "build_config": build_config}
        return self._call("POST", "indexes/retune", body, IndexInfo, by=by, reason=reason)

    def drop_index(self, branch: str, index_type: str, by: str = "", reason: str = "") -> None:
        """See Engine. The server adds the name of the token to `by`."""
        path = f"indexes?branch_name={branch_segment(branch)}&index_type={check_index_type(index_type)}"
        self._call("DELETE", path, None, dict[str, Any], by=by, reason=reason)

    def check(
        self,
        repair: bool = False,
        by: str = "",
        reason: str = "",
        *,
        progress: Callable[[CheckProgress], None] | None = None,
    ) -> list[Finding]:
        """See Engine. The server adds the name of the token to `by`. `progress` is called on a thread of its own."""
        body = {"repair": repair, "reason": reason}
        with self._polled(progress) if progress is not None else nullcontext():
            return self._call("POST", "check", body, list[Finding], LONG_TIMEOUT_S, by=by)

    def checks(self) -> list[CheckProgress]:
        """See Engine."""
        return self._call("GET", "check", None, list[CheckProgress], STATUS_TIMEOUT_S)

    @contextmanager
    def _polled(self, progress: Callable[[CheckProgress], None]) -> Iterator[None]:
        """Ask the server by another connection how far its newest check is, until the block ends."""
        asking, ended = RemoteEngine(self._found, self.path, self._catalog), threading.Event()

        def poll() -> None:
            with closing(asking):
                while not ended.wait(CHECKS_POLL_S):
                    with suppress(ShadowSwitchError):  # the call under way says what is wrong
                        for found in asking.checks()[-1:]:
                            progress(found)

        thread = threading.Thread(target=poll, name="check-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(STATUS_TIMEOUT_S)


def ready_of(data: Path) -> dict[str, Any]:
    """The answer of `/health/ready` of the server of a data directory. Raises ServerGone without one."""
    found = host_file.read(data)
    if found is None:
        raise ServerGone(f"{data} has no server", hint="start one with shadowswitch serve")
    parts = urlsplit(found.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        answer: dict[str, Any] = msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise ServerGone(f"the server of {data} does not answer: {error!r:.200}", hint="see its log") from error
    finally:
        connection.close()
    if "reasons" not in answer:  # a problem document
        return {"ready": False, "reasons": [answer.get("detail", "the server refused to answer")]}
    return answer


def _shadow(answer: dict[str, Any]) -> ShadowIndex:
    """A shadow of the server. The engine keeps service and instance as one name."""
    instance = answer["service_instance_id"]
    name = f"{answer['service_name']}{caller.SEPARATOR}{instance}" if instance else answer["service_name"]
    return msgspec.convert(answer | {"service_name": name}, ShadowIndex)
