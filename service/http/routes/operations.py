"""`/health`, `/upkeep`, `/check`, `/schema`: for operators of the server."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from shadowswitch.model.views import CheckProgress, Finding
from shadowswitch.service.daemon.daemon import UpkeepStatus
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.bodies.operations import Check, Health
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routing import PREFIX, PUBLIC, changes, reads


def health_of(host: Host) -> Health:
    """The health of the host. A caller without a token gets no name of a branch from a server that knows tokens."""
    found = host.engine.health()
    reasons = ["the server stops"] if host.draining.is_set() else []
    reasons += found.reasons
    if host.access.open:
        reasons += found.unserved
    elif found.unserved:
        reasons.append(f"{len(found.unserved)} indexes have no sound live generation; `shadowswitch status` names them")
    return Health(True, not reasons, reasons, round(host.uptime_s(), 1))


@reads(["/health", f"{PREFIX}/health", "/health/live"], PUBLIC)
def health(host: Host) -> Health:
    """Live and ready. Always 200 while the process answers; see `/health/ready`."""
    return health_of(host)


@reads("/health/ready", PUBLIC)
def ready(host: Host) -> Response[Health]:
    """200 while writes are taken, threads run and indexes are served, else 503 with every reason."""
    found = health_of(host)
    return Response(found, status_code=200 if found.ready else 503)


@reads(f"{PREFIX}/upkeep")
def upkeep(host: Host, caller: Caller) -> UpkeepStatus:
    """The status of the daemon: folders with the files left out and the reasons, indexes, webhooks, inbox.

    `error` says why the present settings file is not used.
    """
    return host.daemon_status_for(caller)


@changes(f"{PREFIX}/check", Scope.ADMIN)
def check(data: Check, host: Host, caller: Caller) -> list[Finding]:
    """Verify every invariant over all data on disk; with `repair`, derive again what can be. May take long."""
    caller.require(Scope.ADMIN)
    with host.long_call(caller):
        return host.engine.check(data.repair, caller.author, data.reason or caller.reason)


@reads(f"{PREFIX}/check", Scope.ADMIN)
def checks(host: Host, caller: Caller) -> list[CheckProgress]:
    """How far each check is that runs at this moment, the oldest first."""
    caller.require(Scope.ADMIN)
    return host.engine.checks()


@reads(["/schema", f"{PREFIX}/schema"], PUBLIC, include_in_schema=False)
def schema(request: Request[Any, Any, Any]) -> Response[bytes]:
    """OpenAPI 3.1."""
    return Response(request.app.state.schema, media_type="application/json")


HANDLERS = (check, checks, health, ready, upkeep, schema)
