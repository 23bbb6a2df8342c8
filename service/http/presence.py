"""Whether the client of a request that waits is still there: nobody is to get a lock after they have gone away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Request
from litestar.concurrency import sync_to_thread

T = TypeVar("T")


async def while_present(request: Request[Any, Any, Any], work: Callable[[Callable[[], bool]], T]) -> T:
    """Do `work` on a thread of the pool; it can ask at any time whether the client is still connected.

    The body of the request must have been read: what is received after it is only that the client has gone.
    """
    gone = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        return await sync_to_thread(work, lambda: not gone.is_set())
    finally:
        watcher.cancel()
