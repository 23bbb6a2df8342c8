"""The story of an engine, for its log: a line for each event that an operator wants to read afterwards.

A line is a sentence and its fields, `name=value`, in quotes where a value could be taken for two. The unit of a figure
stands last in its name. Every character from outside is escaped: no reason and no name ends a line or begins a field.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shadowswitch.model.names import escaped

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR

SENTENCES: Final = {
    "branch.created": (INFO, "branch created"),
    "branch.state": (INFO, "branch changed its state"),
    "build.claimed": (INFO, "build claimed"),
    "build.started": (INFO, "build started"),
    "build.copied": (INFO, "build copied every record"),
    "build.validated": (INFO, "build validated"),
    "build.completed": (INFO, "build is BUILT"),
    "build.refused": (WARNING, "delivery refused"),
    "build.failed": (ERROR, "build failed"),
    "build.cancelled": (INFO, "build cancelled"),
    "build.retried": (INFO, "build retried"),
    "build.resumed": (INFO, "build goes on"),
    "build.unseeded": (WARNING, "build begins again from the records, the generation it began from did not pass"),
    "build.paused": (INFO, "build paused"),
    "worker.killed": (ERROR, "a worker process was killed, it gave no sign of life"),
    "build.throttled": (INFO, "build throttled"),
    "build.priority": (INFO, "build has another priority"),
    "switch.scheduled": (INFO, "switch scheduled"),
    "switch.unscheduled": (INFO, "scheduled switch taken back"),
    "switch.postponed": (WARNING, "scheduled switch refused, it is tried again"),
    "switch.started": (INFO, "switch started"),
    "switch.given_up": (WARNING, "switch refused, nothing has changed"),
    "switch.committed": (INFO, "switched"),
    "rollback.committed": (INFO, "rolled back"),
    "index.retuned": (INFO, "the live index answers with other settings"),
    "group.started": (INFO, "group started"),
    "group.switched": (INFO, "group switched"),
    "group.rolled_back": (INFO, "group rolled back"),
    "group.ended": (INFO, "group holds its indexes no more"),
    "index.unsound": (ERROR, "the live generation is unsound, and there is none to go back to"),
    "generation.condemned": (ERROR, "a generation is unsound"),
    "generation.retired": (INFO, "generation retires"),
    "generation.removed": (INFO, "generation removed"),
    "lock.granted": (INFO, "lock granted"),
    "lock.extended": (INFO, "lock extended"),
    "lock.released": (INFO, "lock released"),
    "lock.expired": (WARNING, "lock expired"),
    "lock.forced": (WARNING, "lock forced open"),
    "hold.given_up": (WARNING, "hold given up"),
    "catalog.repaired": (WARNING, "catalog repaired"),
    "catalog.restored": (WARNING, "restored from a backup"),
    "recovery.resumed": (INFO, "recovery: the build goes on"),
    "recovery.awaited": (INFO, "recovery: an external build is awaited"),
    "recovery.checked": (INFO, "recovery: a generation was read whole, and is sound"),
    "recovery.locks_kept": (INFO, "recovery: locks stay held"),
    "recovery.cleaned": (INFO, "recovery: leftovers removed"),
    "recovery.published": (INFO, "recovery: the published path agrees again"),
    "recovery.broken": (ERROR, "recovery: a generation cannot be served"),
    "incoming.handled": (INFO, "event from outside handled"),
    "branch.merge_considered": (INFO, "automatic merge considered"),
    "settings.applied": (INFO, "settings applied"),
    "settings.refused": (WARNING, "settings refused, the old ones stay"),
}
"""Type of an event, or of a step of a build, -> level and sentence. WARNING: look at it today. ERROR: now."""
STARTED: Final = "the engine started"
RENAMED: Final = {"branch_name": "branch", "error": "reason"}
REPEATED: Final = frozenset({"state", "switch_duration_ms", "shadow_index_id"})
"""Fields that repeat what the sentence or another field says."""


class Line(NamedTuple):
    """A line of the log."""

    level: int
    text: str
    fields: dict[str, Any]


class Author(NamedTuple):
    """The author and the reason of a build, for the lines that come of it."""

    by: str
    reason: str


def line_of(kind: str, subject: str, data: Mapping[str, Any], author: Author | None = None) -> Line:
    """The line of an event (its type without the prefix).

    An event without an author of its own has that of its build.
    """
    if kind == "switch.finished":
        level, sentence = _finished(data)
    else:
        level, sentence = SENTENCES.get(kind) or (INFO, kind.replace(".", " ").replace("_", " "))
    if kind == "branch.state" and data.get("state") == "ERROR":
        level = ERROR
    fields: dict[str, Any] = {RENAMED.get(name, name): value for name, value in data.items() if name not in REPEATED}
    if kind == "branch.state":
        fields |= {"state": data.get("state")}
    if "index_type" in data or kind.startswith("generation."):
        fields |= {"shadow": subject}
    elif "branch" not in fields and subject:
        fields |= {"subject": subject}
    by = fields.pop("by", "") or (author.by if author else "") or "shadowswitch"
    reason = fields.pop("reason", "") or (author.reason if author else "")
    if not reason and kind.startswith("recovery."):
        reason = STARTED
    first: dict[str, Any] = {name: fields.pop(name) for name in ("branch", "index_type", "shadow") if name in fields}
    return line(level, sentence, {**first, **fields, "by": by, "reason": reason or "not given"}, kind)


def line(level: int, sentence: str, fields: Mapping[str, Any], kind: str) -> Line:
    """A line of a sentence and its fields. None, False and what is empty are left out."""
    said = {name: value for name, value in fields.items() if value is not False and value not in (None, "", [])}
    text = "  ".join([sentence, *(f"{name}={quoted(value)}" for name, value in said.items())])
    return Line(level, text, {"event": kind, **said})


def quoted(value: object) -> str:
    """The value of a field; in quotes if a space or a quote in it could be taken for the end of the field."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if not text or any(one in text for one in (" ", '"', "\\", "=")) or not text.isprintable():
        return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return text


def _finished(data: Mapping[str, Any]) -> tuple[int, str]:
    """A switch that ended: its figures. One that was reverted by the engine is for a person."""
    word = "rollback" if data.get("rollback") else "switch"
    if data.get("rolled_back"):
        return ERROR, f"{word} was reverted"
    return (INFO, f"{word} finished") if data.get("success") else (WARNING, f"{word} did not take effect")
