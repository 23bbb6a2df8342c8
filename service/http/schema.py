"""The OpenAPI document: what Litestar derives from the routes, completed.

Litestar leaves out that unknown fields are refused, the form of errors, the scopes, and bodies that are not JSON.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

import msgspec
from litestar import Litestar, Response
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ControllerRouterHandler, Method
from litestar.types.internal_types import PathParameterDefinition

from shadowswitch.model.inbound_events import ACCEPTED
from shadowswitch.model.views import SwitchResult
from shadowswitch.service.http.access import Scope
from shadowswitch.service.http.problems import MEDIA_TYPE
from shadowswitch.service.http.routes.events import BASE as EVENTS
from shadowswitch.service.http.routes.events import EVENT_STREAM, STRUCTURED
from shadowswitch.service.http.routing import PREFIX, PUBLIC

DESCRIPTION = (
    "Rebuild an index in the shadow while writers go on, lose nothing, switch in one disk commit. "
    "Names in paths are percent-encoded as UTF-8, a slash as %2F. Times are UTC. "
    "A POST or DELETE that was done and is repeated with the same Idempotency-Key gets the first answer again."
)
NOT_JSON = (bytes, Any)
"""Bodies that no schema describes."""
WRITING = ("branches_write", "branches_merge_into", "branches_rebase")
"""The ends of the ids of operations that are admitted like a write."""
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "The error, and a hint to the next step (RFC 9457). A blocked write has more members.",
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
    "401": "A token is missing or unknown.",
    "403": "The token does not allow it.",
    "404": "No such path, branch, shadow, index or lock.",
    "408": "The body did not come in time.",
    "409": "The present state of things does not allow it.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
    "422": "The request is understood and cannot be done as it is.",
    "429": "Requests come too fast.",
    "431": "The header is too long.",
    "500": "An unforeseen error.",
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
        "dataschema": {"type": "string", "minLength": 1},
        "data": {"type": "object", "required": ["branch_name"], "properties": {"branch_name": {"type": "string"}}},
    },
    "propertyNames": {"pattern": "^[a-z0-9]{1,20}$"},
    "additionalProperties": {"type": ["string", "integer", "boolean"], "description": "An extension attribute."},
}


def openapi(handlers: Sequence[ControllerRouterHandler], dependencies: dict[str, Provide], *, tokens: bool) -> bytes:
    """The document as JSON. With `tokens` it says that they are needed."""
    config = OpenAPIConfig(
        title="shadowswitch",
        version=importlib.metadata.version("shadowswitch"),
        description=DESCRIPTION,
        operation_id_creator=_operation_id,
        path="/.openapi",  # of an application that is never served
    )
    app = Litestar(handlers, dependencies=dependencies, openapi_config=config)
    document = app.openapi_schema.to_schema()
    operations = list(_operations(app, document))
    document["components"]["schemas"] |= _described([handler for _, _, handler in operations])
    document["components"]["schemas"] |= {"Problem": PROBLEM, "Blocked": BLOCKED}
    if tokens:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for method, operation, handler in operations:
        _complete(operation, method, handler, tokens)
    _describe_events(document)
    return msgspec.json.encode(document)


def _operations(app: Litestar, document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], HTTPRouteHandler]]:
    """Every operation of the document, with its method and its handler."""
    routes: dict[str, Any] = {route.path_format: route for route in app.routes}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            found = routes[path].route_handler_map[method.upper()]
            yield method, operation, found[0] if isinstance(found, tuple) else found


def _operation_id(handler: HTTPRouteHandler, method: Method, components: list[str | PathParameterDefinition]) -> str:
    """The name of a client's function: the words of the path, without its parameters."""
    words = [part for one in components if isinstance(one, str) and one not in ("api", "v1") for part in one.split("-")]
    named = [one.name for one in components if not isinstance(one, str)]
    prefix = ["root"] if components[:2] != ["api", "v1"] else []
    return "_".join(
        [method.lower(), *prefix, *words, *(["by", *named] if named and not isinstance(components[-1], str) else [])]
    )


def _described(handlers: Sequence[HTTPRouteHandler]) -> dict[str, Any]:
    """The schemas of bodies and answers, by msgspec, which checks the bodies: with every bound and refused field."""
    fields = [field for one in handlers for field in (one.parsed_data_field, one.parsed_return_field) if field]
    types = [field.annotation for field in fields]
    types = [get_args(one)[0] if get_origin(one) is Response else one for one in types]
    types = [one for one in types if one not in NOT_JSON]
    _, described = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    switched = described["Switched"]  # the defaults of a SwitchResult are for the engine: an answer has every field
    switched["required"] = ["timestamp", *SwitchResult.__struct_fields__]
    for name in SwitchResult.__struct_fields__:
        switched["properties"][name].pop("default", None)
    change = described["ChangeIn"]["properties"]
    common = {"type": "object", "additionalProperties": False}
    put = {**common, "required": ["resource_type", "id", "fields"]}
    put["properties"] = {**change, "kind": {"const": "put"}, "fields": {"type": "object"}}
    delete = {**common, "required": ["resource_type", "id", "kind"]}
    delete["properties"] = {**change, "kind": {"const": "delete"}, "fields": {"type": "null"}}
    described["ChangeIn"] = {"description": described["ChangeIn"]["description"], "oneOf": [put, delete]}
    return described


def _complete(operation: dict[str, Any], method: str, handler: Any, tokens: bool) -> None:
    """Add the scope, the errors, and whether a body is needed."""
    scope = str(handler.opt.get("scope", Scope.ADMIN))
    if handler.parsed_data_field is not None and handler.parsed_data_field.is_optional:
        operation["requestBody"]["required"] = False
    responses = operation["responses"]
    responses.pop("400", None)
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in ERRORS.items():
        responses.setdefault(status, {"description": description, "content": problem})
    responses["default"] = {"description": "Any other error.", "content": problem}
    if operation["operationId"].endswith(WRITING):
        blocked = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Blocked"}}}
        responses["423"] = {"description": "A lock blocks the write.", "content": blocked}
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
    stream["content"] = {EVENT_STREAM: {"schema": {"type": "string"}}}
