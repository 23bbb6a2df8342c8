"""The log of this library. A text from outside cannot end its line, forge another one, or command a terminal.

Names of files, branches and owners, reasons and messages of errors are arguments of log records. A filter of the logger
escapes them, so this holds for the handlers of every host. `begin_story` lets `actors/kit/story.py` write.

`RefusedCalls` writes the line of a refused operation, where the refusal leaves the library. An operation changes what
is built, live or kept: a build, a switch, a drop, a state of a branch. A refused lock or write has its line from the
BranchActor (`BranchLocks.note_refusal`), a switch that began and a build that failed have theirs from their events, and
reads have none. A caller may ask again and again: the same refusal (call, subject, author, reason but for its figures)
has its next line after `AGAIN_S`, then less and less often; `repeats` counts the refusals in between.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from inspect import BoundArguments

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.story import Story, note, remember
from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.actors.maintenance.subscribers import Subscriber, Subscribers
from shadowswitch.engine.calls.authors import BY_CHARS_MAX, author
from shadowswitch.model.errors import (
    BuildCancelled,
    BuildFailed,
    CompletionRefused,
    EngineClosed,
    ShadowSwitchError,
    Timeout,
)
from shadowswitch.model.events import EVENT_PREFIX
from shadowswitch.model.names import escaped
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.model.views import SwitchRequest
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.sizes import catalog_sizes
from shadowswitch.storage.clock import Clock

SLICE = 100

OPERATIONS = frozenset({
    "create_branch", "drop_branch", "archive_branch", "merge_branch", "reopen_branch", "recover_branch",
    "start_indexing", "complete_indexing", "drop_index", "force_unlock",
    "start_build", "cancel_build", "retry_build", "pause_build", "resume_build", "throttle_build", "set_priority",
    "complete_build", "fail_build", "rebuild", "switch", "rollback", "schedule_switch", "unschedule_switch",
    "start_group", "switch_group", "rollback_group", "dissolve_group",
})  # fmt: skip
"""The public calls that have a line when they are refused."""
NAMED_OTHERWISE = (BuildFailed, BuildCancelled, CompletionRefused, EngineClosed, Timeout)
"""The end of what began has a line of its own, and a closed engine has no story."""
SUBJECTS = {"branch": "branch", "name": "branch", "index_type": "index_type", "id": "shadow", "owner": "owner"}
"""Parameter of a call -> field of its line."""

AGAIN_S, AGAIN_S_MAX = 60.0, 3600.0
REFUSALS_MAX = 1000
"""Refusals that are remembered; while none of them is old enough to go, another one has no line."""
TEXT_CHARS_MAX = 1000
FIGURES = re.compile(r"\d[\d.,:]*")

Key = tuple[str, ...]


class _EscapedArguments(logging.Filter):
    """Escapes the arguments of each record. Numbers stay numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass. Any thread."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_escaped, record.args))
        return True


def _escaped(argument: object) -> object:
    return argument if argument is None or isinstance(argument, int | float) else escaped(str(argument))


def prepare_log() -> None:
    """Escape the arguments of every record of this library from now on. Idempotent.

    The handler that does nothing keeps records of a host without logging off its standard error.
    """
    logger = logging.getLogger("shadowswitch")
    logger.addFilter(_FILTER)
    logger.addHandler(_NOWHERE)


_FILTER = _EscapedArguments()
_NOWHERE = logging.NullHandler()


def begin_story(context: EngineContext, subscribers: Subscribers, stack: ExitStack) -> None:
    """From here on the log has a line for each event. `stack` must stop the Dispatcher before it ends the story.

    The line of the open names the last event before it: an engine that was killed may not have logged it.
    """
    catalog, story = context.catalog, Story()
    newest = catalog.span()[1]
    last = catalog.events(newest - 1, 1) if newest else []
    note(
        "engine opened",
        {
            "data": str(context.root),
            "branches": catalog_sizes(catalog)["entries"]["branches"],
            "indexes": sum(index.live > 0 for index in catalog.indexes()),
            "last_event": last[-1].type.removeprefix(EVENT_PREFIX) if last else None,
            "last_subject": last[-1].subject if last else None,
        },
        "engine.opened",
    )
    remember(context.shadows.standing(UNDER_WAY))
    subscriber = Subscriber(story.take, newest)
    subscribers.add(subscriber)
    stack.callback(note, "engine closed", {"data": str(context.root)}, "engine.closed")
    stack.callback(partial(_end, catalog, story, subscriber))


def _end(catalog: Catalog, story: Story, subscriber: Subscriber) -> None:
    """The Dispatcher has stopped: write the lines of the events that it did not deliver."""
    while rows := catalog.events(subscriber.after, SLICE):
        for row in rows:
            story.take(event_of(row, catalog.uuid))
            subscriber.took(row.sequence)


class _Repeated(msgspec.Struct):
    """A refusal with a line: when the next line may come, after which time, and the refusals since."""

    until: float
    again_s: float
    repeats: int = 0


class RefusedCalls:
    """Writes the lines of refused calls. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._repeated: dict[Key, _Repeated] = {}

    def note_call(self, name: str, call: BoundArguments, error: ShadowSwitchError) -> None:
        """Write the line of a refused operation with its author, its purpose and the reason of the refusal."""
        if isinstance(error, NAMED_OTHERWISE):
            return
        arguments = call.arguments
        request = arguments.get("request")
        by, purpose = arguments.get("by") or arguments.get("admin"), arguments.get("reason")
        if isinstance(request, SwitchRequest):
            by, purpose = request.performed_by, request.reason
        subjects = {field: _text(arguments[given]) for given, field in SUBJECTS.items() if given in arguments}
        self.note(name, subjects, by, purpose, error)

    def note(
        self, name: str, subjects: Mapping[str, str], by: object, purpose: object, error: ShadowSwitchError
    ) -> None:
        """Write the line of a refused call, unless the same refusal has had one just now."""
        named, _ = author(by[:BY_CHARS_MAX] if isinstance(by, str) else "")
        reason = _text(error.message)
        repeats = self._repeats((name, *subjects.values(), named, FIGURES.sub("", reason)))
        if repeats is not None:
            fields = {**subjects, "repeats": repeats or None, "by": named, "purpose": _text(purpose), "reason": reason}
            note(f"{name.replace('_', ' ')} refused", fields, f"{name}.refused")

    def _repeats(self, key: Key) -> int | None:
        """The same refusals since the last line; None if this one is to have no line."""
        now = self._clock.monotonic()
        with self._lock:
            last = self._repeated.get(key)
            if last is not None and now < last.until:
                last.repeats += 1
                return None
            if last is None and len(self._repeated) >= REFUSALS_MAX:
                self._repeated = {key: one for key, one in self._repeated.items() if now < one.until}
                if len(self._repeated) >= REFUSALS_MAX:
                    return None
            goes_on = last is not None and now < last.until + last.again_s
            again_s = min(2 * last.again_s, AGAIN_S_MAX) if last is not None and goes_on else AGAIN_S
            self._repeated[key] = _Repeated(now + again_s, again_s)
            return last.repeats if last is not None else 0


def _text(value: object) -> str:
    return str(value)[:TEXT_CHARS_MAX] if isinstance(value, str | int) else ""
