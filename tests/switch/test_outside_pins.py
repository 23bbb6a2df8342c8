"""A reader reads the live pointer, then pins; between the two a switch may mark the generation for removal.

A reader of another process that pins too late looks again and goes to the live generation (SW-5). A pin that comes
while the host lets a generation go keeps it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, SwitchRequest
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.generations.generation import Generation
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, outside_environment, wait_until

LATE = """
import sys
from pathlib import Path
from shadowswitch.engine import reader as readers
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog

pin = readers.shared_pin

def late_pin(path):
    print("looked", int(path.name), flush=True)
    sys.stdin.readline()
    return pin(path)

readers.shared_pin = late_pin
data = Path(sys.argv[1])
catalog = Catalog(data / data_directory.CATALOG, readonly=True)
with readers.outside_reader(data, catalog, "main", "SEARCH_INDEX") as reader:
    print("reads", reader.generation, flush=True)
    sys.stdin.read()
"""
FINAL = SwitchRequest(backup_current=False)
"""The previous generation retires in the commit of the switch, and does not soak."""


def generation_row(engine: Engine, number: int) -> GenerationRow | None:
    return inside.catalog(engine).generation(number)


def open_generation(engine: Engine, number: int) -> Generation:
    return inside.generation(engine, number)


def while_a_follower_lets_go(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    inside.after(patch, inside.Step.LET_GO, act)


class LateReader:
    """A process that reads the live pointer, and pins when the test lets it go on."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LATE, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=outside_environment(),
        )

    def said(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> LateReader:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self.process.wait(60)


def rebuilt(engine: Engine) -> int:
    result = engine.rebuild("main", KIND, TYPES, request=FINAL)
    assert result.success, result.message
    return result.generation


def test_a_late_pin_of_another_process_does_not_count_for_a_retiring_generation(open_engine: Any) -> None:
    """The files of the marked generation are still there: a reader in the host holds them."""
    engine = open_engine(janitor_interval_s=3600)
    engine.create_branch("main")
    fill(engine, 50)
    first = rebuilt(engine)
    mine = engine.reader("main", KIND)
    with LateReader(engine.path) as late:
        assert late.said() == ["looked", str(first)]
        second = rebuilt(engine)
        row = generation_row(engine, first)
        assert row is not None
        assert row.role == "retiring"
        assert os.path.exists(engine.path / row.path / "PINS")
        late.go_on()
        assert late.said() == ["looked", str(second)], "SW-5: a generation that may be removed was pinned and read"
        late.go_on()
        assert late.said() == ["reads", str(second)]
    mine.close()


def test_a_pin_that_comes_while_the_follower_lets_go_keeps_the_generation(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look at the pins is for speed; the look under the lock of `close_if_unpinned` decides."""
    engine = open_engine(janitor_interval_s=3600)
    engine.create_branch("main")
    fill(engine, 50)
    first = rebuilt(engine)
    old, path = open_generation(engine, first), Path(engine.index("main", KIND).path)
    rebuilt(engine)
    with monkeypatch.context() as patch:
        while_a_follower_lets_go(patch, old.pin)
        engine.clean_up()
    assert old.pins == 1
    assert not old.closed
    assert path.exists(), "SW-5: the generation was removed under a pin"
    with old.writer.pause_apply():
        reader = old.take_reader()
        assert reader.count() == 50
        old.give_reader(reader)
    old.unpin()
    engine.clean_up()
    wait_until(lambda: not path.exists())
