"""`/health`, `/metrics`, `/schema`: for whoever runs the server."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar import Request, Response

from shadowswitch.service.daemon.daemon import UpkeepStatus
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.host import Host, upkeep_of
from shadowswitch.service.http.metrics import CONTENT_TYPE, exposition
from shadowswitch.service.http.routing import PREFIX, PUBLIC, reads


class Health(msgspec.Struct, frozen=True):
    """`live`: the process answers. `ready`: it takes requests; if not, `reasons` says why."""

    live: bool
    ready: bool
    reasons: list[str]
    uptime_s: float


def health_of(host: Host) -> Health:
    """How the host is."""
    reasons = ["the server stops"] if host.draining.is_set() else []
    failed = host.engine.trouble()
    if failed:
        reasons.append(failed)
    return Health(True, not reasons, reasons, round(time.time() - host.started, 1))


@reads(["/health", f"{PREFIX}/health"], PUBLIC)
def health(host: Host) -> Health:
    """Live and ready. Always 200 while the process answers; see `/health/ready`."""
    return health_of(host)


@reads("/health/live", PUBLIC)
def live(host: Host) -> Health:
    """200 while the process answers."""
    return health_of(host)


@reads("/health/ready", PUBLIC)
def ready(host: Host) -> Response[Health]:
    """200 when requests are taken, else 503."""
    found = health_of(host)
    return Response(found, status_code=200 if found.ready else 503)


@reads(["/metrics", f"{PREFIX}/metrics"], Scope.READ, media_type="text/plain")
def metrics(host: Host, caller: Caller) -> Response[bytes]:
    """Prometheus. What belongs to a branch is there for those who may see the branch."""
    return Response(exposition(host, caller), media_type=CONTENT_TYPE)


@reads(f"{PREFIX}/upkeep")
def upkeep(host: Host, caller: Caller) -> UpkeepStatus:
    """What the server keeps going: folders with what is left out of them and why, indexes, webhooks, inbox.

    `error` says why the settings file as it is now is not used.
    """
    return upkeep_of(host, caller)


@reads(["/schema", f"{PREFIX}/schema"], PUBLIC, include_in_schema=False)
def schema(request: Request[Any, Any, Any]) -> Response[bytes]:
    """OpenAPI 3.1."""
    return Response(request.app.state.schema, media_type="application/json")


HANDLERS = (health, live, ready, metrics, upkeep, schema)
