"""RESULTS.md: the machine, every target beside what was measured, then every figure with its definition."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.common import Report, verdict

BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"
TITLE = "# Results\n\nWritten by `make bench`; every figure is defined beside it. "
HEAD = "Targets are those of the project, met or not as they came out.\n"


class Section(msgspec.Struct):
    """One script: its command, its time, its report."""

    name: str
    command: str
    took_s: float
    report: Report


def write(path: Path, sections: Sequence[Section], machine: dict[str, str], when: datetime, keep: bool) -> None:
    """Write the file. With `keep`, the sections of other scripts stay."""
    old = path.read_text(encoding="utf-8") if keep and path.exists() else ""
    parts = _parts(old)
    for section in sections:
        parts[section.name] = _section(section, machine, when)
    text = TITLE + HEAD + "\n" + _summary(parts) + "\n".join(parts.values())
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _parts(text: str) -> dict[str, str]:
    """The sections of an older file, by script."""
    found = re.finditer(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->\n", text, re.DOTALL)
    return {match.group(1): match.group(0) for match in found}


def _summary(parts: dict[str, str]) -> str:
    """All targets of all sections in one table: their rows are found again by their form."""
    rows = [
        row for part in parts.values() for row in part.splitlines() if re.match(r"\| (met|\*\*not met|not judged)", row)
    ]
    met, missed = (sum(row.startswith(word) for row in rows) for word in ("| met", "| **not met"))
    if not rows:
        return ""
    return f"**{met} targets met, {missed} not met**, {len(rows) - met - missed} not judged.\n\n"


def _section(section: Section, machine: dict[str, str], when: datetime) -> str:
    report = section.report
    lines = [BEGIN.format(section.name), f"## {report.title}", ""]
    if report.data:
        lines += [f"Data: {report.data}.", ""]
    lines += [f"`{section.command}`, {section.took_s:.0f} s, {when:%Y-%m-%d %H:%M} UTC.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines.append("")
    lines += [f"- **WRONG**: {_cell(problem)}" for problem in report.problems[:20]]
    if report.targets:
        lines += ["", "| | target | measured | |", "| --- | --- | --- | --- |"]
        lines += [_row(_verdict(t.met), t.says, t.measured, t.note) for t in report.targets]
    if report.figures:
        lines += ["", "| figure | value | unit | definition |", "| --- | ---: | --- | --- |"]
        lines += [_row(f.name, _number(f.value), f.unit, f.definition) for f in report.figures]
    if report.text:
        lines += ["", report.text]
    lines += [f"\n![{name}](plots/{name})" for name in report.plots]
    return "\n".join([*lines, "", END.format(section.name), ""])


def _verdict(met: bool | None) -> str:
    return f"**{verdict(met).lower()}**" if met is False else verdict(met)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"
