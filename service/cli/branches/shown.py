"""Forks and conflicts as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shadowswitch.model.forks.merging import same
from shadowswitch.model.forks.views import Conflict
from shadowswitch.service.cli import output
from shadowswitch.service.merge_report import MergeReport
from shadowswitch.storage.catalog.rows import FOLLOWING

VALUE_CHARS_MAX = 200
"""A longer value is cut; `--json` has all of it."""
SIDES = ("base", "ours", "theirs")
NO_RECORD = "no record"


def fork_text(parent: str | None, fork_lsn: int | None, mode: str | None) -> str:
    """`fork of main as of LSN 7`, `fork of main, which it follows`; "" for a branch that is no fork."""
    if parent is None:
        return ""
    return f"fork of {parent}, which it follows" if mode == FOLLOWING else f"fork of {parent} as of LSN {fork_lsn}"


def report_lines(report: MergeReport, ours: str, theirs: str) -> Iterator[str]:
    """A merge or a rebase as lines; `ours` is the fork, `theirs` its parent."""
    if report.conflicts:
        yield f"ours: {ours}; theirs: {theirs}"
    for conflict in report.conflicts:
        yield from conflict_lines(conflict)
    if len(report.conflicts) < report.conflict_count:
        yield f"... and {report.conflict_count - len(report.conflicts)} more"
    yield report.message
    if not report.success:
        yield "settle them with --on-conflict ours or theirs, or change one side so that both are alike"


def conflict_lines(conflict: Conflict) -> Iterator[str]:
    """A conflict as lines: each field that both sides changed, with its three values; or the whole record."""
    sides = {name: getattr(conflict, name) for name in SIDES}
    named = f"conflict: {conflict.resource_type} {conflict.id}"
    if not conflict.fields:
        yield f"{named}, the whole record"
        yield from (f"    {name + ':':<8}{_record(fields, sides)}" for name, fields in sides.items())
        return
    for field in conflict.fields:
        yield f"{named}, field {field}"
        for name, fields in sides.items():
            value = output_value(fields[field]) if fields and field in fields else "no such field"
            yield f"    {name + ':':<8}{value}"


def _record(fields: dict[str, Any] | None, sides: dict[str, dict[str, Any] | None]) -> str:
    if fields is None:
        return "deleted" if sides["base"] is not None else NO_RECORD
    return output_value({name: value for name, value in fields.items() if _differs(name, value, sides.values())})


def _differs(name: str, value: Any, sides: Iterable[dict[str, Any] | None]) -> bool:
    """Has another side another value of a field, or no such field, or no record?"""
    return any(side is None or name not in side or not same(side[name], value) for side in sides)


def output_value(value: Any) -> str:
    """A value as JSON, cut."""
    text = msgspec.json.encode(value).decode()
    return (
        text
        if len(text) <= VALUE_CHARS_MAX
        else f"{text[:VALUE_CHARS_MAX]}... ({output.counted(len(text), 'character')})"
    )
