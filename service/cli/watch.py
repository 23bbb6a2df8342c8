"""Showing something again and again until interrupted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.live import Live

from shadowswitch.service.cli import output

WATCH_S = 0.5
"""How often to look; a host writes down who waits and who was heard of about as often."""

Found = dict[str, Any]


def follow(
    look: Callable[[], Found],
    drawn: Callable[[Found], RenderableType],
    lasting: Callable[[Found], Any],
    json: bool,
) -> None:
    """On a terminal in place, elsewhere each time that something lasting changed: JSON, one value a line, or tables."""
    console = output.console()
    if console.is_terminal and not json:
        with Live(drawn(look()), console=console, auto_refresh=False) as live:
            while True:
                live.update(drawn(look()), refresh=True)
                time.sleep(WATCH_S)
    before: Any = None
    while True:
        found = look()
        told = lasting(found)
        if told != before:
            before = told
            if json:
                sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
            else:
                console.print(drawn(found))
            sys.stdout.flush()
        time.sleep(WATCH_S)
