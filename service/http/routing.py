"""How a route is declared, its guard, and the methods of each path.

Every route names one scope. `guard` refuses a caller without it, so a route cannot be left open by mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar import Litestar, Request, delete, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import LitestarException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.utils import normalize_path

from shadowswitch.service.http.access import Caller, Scope, Unauthorized
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.middleware import CALLER, decode_segment
from shadowswitch.service.http.problems import BadRequest

PREFIX = "/api/v1"
QUERY = "query"
"""In the `opt` of a handler: the names of its parameters in a query."""
PUBLIC = "public"
"""In place of a scope: the route needs no token."""

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
    """Refuse a caller without the scope of the route, and a query that is no UTF-8 or has an unknown parameter.

    The route itself checks the branch. Raises Unauthorized, Forbidden, BadRequest.
    """
    caller: Caller | None = connection.scope.get(CALLER)  # type: ignore[assignment]
    check_scope(caller, handler)
    if connection.scope["query_string"]:
        try:
            unquote_to_bytes(connection.scope["query_string"]).decode()
        except UnicodeDecodeError as error:
            raise BadRequest("the query is not valid UTF-8", hint="percent-encode its values as UTF-8") from error
        known = query_parameters(handler, connection.path_params)
        unknown = sorted(set(connection.query_params) - known)
        if unknown:
            raise BadRequest(
                f"the query has an unknown parameter: {', '.join(unknown)}",
                hint=f"leave it out; this route has {', '.join(sorted(known)) or 'no parameters'}",
            )


def query_parameters(handler: BaseRouteHandler, path_parameters: Mapping[str, Any]) -> frozenset[str]:
    """The names of the parameters that a route has in its query, as a client sends them.

    Litestar gives a guard a copy of the handler for each request; the copies share `opt`, which keeps the names.
    """
    found: frozenset[str] | None = handler.opt.get(QUERY)
    if found is None:
        model = handler.create_kwargs_model(dict(path_parameters))
        found = handler.opt[QUERY] = frozenset(one.field_alias for one in model.expected_query_params)
    return found


def check_scope(caller: Caller | None, handler: BaseRouteHandler) -> None:
    """Raise Unauthorized or Forbidden for a caller without the scope of a route."""
    scope = handler.opt.get("scope", Scope.ADMIN)
    if scope == PUBLIC:
        return
    if caller is None:
        raise Unauthorized("a token is needed", hint="send Authorization: Bearer TOKEN")
    caller.require(scope)


def provide_host(request: Request[Any, Any, Any]) -> Host:
    """The argument `host` of a route."""
    return request.app.state.host  # type: ignore[no-any-return]


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The argument `caller` of a route that is not public."""
    return request.scope.get(CALLER)  # type: ignore[return-value]


def permitted_branch(segment: str, caller: Caller, scope: Scope) -> str:
    """The branch that a segment of the path names. Raises Forbidden for a caller without the scope for it."""
    branch = decode_segment(segment)
    caller.require(scope, branch)
    return branch


def route_of(app: Litestar, path: str, method: str) -> BaseRouteHandler | None:
    """The handler of a request; None if there is no such path, or no such method of it."""
    try:
        found = app.asgi_router.handle_routing(normalize_path(path), method)[1]
    except LitestarException:
        return None
    return found if isinstance(found, HTTPRouteHandler) else None


def takes_body(handler: BaseRouteHandler) -> bool:
    """Whether a route reads a body."""
    return bool({"data", "body"} & handler.parsed_fn_signature.parameters.keys())


def allowed_methods(app: Litestar, path: str) -> str:
    """The methods of a path as an Allow header has them, "" for a path that does not exist."""
    try:
        template = app.asgi_router.handle_routing(normalize_path(path), "OPTIONS")[4]
    except LitestarException:
        return ""
    routes = [route for route in app.routes if route.path_format == template]
    methods = {str(method) for route in routes for method in getattr(route, "methods", ())}
    head = {"HEAD"} if "GET" in methods else set()
    return ", ".join(sorted(methods | head | {"OPTIONS"})) if methods else ""


class MoreMethods:
    """The ASGI application that answers OPTIONS, and HEAD as GET without a body. It passes every other method on.

    Litestar's own answer to OPTIONS knows only the first method of a path whose routes were registered one by one.
    """

    def __init__(self, app: Litestar) -> None:
        self._app: Any = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("method") == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _headers_only(send))
            return
        allow = allowed_methods(self._app, scope["path"]) if scope.get("method") == "OPTIONS" else ""
        if not allow:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
        await send({"type": "http.response.body", "body": b""})


def _headers_only(send: Any) -> Any:
    """A `send` that ends an answer with its headers, also that of a stream."""
    ended = False

    async def send_start(message: Any) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return send_start
