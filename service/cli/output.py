"""Standard output of the command line: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shadowswitch.model.names import escaped
from shadowswitch.model.search.snippets import Snippet
from shadowswitch.model.views import ShadowIndex

WIDTH_WITHOUT_TERMINAL = 140
"""The width of a table in a pipe: every table of these commands fits."""
SHORT_CHARS = 40
WATCH_S = 0.5
"""The interval of a watch. A host writes waiters and heartbeats to the disk about as often."""

View = dict[str, Any]


class Failure(msgspec.Struct, frozen=True):
    """An error of a command for programs: the members of ShadowSwitchError. `kind` is the class of the error."""

    kind: str
    message: str
    hint: str = ""
    operation: str = ""
    object: str = ""
    recoverable: bool = False
    uses: list[str] = []
    """Of a removal that is refused: everything that uses what was to go."""


def print_json(value: Any) -> None:
    """Print one JSON value. Structs become objects, times ISO 8601."""
    for line in msgspec.json.format(msgspec.json.encode(value), indent=2).decode().split("\n"):
        sys.stdout.write(escaped(line) + "\n")


def print_json_line(value: Any) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(escaped(msgspec.json.encode(value).decode()) + "\n")


def print_result(value: Any, text: str | Iterable[str], json: bool) -> None:
    """Print a result: the value as JSON, or the text, which is a line or several."""
    if json:
        print_json(value)
    else:
        say(*([text] if isinstance(text, str) else text))


def console() -> Console:
    """Standard output, with a fixed width where there is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def warn(*lines: str) -> None:
    """Print warnings to standard error."""
    for line in lines:
        print(f"shadowswitch: warning: {escaped(line)}", file=sys.stderr)


def say(*lines: str) -> None:
    """Print lines of plain text. Markup, escape codes and line breaks in them have no effect."""
    for line in lines:
        console().print(plain(line), soft_wrap=True)


def plain(line: str) -> Text:
    """A line of plain text. Markup, escape codes and line breaks in it have no effect."""
    return Text(escaped(line))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table."""
    console().print(table(title, columns, rows))


def print_texts(title: str, texts: Mapping[str, Snippet]) -> None:
    """Print texts by name below a title, what is marked in bold. Escape codes and line breaks have no effect."""
    lines = [Text(escaped(title), style="bold")]
    for name, snippet in sorted(texts.items()):
        line, place = Text(f"  {escaped(name)}: "), 0
        for begin, end in snippet.marks:
            line.append(_in_line(snippet.text[place:begin])).append(_in_line(snippet.text[begin:end]), style="bold")
            place = end
        lines.append(line.append(_in_line(snippet.text[place:])))
    console().print(Text("\n").join(lines), soft_wrap=True)


def _in_line(text: str) -> str:
    return escaped(re.sub(r"\s+", " ", text))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table. Markup, escape codes and line breaks in its cells have no effect."""
    made = Table(title=plain(title), title_justify="left", title_style="bold", header_style="bold")
    cells = [["" if cell is None else escaped(str(cell)) for cell in row] for row in rows]
    wide = console().width >= WIDTH_WITHOUT_TERMINAL
    for number, column in enumerate(columns):
        short = max((len(row[number]) for row in cells), default=0) <= SHORT_CHARS
        # a wide line keeps names and ids in one piece; a narrow line folds them and loses nothing
        made.add_column(column, overflow="fold", no_wrap=short and wide)
    for row in cells:
        made.add_row(*map(Text, row))
    return made


def cell(value: Any) -> str:
    """A value of a view as the text of a cell."""
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 hit`, `2 hits`."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def time_share(share: float | None) -> str:
    """The share of the time of a throttled build; "" for one that is not throttled."""
    return f"{share * 100:g} % of the time" if share is not None and share < 1 else ""


def built(shadow: ShadowIndex) -> str:
    """The end of a build."""
    text = f"{shadow.shadow_index_id} is {shadow.state} with {counted(shadow.record_count or 0, 'record')}"
    return f"{text}; it took over those of generation {shadow.seeded_from}" if shadow.seeded_from else text


def size(bytes_: int | None) -> str:
    """A number of bytes in MB."""
    return "" if bytes_ is None else f"{bytes_ / 1e6:.1f} MB"


def show(
    look: Callable[[], View],
    render: Callable[[View], RenderableType],
    stable_part: Callable[[View], Any],
    *,
    watch: bool,
    json: bool,
) -> None:
    """Print a view once; with `watch`, again after each change of its stable part until an interrupt."""
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(look, render, stable_part, json)
    elif json:
        print_json(look())
    else:
        console().print(render(look()))


def _watch(
    look: Callable[[], View], render: Callable[[View], RenderableType], stable_part: Callable[[View], Any], json: bool
) -> None:
    """A terminal shows the view in place. Elsewhere each change is a JSON line or a table."""
    target = console()
    if target.is_terminal and not json:
        with Live(render(look()), console=target, auto_refresh=False) as live:
            while True:
                live.update(render(look()), refresh=True)
                time.sleep(WATCH_S)
    printed: Any = None
    while True:
        found = look()
        stable = stable_part(found)
        if stable != printed:
            printed = stable
            if json:
                print_json_line(found)
            else:
                target.print(render(found))
            sys.stdout.flush()
        time.sleep(WATCH_S)
