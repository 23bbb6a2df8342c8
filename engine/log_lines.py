"""The log of this library. A text from outside cannot end its line, forge another one, or command a terminal.

Names of files, branches and owners, reasons and messages of errors are arguments of log records. A filter of the logger
escapes them, so this holds for the handlers of every host. `begin_story` lets `actors/kit/story.py` write.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.story import Story, note, remember
from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.actors.maintenance.subscribers import Subscriber, Subscribers
from shadowswitch.model.events import EVENT_PREFIX
from shadowswitch.model.names import escaped
from shadowswitch.storage.catalog.environment import Catalog

SLICE = 100


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
            "branches": catalog.statistics()["entries"]["branches"],
            "indexes": sum(index.live > 0 for index in catalog.indexes()),
            "last_event": last[-1].type.removeprefix(EVENT_PREFIX) if last else None,
            "last_subject": last[-1].subject if last else None,
        },
        "engine.opened",
    )
    remember(catalog.shadows())
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
