"""Which methods a path has: the answer to OPTIONS, and the Allow header of every 405.

Litestar's own answer to OPTIONS knows only the first method of a path whose routes were registered one by one.
"""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.exceptions import LitestarException
from litestar.utils import normalize_path


def allowed(app: Litestar, path: str) -> str:
    """The methods of a path as an Allow header has them, "" for a path that does not exist."""
    try:
        template = app.asgi_router.handle_routing(normalize_path(path), "OPTIONS")[4]
    except LitestarException:
        return ""
    methods = {str(method) for route in app.routes if route.path_format == template for method in _methods(route)}
    return ", ".join(sorted(methods | {"OPTIONS"})) if methods else ""


def _methods(route: Any) -> set[str]:
    return set(getattr(route, "methods", ()))


class Methods:
    """The ASGI application that answers OPTIONS and leaves the rest to the routes."""

    def __init__(self, app: Litestar) -> None:
        self._app: Any = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        allow = allowed(self._app, scope["path"]) if scope.get("method") == "OPTIONS" else ""
        if not allow:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
        await send({"type": "http.response.body", "body": b""})
