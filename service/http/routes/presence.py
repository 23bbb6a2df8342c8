"""Work that ends when its client disconnects, or its token is revoked: neither must be granted a lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Request
from litestar.concurrency import sync_to_thread

from shadowswitch.service.http.access import Caller
from shadowswitch.service.http.host import Host

T = TypeVar("T")


async def while_present(
    request: Request[Any, Any, Any], host: Host, caller: Caller, work: Callable[[Callable[[], bool]], T]
) -> T:
    """Run `work` on a thread of the pool. Its argument says at any time whether the client is still connected, and its
    token still known.

    The body of the request must have been read: the only message after it is the disconnect.
    """
    gone = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        return await sync_to_thread(work, lambda: not gone.is_set() and host.admits(caller))
    finally:
        watcher.cancel()
