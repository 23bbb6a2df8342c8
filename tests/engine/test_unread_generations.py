"""A generation that cannot be read, for a missing permission or a failing disk: the start leaves it as it is.

The missing permission is real: the process that opens the directory has given up root's right to pass over modes.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CorruptData, Engine, InvalidTransition, UnknownIndex
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, outside_environment, put, wait_until
from tests.support.external_helpers import begin

Open = Callable[..., Engine]
OBEY_MODES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, which holds behind the next exec
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
OPENED = """
import json, os, sys
from shadowswitch import Config, Engine, ShadowSwitchError
data, barred, shadow = sys.argv[1:]
if os.access(barred, os.R_OK):
    sys.exit(77)

def attempt(call):
    try:
        return call()
    except ShadowSwitchError as error:
        return f"{type(error).__name__}: {error}"

def count(branch):
    with engine.reader(branch, "SEARCH_INDEX") as reader:
        return reader.count()

with Engine.open(data, Config(disk_reserve_bytes=1 << 20, janitor_interval_s=0.1)) as engine:
    said = {
        "main": attempt(lambda: count("main")),
        "other": attempt(lambda: count("other")),
        "check": [f"{finding.where}: {finding.problem}" for finding in engine.check()],
        "events": [event.data["reason"] for event in engine.events() if event.type.endswith("recovery.broken")],
    }
    if shadow:
        said["rollback"] = attempt(lambda: engine.rollback("main", "SEARCH_INDEX").success)
        said["switch"] = attempt(lambda: engine.switch(shadow).success)
