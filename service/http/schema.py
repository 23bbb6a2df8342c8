"""The OpenAPI document: what Litestar derives from the routes, and what it leaves out.

It leaves out that unknown fields are refused, what errors look like, who may call, and bodies that are no JSON.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ControllerRouterHandler, Method
from litestar.types.internal_types import PathParameterDefinition

from shadowswitch.model import records, views
from shadowswitch.model.inbound_events import ACCEPTED
from shadowswitch.service.daemon import daemon as upkeep
from shadowswitch.service.daemon import index_reconciler as index_keeper
from shadowswitch.service.daemon import mirror, webhooks
from shadowswitch.service.http.access import Scope
from shadowswitch.service.http.bodies import locks as lock_bodies
from shadowswitch.service.http.bodies import shadows as bodies
from shadowswitch.service.http.problems import MEDIA_TYPE
from shadowswitch.service.http.routes import branches, events, operations
from shadowswitch.service.http.routes.events import BASE as EVENTS
from shadowswitch.service.http.routes.events import STRUCTURED
from shadowswitch.service.http.routing import PREFIX, PUBLIC

DESCRIPTION = (
    "Rebuild an index in the shadow while everybody keeps writing, lose nothing, switch in one disk commit. "
    "Names in paths are percent-encoded as UTF-8, a slash as %2F. Times are UTC. "
    "With the header Idempotency-Key a POST or DELETE that is sent again gets the first answer again."
)
MODULES = (bodies, branches, events, index_keeper, lock_bodies, mirror, operations, records, upkeep, views, webhooks)
"""Where the structs of requests and answers are."""
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong, and what to do next (RFC 9457). A blocked write has more members.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "operation": {"type": "string"},
        "object": {"type": "string"},
        "recoverable": {"type": "boolean"},
        "request_id": {"type": "string"},
    },
}
BLOCKED: dict[str, Any] = {
    "allOf": [{"$ref": "#/components/schemas/Problem"}],
    "type": "object",
    "required": ["error", "message", "reason", "branch", "holder", "retry_after", "alternative_actions"],
    "properties": {
        "error": {"const": "SchemaFrozen"},
        "message": {"type": "string"},
        "reason": {"type": "string"},
        "branch": {"type": "string"},
        "resource_type": {"type": ["string", "null"]},
        "lock_scope": {"enum": ["branch", "resource_type", "resource", "index"]},
        "holder": {"type": "string"},
        "other_resources_available": {"type": "boolean"},
        "available_resource_types": {"type": "array", "items": {"type": "string"}},
        "indexing_progress": {"type": ["integer", "null"]},
        "eta_seconds": {"type": ["integer", "null"]},
        "retry_after": {"type": ["integer", "null"]},
        "alternative_actions": {"type": "array", "items": {"type": "string"}},
    },
}
ERRORS = {
    "400": "The request cannot be understood.",
    "401": "A token is needed, or is not known.",
    "403": "The token may not do this.",
    "404": "There is no such thing.",
    "409": "The present state of things does not allow it.",
    "413": "The body is too long.",
    "422": "The request is understood and cannot be done as it is.",
    "429": "Requests come too fast.",
    "500": "Something unforeseen happened.",
    "503": "Not now; try again after `Retry-After` seconds.",
    "507": "The disk is full; nothing was stored.",
}
CLOUD_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "source": {"type": "string", "minLength": 1, "maxLength": 1024},
        "type": {"enum": sorted(ACCEPTED)},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"type": "string", "format": "uri", "minLength": 1},
        "data": {"type": "object", "required": ["branch_name"], "properties": {"branch_name": {"type": "string"}}},
    },
    "propertyNames": {"pattern": "^[a-z0-9]{1,20}$"},
    "additionalProperties": {"type": ["string", "integer", "boolean"], "description": "An extension attribute."},
}


def openapi(handlers: Sequence[ControllerRouterHandler], dependencies: dict[str, Provide], *, tokens: bool) -> bytes:
    """The document as JSON; with `tokens` it tells that they are needed."""
    config = OpenAPIConfig(
        title="shadowswitch",
        version=importlib.metadata.version("shadowswitch"),
        description=DESCRIPTION,
        operation_id_creator=_operation_id,
        path="/.openapi",  # of an application that is never served
    )
    app = Litestar(handlers, dependencies=dependencies, openapi_config=config)
    document = app.openapi_schema.to_schema()
    _describe_structs(document)
    document["components"]["schemas"] |= {"Problem": PROBLEM, "Blocked": BLOCKED}
    if tokens:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    routes = {route.path.replace(":str}", "}"): route for route in app.routes}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(operation, method, _handler_of(routes.get(path), method), tokens)
    _describe_events(document)
    return msgspec.json.encode(document)


def _operation_id(handler: HTTPRouteHandler, method: Method, components: list[str | PathParameterDefinition]) -> str:
    """A name for a client's function: what the path says, without its parameters."""
    words = [part for one in components if isinstance(one, str) and one not in ("api", "v1") for part in one.split("-")]
    named = [one.name for one in components if not isinstance(one, str)]
    prefix = ["root"] if components[:2] != ["api", "v1"] else []
    return "_".join(
        [method.lower(), *prefix, *words, *(["by", *named] if named and not isinstance(components[-1], str) else [])]
    )


