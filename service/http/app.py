"""The ASGI application: the middleware around the bodies, the idempotency keys, HEAD and OPTIONS, and the routes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide

from shadowswitch.service.http.error_handlers import ERROR_HANDLERS
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.idempotency import Idempotency
from shadowswitch.service.http.limits.body import Bodies
from shadowswitch.service.http.middleware import Middleware
from shadowswitch.service.http.routes import (
    branches,
    dashboard,
    events,
    forks,
    groups,
    indexes,
    indexing,
    locks,
    metrics,
    operating,
    operations,
    shadows,
)
from shadowswitch.service.http.routing import MoreMethods, guard, provide_caller, provide_host
from shadowswitch.service.http.schema import openapi

TOKENS_S = 0.5
"""The pause between two looks at the token file. A request looks at once."""
MODULES = (
    shadows,
    operating,
    indexes,
    groups,
    branches,
    forks,
    locks,
    indexing,
    events,
    operations,
    metrics,
    dashboard,
)


def _handlers() -> list[Any]:
    """All routes. Litestar changes a handler when it registers it, so each application has its own."""
    groups = (group for module in MODULES for group in module.HANDLERS)
    return [copy.deepcopy(one) for group in groups for one in (group if isinstance(group, list) else [group])]


async def _follow_tokens(host: Host) -> None:
    """Wake the streams when the token file has changed: those of revoked tokens end."""
    while True:
        await asyncio.sleep(TOKENS_S)
        access = host.access
        await host.follow_tokens()
        if host.access is not access:
            host.hub.wake()


def build_app(host: Host) -> Middleware:
    """The application of one server. Its engine calls run on a pool of `Options.threads` threads."""
    dependencies = {
        "host": Provide(provide_host, sync_to_thread=False),
        "caller": Provide(provide_caller, sync_to_thread=False),
    }

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        pool = ThreadPoolExecutor(host.options.threads, thread_name_prefix="http")
        asyncio.get_running_loop().set_default_executor(pool)
        host.hub.open()
        following = asyncio.create_task(_follow_tokens(host))
        try:
            yield
        finally:
            following.cancel()
            host.hub.close()
            pool.shutdown(wait=False, cancel_futures=True)

    app = Litestar(
        _handlers(),
        dependencies=dependencies,
        guards=[guard],
        exception_handlers=ERROR_HANDLERS,
        lifespan=[lifespan],
        openapi_config=None,
        request_max_body_size=host.options.body_max_bytes,
        state=State({"host": host, "schema": openapi(_handlers(), dependencies, tokens=not host.access.open)}),
        logging_config=None,
    )
    return Middleware(Bodies(Idempotency(MoreMethods(app)), app, host), host)
