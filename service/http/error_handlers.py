"""The answers to errors that leave a route, as Litestar calls for them."""

from __future__ import annotations

import logging
import re
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.service.http.middleware import REQUEST_ID
from shadowswitch.service.http.problems import MEDIA_TYPE, plain_problem, problem, status_of
from shadowswitch.service.http.routing import allowed_methods
from shadowswitch.storage.shortages import shortage

logger = logging.getLogger("shadowswitch")

HINTS = {
    404: "GET /schema lists the paths",
    405: "GET /schema lists the methods of each path",
}


def from_library(request: Request[Any, Any, Any], error: ShadowSwitchError) -> Response[Any]:
    """The answer to an error of the library."""
    if status_of(error) >= 500:
        logger.warning("%s: %s", _request_id(request), error)
    return _answer(*problem(error, _request_id(request)))


def from_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """The answer to a refusal of Litestar: an unknown path or method, a body that does not fit the schema."""
    detail, more = str(error.detail), {}
    if error.status_code >= 500:
        return from_anything(request, error)
    if error.status_code == 400:
        fields = [one for one in error.extra or [] if isinstance(one, dict)]
        parts = [_of_body(one) or ": ".join(str(one[k]) for k in ("key", "message") if one.get(k)) for one in fields]
        if isinstance(error.__cause__, SerializationException):  # Litestar says this of bodies alone
            detail = f"the body is not JSON: {detail}"
        detail = "; ".join([detail.partition(" for ")[0].strip(), *parts])
        more["errors"] = fields
    hint = HINTS.get(error.status_code, "GET /schema describes every request")
    body = plain_problem(error.status_code, detail, hint, _request_id(request), **more)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = allowed_methods(request.app, str(request.scope["path"]))
    return _answer(error.status_code, body, headers)


def from_deep_json(request: Request[Any, Any, Any], error: RecursionError) -> Response[Any]:
    """The answer to JSON that is nested deeper than any record that can be stored."""
    body = plain_problem(400, "the JSON is nested too deep", "send flatter fields", _request_id(request))
    return _answer(400, body, {})


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The answer to a shortage, or to an unforeseen error. The message of the latter stays in the log."""
    lack = shortage(error)
    if lack is not None:
        return from_library(request, lack)
    logger.error("%s: unforeseen %s", _request_id(request), type(error).__name__, exc_info=error)
    hint = "the log has it under the request id"
    return _answer(500, plain_problem(500, "something unforeseen happened", hint, _request_id(request)), {})


ERROR_HANDLERS: dict[int | type[Exception], Any] = {
    ShadowSwitchError: from_library,
    HTTPException: from_http,
    RecursionError: from_deep_json,
    Exception: from_anything,
}


def _answer(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response[Any]:
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _request_id(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get(REQUEST_ID, ""))


def _of_body(field: dict[str, Any]) -> str:
    """The error of a body as a whole, or inside it; "" for an error elsewhere. Litestar calls the body `data`."""
    if field.get("source") != "body":
        return ""
    message = str(field.get("message", ""))
    if message == "'data'":
        return "the body must be a JSON object, and it is empty"
    kind = re.fullmatch(r"Expected `object[^`]*`, got `(\w+)`", message)
    return f"the body must be a JSON object, not {kind[1]}" if kind else f"the body: {message}"
