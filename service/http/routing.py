"""What every route has: one scope, the host, the caller; and the guard that no route can be without."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from litestar import Request, delete, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from shadowswitch.service.http.access import Caller, Scope, Unauthorized
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.middleware import CALLER

PREFIX = "/api/v1"
PUBLIC = "public"
"""In place of a scope: for everybody who reaches the port."""

Decorate = Callable[[Callable[..., Any]], Any]


def reads(path: str | list[str], scope: Scope | str = Scope.READ, **more: Any) -> Decorate:
    """A GET route. Its function runs on a thread of the pool."""
    return _route(get, path, scope, more)


def changes(path: str | list[str], scope: Scope, status_code: int = 200, **more: Any) -> Decorate:
    """A POST route. Its function runs on a thread of the pool."""
    return _route(post, path, scope, {"status_code": status_code, **more})


def removes(path: str | list[str], scope: Scope, **more: Any) -> Decorate:
    """A DELETE route with an answer. Its function runs on a thread of the pool."""
    return _route(delete, path, scope, {"status_code": 200, **more})


def _route(kind: Callable[..., Any], path: str | list[str], scope: Scope | str, more: dict[str, Any]) -> Decorate:
    def decorate(function: Callable[..., Any]) -> Any:
        summary, _, rest = (function.__doc__ or "").strip().partition("\n\n")
        texts = {"summary": summary, "description": " ".join(rest.split()) or None}
        paths = [path] if isinstance(path, str) else path  # Litestar wraps a handler anew for each path it has
        threads = {} if inspect.iscoroutinefunction(function) else {"sync_to_thread": True}
        return [kind(one, opt={"scope": scope}, **threads, **texts, **more)(function) for one in paths]

    return decorate


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let only those through who have the scope of a route; the branch is looked at by the route itself."""
    scope = handler.opt.get("scope", Scope.ADMIN)
    if scope == PUBLIC:
        return
    caller: Caller | None = connection.scope.get(CALLER)  # type: ignore[assignment]
    if caller is None:
        raise Unauthorized("a token is needed", hint="send Authorization: Bearer TOKEN")
    caller.require(scope)


def the_host(request: Request[Any, Any, Any]) -> Host:
    """The host, for routes."""
    return request.app.state.host  # type: ignore[no-any-return]


def the_caller(request: Request[Any, Any, Any]) -> Caller:
    """Who calls, for routes that are not public."""
    return request.scope.get(CALLER)  # type: ignore[return-value]
