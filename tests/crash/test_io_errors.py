"""The disk fails or fills up: no write is falsely acknowledged, the live index serves, and a failing build names the
cause. With a sound disk the engine works again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Delete, Engine, Put, StorageFull
from tests.crash import disks, tracing
from tests.crash.ledger import LedgerContent, entries
from tests.crash.running import Scene
from tests.crash.tracing import LOCKING, Case

CASES_MAX = 16
PARTS = 20
NO_STRACE, NO_DISK = tracing.missing(), disks.missing()
DISK_BYTES = 64 << 20
NO_SPACE_CALLS = {"pwrite64", "write", "writev", "pwritev", "openat", "mkdir", "rename", "ftruncate", "symlink"}
NO_SPACE_CALLS |= {"fsync", "fdatasync", "fallocate"}
SLOW_COPY = "copy.slice=sleep:0.02"
"""Lets a disk become full while a build is under way."""
UNDERSTOOD = ("no room", "free", "No space left", "Input/output", "disk I/O", "the disk", "unable to open")
"""A reason names one of these causes."""

pytestmark = pytest.mark.slow


def notes(scene: Scene, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in entries(scene.ledger) if entry["kind"] == kind]


def fail_at(case: Case, error: str, forever: bool, folder: Path) -> bool:
    """Inject an error, once or from there on. While it lasts, each error names a cause; then the oracle demands all.
    True if the error was injected."""
    scene = Scene(folder)
    when = Case(case.path, case.call, -case.nth if forever else case.nth)
    trace = folder / "trace"
    command = scene.command("trouble", "injected")
    line = tracing.injected(scene, command, when, f"error={error}", trace)
    ended = scene.run(line, {})
    what = f"{error} at {case}{' and from there on' if forever else ''}"
    assert ended.status in (0, 3), f"{what}: the host ended with {ended.status}: {ended.output} {ended.errors}"
    struck = "(INJECTED)" in trace.read_text(errors="replace")
    texts = [note["text"] for note in notes(scene, "trouble")] + [ended.output] * (ended.status == 3)
    for note in notes(scene, "unserved"):
        own = f"/{note['generation']:08d}" in case.path
        if note["generation"]:
            assert own, f"{what}: generation {note['generation']} could not be read: {note['text']}"
        else:  # nothing was ever live: the catalog could not say so
            texts.append(note["text"])
    unwritable = forever and case.path.startswith("catalog")
    for text in texts + LedgerContent(scene.ledger).refusals:
        if unwritable and any(words in text for words in ("is being built", "waits for its switch", "(SWITCHING)")):
            continue  # the end of a build or switch cannot be stored either
        assert any(word in text for word in UNDERSTOOD), f"{what}: {text!r} names no cause"
    try:
        scene.verdict("")
    except AssertionError as problem:
        raise AssertionError(f"{what}: {problem}") from problem
    scene.clear()
    return struck


def fail_at_all(cases: list[Case], folder: Path) -> None:
    struck, violations = 0, []
    for number, case in enumerate(cases):
        error = "ENOSPC" if number % 2 and case.call in NO_SPACE_CALLS else "EIO"
        try:
            struck += fail_at(case, error, number % 3 == 0, folder / f"{number}")
        except (AssertionError, TimeoutError) as violation:
            violations.append(str(violation))
    print(f"I/O errors: {len(cases)} runs, {struck} with an injected error, {len(violations)} violations")
    assert not violations, "\n\n".join(violations)
    assert struck >= len(cases) * 0.6


def recorded(folder: Path) -> list[Case]:
    scene = Scene(folder / "recorded")
    cases = [case for case in tracing.record(scene, scene.command("trouble", "injected")) if case.call not in LOCKING]
    scene.clear()
    return cases


@pytest.mark.skipif(bool(NO_STRACE), reason=NO_STRACE)
@pytest.mark.timeout(900)
def test_an_error_of_the_disk_at_any_call(tmp_path: Path) -> None:
    fail_at_all(tracing.spread(recorded(tmp_path), CASES_MAX), tmp_path)


@pytest.mark.torture
@pytest.mark.skipif(bool(NO_STRACE), reason=NO_STRACE)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_an_error_of_the_disk_at_every_call(tmp_path: Path, part: int) -> None:
    fail_at_all(recorded(tmp_path)[part::PARTS], tmp_path)


def demand(scene: Scene, *arguments: str) -> None:
    """Run the script `trouble`, demand that the run saw no promise broken, then ask the oracle."""
    ended = scene.run(scene.command("trouble", *arguments), scene.environment(SLOW_COPY, once=False))
    assert ended.status == 0, f"the host ended with {ended.status}: {ended.output} {ended.errors}"
    ledger = LedgerContent(scene.ledger)
    assert not ledger.problems, "\n".join(ledger.problems[:10])
    assert not notes(scene, "unserved")
    for note in notes(scene, "trouble"):
        assert any(word in note["text"] for word in UNDERSTOOD), f"{note} names no cause"
    print(f"{arguments[0]}: {ledger.counts()}, {len(notes(scene, 'trouble'))} steps refused")


@pytest.mark.skipif(bool(NO_DISK), reason=NO_DISK)
@pytest.mark.timeout(300)
def test_a_full_disk_refuses_writes_and_recovers_without_a_restart(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path, DISK_BYTES) as disk:
        scene = Scene(tmp_path / "scene", disk / "data")
        demand(scene, "full", str(disk / "ballast"))
        freed = next(n for n, entry in enumerate(entries(scene.ledger)) if entry["kind"] == "freed")
        refused = [(n, e["error"]) for n, e in enumerate(entries(scene.ledger)) if e["kind"] == "refused"]
        assert refused, "nothing was refused on a full disk"
        assert {error for _, error in refused} == {"StorageFull"}
        assert all(number < freed for number, _ in refused)
        scene.verdict("")


def fill_up(ballast: Path, left_bytes: int) -> None:
    """Leave `left_bytes` free on a disk, besides the reserve of the file system."""
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(65_536)):
                pass
        file.truncate(file.tell() - left_bytes)
        os.fsync(file.fileno())


@pytest.mark.skipif(bool(NO_DISK), reason=NO_DISK)
def test_a_write_that_falls_short_on_a_full_disk_is_refused_and_the_next_one_goes_well(tmp_path: Path) -> None:
    batch = [Put("object_type", str(n), {"text": "y" * 100_000}) for n in range(8)]
    with disks.small_disk(tmp_path, DISK_BYTES) as disk:
        with Engine.open(disk / "data", Config(disk_reserve_bytes=0)) as engine:
            engine.create_branch("main")
            for left_bytes in (40_000, 200_000, 400_000):
                fill_up(disk / "ballast", left_bytes)
                with pytest.raises(StorageFull, match="free disk space"):
                    engine.write("main", batch)
                assert engine.count("main") == 0
                (disk / "ballast").unlink()
                engine.write("main", [Put("object_type", "after", {"text": "room"})])
                engine.write("main", [Delete("object_type", "after")])
            assert engine.write("main", batch).count == 8
            assert engine.check() == []


@pytest.mark.skipif(bool(NO_DISK), reason=NO_DISK)
@pytest.mark.timeout(300)
def test_a_build_without_room_fails_and_the_writers_go_on(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path, DISK_BYTES) as disk:
        scene = Scene(tmp_path / "scene", disk / "data")
        demand(scene, "beside", str(disk / "ballast"))
        assert not notes(scene, "refused"), "a write was refused because of a shadow"
        scene.verdict("")


@pytest.mark.timeout(300)
def test_a_full_map_refuses_and_loses_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    demand(scene, "map")
    assert {note["error"] for note in notes(scene, "refused")} == {"StorageFull"}
    scene.verdict("")
