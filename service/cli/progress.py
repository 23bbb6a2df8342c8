"""Progress on standard error: bars on a terminal, a line every few seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from shadowswitch.model.names import escaped
from shadowswitch.model.views import ShadowIndex
from shadowswitch.service.cli.output import time_share
from shadowswitch.service.hints import in_commands

LINE_INTERVAL_S = 2.0
"""Without a terminal: a line at the start of each step, then a line at this interval."""

Show = Callable[[str, float, str], None]
"""Takes the title of the step, its percent, and details. A new title ends the step before."""


@contextmanager
def steps(quiet: bool = False, title_width: int = 30) -> Iterator[Show]:
    """Show consecutive steps."""
    console = Console(stderr=True)
    if quiet:
        yield lambda title, percent, details: None
    elif not console.is_terminal:
        yield _Lines(console).show
    else:
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn(f"{{task.description:<{title_width}}}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[details]}"),
        )
        with Progress(*columns, console=console) as progress:
            bars = _Bars(progress)
            yield bars.show
            bars.end()


def build_details(shadow: ShadowIndex) -> str:
    """Phase, ETA, lag and share of a build."""
    eta = shadow.estimated_completion_seconds
    parts = [
        in_commands(shadow.stands_still or "") or shadow.phase.replace("_", " "),
        f"ETA {eta:.0f} s" if eta is not None else "",
        f"lag {shadow.lag_changes}",
        time_share(shadow.share),
        shadow.gives_way or "",
    ]
    return "  ".join(filter(None, parts))


class _Bars:
    """One bar for each step; a finished bar stays above, with a tick and its time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._title = ""
        self._task: TaskID | None = None

    def show(self, title: str, percent: float, details: str) -> None:
        if self._task is None or title != self._title:
            self.end()
            self._title = title
            self._task = self._progress.add_task(escape(escaped(title)), total=100, details="")
        # rich stops the clock of a bar at 100 %, so only the end of the step sets 100 %
        self._progress.update(self._task, completed=min(percent, 99.9), details=escape(escaped(details)))

    def end(self) -> None:
        """Finish the bar of the step."""
        if self._task is not None:
            self._progress.update(self._task, completed=100, details="")
            self._task = None


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._at = 0.0

    def show(self, title: str, percent: float, details: str) -> None:
        now = time.monotonic()
        if title != self._title or now - self._at >= LINE_INTERVAL_S:
            self._title, self._at = title, now
            line = f"{title}  {percent:.0f} %  {details}".rstrip()
            self._console.print(escaped(line), highlight=False, soft_wrap=True, markup=False)
