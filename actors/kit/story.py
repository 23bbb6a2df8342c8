"""The Story: the one place that writes what happens to the log, from the events in the order of their transactions.

It is a subscriber of the event log, so a line says what is committed, and no other part has to remember to log it. What
is no event has a call of its own: the open and the close of an engine, and refused calls.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from shadowswitch.model.events import EVENT_PREFIX
from shadowswitch.model.operating.story import Author, Line, line, line_of
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.model.views import Event
from shadowswitch.storage.catalog.rows import ShadowRow

logger = logging.getLogger("shadowswitch")

AUTHORS_MAX = 1000
"""Builds whose author is known; the author of an older one is the engine."""
ENDED = frozenset({"build.failed", "build.cancelled", "generation.removed"})


_authors: OrderedDict[str, Author] = OrderedDict()
"""The author of each build, by the id of its shadow, for the lines that come of it. Any thread."""


class Story:
    """Writes the lines of events. On the thread of the Dispatcher, and behind its end on that of the close."""

    def take(self, event: Event) -> None:
        """Write the line of an event."""
        kind, by = event.type.removeprefix(EVENT_PREFIX), event.data.get("by")
        if kind in ("build.claimed", "build.retried") and by:
            _authors[event.subject] = Author(by, event.data.get("reason", ""))
            if len(_authors) > AUTHORS_MAX:
                _authors.popitem(last=False)
        begun = _authors.get(event.subject) if not kind.startswith("recovery.") else None
        write(line_of(kind, event.subject, event.data, begun))
        if kind in ENDED:
            _authors.pop(event.subject, None)


def remember(rows: Iterable[ShadowRow]) -> None:
    """Learn the authors of builds that an earlier engine began. Any thread."""
    for row in rows:
        if row.begun_by and row.state in UNDER_WAY:
            _authors.setdefault(row.id, Author(row.begun_by, row.begun_why))


def note_build(row: ShadowRow, kind: str, **figures: Any) -> None:
    """Write a line of a step of a build that is no event. Any thread."""
    about = {"branch_name": row.branch_name, "index_type": row.index_type}
    write(line_of(kind, row.id, about | figures, _authors.get(row.id)))


def note(sentence: str, fields: Mapping[str, Any], kind: str, level: int = logging.INFO) -> None:
    """Write a line of what is no event. Any thread."""
    write(line(level, sentence, fields, kind))


def write(found: Line) -> None:
    """Write a line to the logger of this library; the embedding program decides what becomes of it. Any thread."""
    if logger.isEnabledFor(found.level):
        logger.log(found.level, "%s", found.text, extra={"story": found.fields})