print(json.dumps(said))
"""
NO_RIGHT = "this process cannot give up the right to read every file"


class Left:
    """A closed data directory: `main` has a live generation, a soaking one and one that waits; `other` a live one."""

    def __init__(self, engine: Engine, backend: str) -> None:
        self.data = engine.path
        for branch in ("main", "other"):
            engine.create_branch(branch)
            fill(engine, 20, branch)
        live(engine, "other", backend=backend, shards=1)
        self.numbers = {role: live(engine, backend=backend, shards=1) for role in ("soaking", "live")}
        waiting = built(engine, backend=backend, shards=1)
        self.shadow = waiting.shadow_index_id
        self.numbers["standby"] = int(Path(waiting.shadow_index_path).name)
        self.roles = self._roles(engine)
        engine.close()

    def path(self, role: str) -> Path:
        """The directory of the generation in that role."""
        return self.data / "generations" / "main" / KIND / f"{self.numbers[role]:08d}"

    def is_as_it_was(self, engine: Engine) -> bool:
        """Has every generation its role, so that nothing was decided about any?"""
        return self._roles(engine) == self.roles and engine.shadow(self.shadow).state == "BUILT"

    @staticmethod
    def _roles(engine: Engine) -> dict[int, str]:
        return {row.number: str(row.role) for row in inside.catalog(engine).generations()}


def opened_by_modes(data: Path, barred: Path, shadow: str = "") -> dict[str, Any]:
    """What an engine answers in a process that obeys the modes of files."""
    command = [sys.executable, "-c", OBEY_MODES, "-c", OPENED, str(data), str(barred), shadow]
    done = subprocess.run(command, capture_output=True, text=True, env=outside_environment(), timeout=180)
    if done.returncode == 77:
        pytest.skip(NO_RIGHT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def records(engine: Engine, branch: str) -> int:
    """How many records the live index has."""
    with engine.reader(branch, KIND) as reader:
        return reader.count()


def goes_on(left: Left, engine: Engine, role: str) -> None:
    """The generation serves its role again."""
    assert left.is_as_it_was(engine)
    assert records(engine, "main") == 20
    if role == "soaking":
        assert engine.rollback("main", KIND).success
    if role == "standby":
        assert engine.switch(left.shadow).success


@pytest.mark.parametrize("role", ["live", "soaking", "standby"])
@pytest.mark.parametrize(
    ("backend", "name"),
    [("fts5", "."), ("fts5", "manifest.json"), ("fts5", "shard-000/shard.sqlite"), ("kv", "shard-000")],
)
def test_a_generation_without_permission_is_left_as_it_is_and_all_else_is_served(
    open_engine: Open, role: str, backend: str, name: str
) -> None:
    left = Left(open_engine(), backend)
    barred = left.path(role) / name
    mode = barred.stat().st_mode
    barred.chmod(0)
    said = opened_by_modes(left.data, barred, left.shadow)
    with contextlib.suppress(FileNotFoundError):  # a rollback and a switch leave a live one, which then retires
        barred.chmod(mode)
    text = f"generation {left.numbers[role]} could not be read"
    assert said["other"] == 20
    assert any(text in reason and "access" in reason for reason in said["events"]), said
    assert any(f"generation {left.numbers[role]}" in line for line in said["check"]), said
    if role == "live":
        assert "CorruptData" in said["main"]
        assert text in said["main"]
        return
    assert said["main"] == 20
    refused = said["rollback" if role == "soaking" else "switch"]
    assert text in refused
    assert ("UnknownIndex" if role == "soaking" else "InvalidTransition") in refused


@pytest.mark.parametrize("role", ["live", "soaking", "standby"])
@pytest.mark.parametrize(("backend", "most"), [("fts5", 2), ("fts5", 1000), ("kv", 2), ("kv", 1000)])
def test_a_generation_that_the_disk_does_not_read_serves_again_when_it_does(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch, role: str, backend: str, most: int
) -> None:
    left = Left(open_engine(), backend)
    with monkeypatch.context() as patch:
        fail_reads_below(patch, left.path(role), most)
        engine = open_engine(sound=False)
        assert records(engine, "other") == 20
        assert left.is_as_it_was(engine)
        call: dict[str, Callable[[], object]] = {
            "live": lambda: engine.reader("main", KIND),
            "soaking": lambda: engine.rollback("main", KIND),
            "standby": lambda: engine.switch(left.shadow),
        }
        with pytest.raises((CorruptData, UnknownIndex, InvalidTransition), match="Input/output error"):
            call[role]()
        engine.close()
    goes_on(left, open_engine(), role)


def fail_reads_below(patch: pytest.MonkeyPatch, folder: Path, most: int) -> None:
    """The first reads of files below a folder by this process give EIO.

    The first of all may be that of a start that looks for one manifest of its catalog.
    """
    failed = itertools.count(1)

    def failing(ordinary: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *given: Any, **how: Any) -> Any:
            below = isinstance(path, str | Path) and Path(path).is_relative_to(folder)
            if below and next(failed) <= most:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return ordinary(path, *given, **how)

        return wrapped

    for owner in (os, io, builtins):
        patch.setattr(owner, "open", failing(owner.open))


def test_a_permission_that_came_back_is_enough(open_engine: Open) -> None:
    left = Left(open_engine(), "fts5")
    barred = left.path("live")
    barred.chmod(0)
    said = opened_by_modes(left.data, barred)
    barred.chmod(0o700)
    assert "could not be read" in said["main"]
    goes_on(left, open_engine(), "live")


def test_a_directory_of_an_external_builder_without_permission_does_not_end_the_start(open_engine: Open) -> None:
    engine = open_engine()
    for branch in ("main", "other"):
        engine.create_branch(branch)
        fill(engine, 20, branch)
        live(engine, branch)
    shadow = begin(engine)
    engine.close()
    barred = Path(shadow.shadow_index_path)
    barred.chmod(0)
    said = opened_by_modes(engine.path, barred)
    barred.chmod(0o700)
    assert (said["main"], said["other"]) == (20, 20)
    assert open_engine().shadow(shadow.shadow_index_id).state == "BUILDING"


def test_a_generation_that_cannot_be_removed_does_not_keep_the_others(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(soak_s=0.0)
    for branch in ("main", "other"):
        engine.create_branch(branch)
        fill(engine, 5, branch)

    def refuse(path: Path) -> None:
        if path.parts[-3] == "main":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        inside.before_removal(patch, refuse)
        old = {branch: live(engine, branch) for branch in ("main", "other")}
        for branch in old:
            live(engine, branch)
        wait_until(lambda: inside.catalog(engine).generation(old["other"]) is None)
        assert inside.catalog(engine).generation(old["main"]) is not None
    wait_until(lambda: inside.catalog(engine).generation(old["main"]) is None)
    engine.write("main", [put("after")])


def test_a_look_that_comes_to_no_answer_condemns_no_generation(open_engine: Open) -> None:
    """Each worker process has a millisecond, in which none of them comes to its first answer."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 20)
    first = live(engine, backend="kv")
    live(engine, backend="kv")
    engine.close()
    hurried = open_engine(sound=False, validation_timeout_s=0.001)
    with pytest.raises(CorruptData, match="was left as it is"):
        hurried.reader("main", KIND)
    hurried.close()
    again = open_engine()
    with again.reader("main", KIND) as reader:
        assert reader.count() == 20
    assert again.rollback("main", KIND).generation == first
    with again.reader("main", KIND) as reader:
        assert reader.count() == 20
