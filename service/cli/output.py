"""What the command line prints on standard output: tables for people, one JSON value for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 140
"""Wide enough for every table of ours; a pipe has no width to fit into."""
SHORT_CHARS = 40


def print_json(value: Any) -> None:
    """One JSON value; structs become objects, times ISO 8601."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def console() -> Console:
    """Standard output; as wide as its terminal, or wide enough for a table where there is none."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def say(text: str) -> None:
    """A line of plain text: nothing in it is markup."""
    console().print(Text(text), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; what is in the cells is never taken for markup."""
    console().print(drawn(title, columns, rows))


def drawn(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """As `table`, to be printed later."""
    drawn = Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    target = console()
    for number, column in enumerate(columns):
        short = max((len(row[number]) for row in cells), default=0) <= SHORT_CHARS
        # on a wide line names and ids stay in one piece; on a narrow one folding is better than cutting them off
        drawn.add_column(column, overflow="fold", no_wrap=short and target.width >= WIDTH_WITHOUT_TERMINAL)
    for row in cells:
        drawn.add_row(*map(Text, row))
    return drawn


def size(bytes_: int | None) -> str:
    """Bytes for people."""
    return "" if bytes_ is None else f"{bytes_ / 1e6:.1f} MB"