def _describe_structs(document: dict[str, Any]) -> None:
    """Let msgspec, which checks the bodies, describe them: with every bound, and whether unknown fields are refused."""
    present = document["components"]["schemas"]
    kinds = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__name__ in present
    }
    _, described = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template="#/components/schemas/{name}"
    )
    present |= described
    switched = described["Switched"]  # the defaults of a SwitchResult are for the engine: an answer has every field
    switched["required"] = ["timestamp", *views.SwitchResult.__struct_fields__]
    for name in views.SwitchResult.__struct_fields__:
        switched["properties"][name].pop("default", None)
    change = described["ChangeIn"]["properties"]
    common = {"type": "object", "additionalProperties": False}
    put = {**common, "required": ["resource_type", "id", "fields"]}
    put["properties"] = {**change, "kind": {"const": "put"}, "fields": {"type": "object"}}
    delete = {**common, "required": ["resource_type", "id", "kind"]}
    delete["properties"] = {**change, "kind": {"const": "delete"}, "fields": {"type": "null"}}
    present["ChangeIn"] = {"description": described["ChangeIn"]["description"], "oneOf": [put, delete]}


def _handler_of(route: Any, method: str) -> Any:
    found = getattr(route, "route_handler_map", {}).get(method.upper())
    return found[0] if isinstance(found, tuple) else found


def _complete(operation: dict[str, Any], method: str, handler: Any, tokens: bool) -> None:
    """Add who may call, what errors look like, and whether a body is needed."""
    scope = str(handler.opt.get("scope", Scope.ADMIN))
    if handler.parsed_data_field is not None and handler.parsed_data_field.is_optional:
        operation["requestBody"]["required"] = False
    responses = operation["responses"]
    responses.pop("400", None)
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in ERRORS.items():
        responses.setdefault(status, {"description": description, "content": problem})
    responses["default"] = {"description": "Any other error.", "content": problem}
    if operation["operationId"].endswith("branches_write"):
        blocked = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Blocked"}}}
        responses["423"] = {"description": "A lock is in the way.", "content": blocked}
    if scope and scope != PUBLIC:
        if tokens:
            operation["security"] = [{"bearer": []}]
        operation["description"] = f"{operation.get('description', '')}\n\nScope: `{scope}`.".strip()
    if method in ("post", "delete"):
        key = {"name": "Idempotency-Key", "in": "header", "required": False}
        key["schema"] = {"type": "string", "pattern": "^[!-~]{1,200}$"}
        operation.setdefault("parameters", []).append(key)


def _describe_events(document: dict[str, Any]) -> None:
    document["paths"][EVENTS]["post"]["requestBody"] = {
        "required": True,
        "description": "Structured mode; in binary mode the attributes are ce- headers and the body is the data.",
        "content": {STRUCTURED: {"schema": CLOUD_EVENT}},
    }
    stream = document["paths"][f"{PREFIX}/events/stream"]["get"]["responses"]["200"]
    stream["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
