"""`/events` and `/audit`: events from outside, the event log by page and as a stream, the audit history.

Pages and streams read the durable log, so a client that was away misses no event that is kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.exceptions import CloudEventValidationError
from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter
from litestar.response import Stream

from shadowswitch.model.errors import ShadowSwitchError, UnknownBranch
from shadowswitch.model.events import to_cloud_event
from shadowswitch.model.inbound_events import EventOutcome, parse_incoming
from shadowswitch.model.views import Event
from shadowswitch.service.http.access import Caller, Scope, now
from shadowswitch.service.http.bodies import events as bodies
from shadowswitch.service.http.bodies.fields import WHOLE_MAX
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.limits.body import is_json
from shadowswitch.service.http.middleware import CLEANUP
from shadowswitch.service.http.problems import BadRequest
from shadowswitch.service.http.routes.branches import After, Limit
from shadowswitch.service.http.routes.indexing import check_own, under_way
from shadowswitch.service.http.routing import PREFIX, changes, reads
from shadowswitch.service.reached import check_reached

BASE = f"{PREFIX}/events"
PAGE = 500
FROM_NOW_ON = -1
"""In place of a sequence number."""
HEARTBEAT_S = 15.0
"""The longest silence of a stream: proxies close a silent one, and only a write reveals that the client has gone."""
JSON = "application/json"
OF_TWO = ("branch.forked", "branch.merged")
"""The ends of the types of events that name another branch."""
REQUIRED = ("specversion", "id", "source", "type")
"""The attributes of a CloudEvent that its sender gives."""
STRUCTURED = "application/cloudevents+json"
EVENT_STREAM = "text/event-stream"
"""The only type that a client of Server-Sent Events accepts. The route declares it: for a stream, Litestar prefers the
media type of the route to that of the answer."""


def may_see(caller: Caller, event: Event) -> bool:
    """Whether the branch of an event is one that the caller reaches; of two branches both."""
    if "*" in caller.branches:
        return True
    named = [event.data.get("branch_name", event.data.get("branch", event.subject))]
    if event.type.endswith(OF_TWO):
        named += [event.data[other] for other in ("parent", "source") if other in event.data]
    return all(isinstance(name, str) and caller.reaches(name) for name in named)


@reads(BASE)
def page(host: Host, caller: Caller, after: After = 0, limit: Limit = 1000) -> bodies.Page:
    """The durable event log after a sequence number, as CloudEvents. 410 for a number that was never reached."""
    oldest, newest = check_reached(after, host.engine.event_span())
    found = host.engine.events(after, limit)
    next_after = found[-1].sequence if found else newest
    return bodies.Page([to_cloud_event(event) for event in found if may_see(caller, event)], next_after, oldest, newest)


@reads(f"{PREFIX}/audit", Scope.ADMIN)
def audit(host: Host, caller: Caller, after: After = 0, limit: Limit = 1000) -> bodies.Audit:
    """The audit history after a sequence number: switches, rollbacks, forced steps, decisions of recovery."""
    oldest, newest = check_reached(after, host.engine.audit_span(), "entry")
    found = host.engine.audit(after, limit)
    next_after = found[-1].sequence if found else newest
    return bodies.Audit([entry for entry in found if may_see(caller, entry)], next_after, oldest, newest)


@changes(BASE, Scope.BUILD)
def receive(body: bytes, request: Request[Any, Any, Any], host: Host, caller: Caller) -> EventOutcome:
    """A CloudEvent, structured or binary: indexing has completed or failed. Repeated, it gets the first outcome."""
    event = decoded(dict(request.headers), body)
    incoming = parse_incoming(event)
    branch = incoming.data.branch_name
    for scope in (Scope.BUILD, Scope.SWITCH) if incoming.for_shadow else (Scope.BUILD, Scope.LOCK):
        caller.require(scope, branch)
    # an event of this caller that was handled before changes nothing, whichever work is under way now
    again = host.engine.event_outcome(incoming.source, incoming.id, branch, caller.name) is not None
    if not incoming.for_shadow and not again and not caller.may(Scope.ADMIN, branch):
        with contextlib.suppress(UnknownBranch):  # the engine makes an outcome of it
            check_own(caller, under_way(host, branch, incoming.data.indexed_resource_types or None))
    with host.long_call(caller):
        return host.engine.receive_event(event, by=caller.name)


def decoded(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """An event in the JSON form of CloudEvents. Raises BadRequest."""
    hint = f"send it as {STRUCTURED}, or with ce- headers and a JSON body"
    try:
        event = from_http_event(HTTPMessage(headers=headers, body=body))
        attributes, data = event.get_attributes(), event.get_data()
    except CloudEventValidationError as error:
        reasons = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in error.errors.items())
        raise BadRequest(f"this is no CloudEvent: {reasons}", hint=hint) from error
    except ShadowSwitchError:
        raise
    except Exception as error:  # of a batch, an array or bad JSON, as the binding raises it
        raise BadRequest(f"this is no CloudEvent: {type(error).__name__}", hint=hint) from error
    _check_given(headers, body, hint)
    if isinstance(data, bytes | str):
        try:
            data = json.loads(data)
        except ValueError as error:
            raise BadRequest("the data of this CloudEvent is no JSON", hint=hint) from error
    wrong = [name for name, value in attributes.items() if not isinstance(value, str | int | datetime)]
    if wrong or not is_json(str(attributes.get("datacontenttype", JSON))):
        raise BadRequest(f"this CloudEvent cannot be read: {', '.join(wrong) or 'its data is no JSON'}", hint=hint)
    texts = {name: value if isinstance(value, str) else str(value) for name, value in attributes.items()}
    return {**texts, "data": data}


# -- the stream -------------------------------------------------------------------------------------------------------


@get(f"{BASE}/stream", opt={"scope": Scope.READ}, media_type=EVENT_STREAM)
async def stream(
    request: Request[Any, Any, Any],
    host: Host,
    caller: Caller,
    after: Annotated[int, Parameter(required=False, ge=FROM_NOW_ON, le=WHOLE_MAX)] = FROM_NOW_ON,
) -> Response[Any]:
    """Server-Sent Events: from now on, or after a number (`Last-Event-ID` or `after`). 410 for one never reached."""
    place = first_place(request.headers.get("last-event-id"), after)
    cleanup: contextlib.ExitStack = request.scope[CLEANUP]  # type: ignore[literal-required]
    cleanup.enter_context(host.streams.place(host.share_of(caller)))
    if place == FROM_NOW_ON:
        place = await sync_to_thread(host.hub.newest)
    check_reached(place, await sync_to_thread(host.engine.event_span))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(stream_events(host, caller, place), headers=headers)


def _check_given(headers: dict[str, str], body: bytes, hint: str) -> None:
    """Raise BadRequest for an attribute that the sender left out: the SDK makes up an id, which recognises nothing."""
    given = {name.lower().removeprefix("ce-") for name in headers if name.lower().startswith("ce-")}
    if not given:
        given = set(json.loads(body))  # it was decoded before
    missing = [name for name in REQUIRED if name not in given]
    if missing:
        raise BadRequest(f"this is no CloudEvent: it has no {', '.join(missing)}", hint=hint)


def first_place(last_id: str | None, after: int) -> int:
    """The sequence number to begin after, or FROM_NOW_ON. Raises BadRequest."""
    if last_id is None or last_id == "":
        return after
    if not last_id.isascii() or not last_id.isdigit() or len(last_id) > 18:
        raise BadRequest("Last-Event-ID is no sequence number", hint="send the id of the last event, or leave it out")
    return int(last_id)


async def stream_events(host: Host, caller: Caller, after: int) -> AsyncIterator[bytes]:
    """Events after a number as they come, until the client disconnects, the server stops or the token is not valid.

    No empty line but behind an event: some clients take one behind a `retry` field or a comment for an empty event.
    """
    with host.hub.subscription() as woken:
        yield b"retry: 1000\n"
        while not host.hub.closed:
            try:
                found = await sync_to_thread(host.engine.events, after, PAGE)
            except ShadowSwitchError:
                return
            await host.follow_tokens()
            if not host.admits(caller):
                return
            if not found:
                await host.hub.wait(woken, min(HEARTBEAT_S, caller.seconds_left(now())))
                if not woken.is_set():
                    yield b": alive\n"
                continue
            for event in found:
                if may_see(caller, event):
                    yield encode(event)
            after = found[-1].sequence


def encode(event: Event) -> bytes:
    """One event of a stream. Its JSON has no line breaks."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.sequence, event.type.encode(), msgspec.json.encode(to_cloud_event(event))
    )  # fmt: skip


HANDLERS = (page, audit, receive, stream)
