"""What the command line prints: tables and progress for people, one JSON value for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from shadowswitch.model.views import ShadowIndex
from shadowswitch.service.demo import Live, Report

LINE_INTERVAL_S = 2.0
"""Where there is no terminal, progress is a line now and then."""


def plain(value: Any) -> Any:
    """Any of our values as JSON-like."""
    return msgspec.to_builtins(value)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(plain(value)), indent=2).decode() + "\n")


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table on standard output."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    _console().print(drawn)


def _console() -> Console:
    """Standard output; as wide as its terminal, or wide enough for a table where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=132)


def _eta(seconds: float | None) -> str:
    return f"ETA {seconds:.0f} s" if seconds is not None else ""


@contextmanager
def build_progress(quiet: bool) -> Iterator[Callable[[ShadowIndex], None]]:
    """Shows how a build goes: a bar on a terminal, lines on standard error elsewhere, nothing when quiet."""
    if quiet:
        yield lambda status: None
        return
    with _display() as show:
        yield lambda s: show(
            f"{s.state} {s.phase}",
            s.build_progress_percent,
            f"{_eta(s.estimated_completion_seconds)} lag {s.lag_changes}",
        )


@contextmanager
def demo_progress(quiet: bool) -> Iterator[Callable[[Live], None]]:
    """Shows how the demo goes, with the rates of writes and searches since the last look."""
    if quiet:
        yield lambda live: None
        return
    rates = _Rates()
    with _display() as show:

        def look(live: Live) -> None:
            writes, searches = rates.of(live.writes, live.searches)
            details = f"{_eta(live.eta_s)} lag {live.lag_changes}  {writes:.0f} writes/s  {searches:.0f} searches/s"
            show(f"{live.title} {live.phase}".strip(), live.percent, details)

        yield look


class _Rates:
    """Operations per second, over about a second."""

    def __init__(self) -> None:
        self.at, self.counts, self.rates = time.monotonic(), (0, 0), (0.0, 0.0)

    def of(self, writes: int, searches: int) -> tuple[float, float]:
        now = time.monotonic()
        if now - self.at >= 1.0:
            span = now - self.at
            self.rates = ((writes - self.counts[0]) / span, (searches - self.counts[1]) / span)
            self.at, self.counts = now, (writes, searches)
        return self.rates


@contextmanager
def _display() -> Iterator[Callable[[str, float, str], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<44}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
    )
    with Progress(*columns, TextColumn("{task.fields[details]}"), console=console, transient=True) as progress:
        task = progress.add_task("", total=100, details="")
        yield lambda title, percent, details: progress.update(
            task, description=title, completed=percent, details=details
        )


def _lines(console: Console) -> Callable[[str, float, str], None]:
    last: dict[str, Any] = {"title": None, "at": 0.0}

    def show(title: str, percent: float, details: str) -> None:
        now = time.monotonic()
        if title != last["title"] or now - last["at"] >= LINE_INTERVAL_S:
            last.update(title=title, at=now)
            console.print(f"{title}  {percent:.1f} %  {details}".rstrip(), highlight=False, soft_wrap=True)

    return show


def print_report(report: Report) -> None:
    """The demo's report for people."""
    phases = list(dict.fromkeys(phase for build in report.builds for phase in build.phases))
    table(
        f"{report.imported.files} records ({report.imported.bytes / 1e6:.1f} MB) from {report.corpus},"
        f" imported in {report.import_s:.1f} s",
        ["build", "total s", *(f"{phase} s" for phase in phases), "sealed ms", "drained", "switched"],
        [
            [
                build.tokenizer,
                f"{build.seconds:.2f}",
                *(f"{build.phases.get(phase, 0.0):.2f}" for phase in phases),
                f"{build.switch.sealed_ms:.2f}",
                build.switch.drained_changes,
                "yes" if build.switch.success else build.switch.message,
            ]
            for build in report.builds
        ],
    )
    table(
        "longest time without a success, by window of equal width (ms)",
        ["", "quiet median", "quiet worst", "around switches median", "around switches worst"],
        [[who, *(f"{value:.1f}" for value in found.values())] for who, found in report.stalls_ms.items()],
    )
    _print_verdict(report)


def _print_verdict(report: Report) -> None:
    console = _console()
    console.print(
        f"writers were sealed for {report.sealed_ms_p50:.2f} ms (p50), {report.sealed_ms_max:.2f} ms (max);"
        f" {report.writes} writes, {report.searches} searches, {report.generations_read} generations read from"
    )
    console.print(
        f"audit: {report.audited} records with acknowledged changes ({report.audited_deletes} deleted) read back;"
        f" {len(report.audit)} lost, revived or wrong; {len(report.read_errors)} failed reads;"
        f" {len(report.back_in_time)} reads that went back in time; {len(report.write_errors)} failed writes;"
        f" fsck: {len(report.check)} findings"
    )
    for problem in [*report.audit, *report.read_errors, *report.back_in_time, *report.write_errors, *report.check][:20]:
        console.print(f"  {problem}", markup=False)
    console.print(f"{'[green]all is well' if report.ok else '[red]NOT WELL'}[/] after {report.seconds:.0f} s")
