"""The power fails: ext4 on a recording disk; the disk as it may be after a cut at any point is mounted and judged.

The same search must find three planted mutations of the code; else it proves nothing.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.crash import disks
from tests.crash.ledger import entries
from tests.crash.oracle import Question
from tests.crash.power import MODES, Cuts
from tests.crash.running import Scene, finish, start
from tests.support.edited_library import Edits, copy_of_the_library

IMAGE_BYTES = 64 << 20
STATES = 60
STRIDE = 4
"""With a mutation every fourth flush is tried first, to find it early; then those between, to miss none."""
STATES_TORTURE = 400
ANSWER_S = 60.0
MISSING = disks.missing_for_recorder()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


class Recording(msgspec.Struct, frozen=True):
    """A run of the workload on a recording disk: the disk before it, the log, the ledger."""

    empty: Path
    log: Path
    ledger: Path
    ready: int
    """The position in the log when the data directory was there: cuts before it concern mkfs and mkdir."""


def record(folder: Path, size: str, code: Path | None = None) -> Recording:
    """Run the workload; with `code`, that of a patched copy of the package."""
    image, empty, log = folder / "image", folder / "empty", folder / "log"
    folder.mkdir()
    disks.make_image(image, IMAGE_BYTES)
    shutil.copyfile(image, empty)
    more = {"PYTHONPATH": str(code)} if code is not None else {}
    with disks.recorded_disk(folder, image, log) as mountpoint:
        scene = Scene(folder, mountpoint / "data")
        ended = scene.run(scene.command("workload", size), {**more, "RECORDER_LOG": str(log)})
        assert ended.status == 0, f"the workload ended with {ended.status}: {ended.errors}"
    ready = next(entry["at"] for entry in entries(scene.ledger) if entry["kind"] == "intent")
    return Recording(empty, log, scene.ledger, ready)


class Judge:
    """An oracle that keeps running: to judge a state costs an open, not a start of Python."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, question: Question) -> list[str]:
        """The problems of a state. Raises TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(question).decode() + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        if not ready:
            raise TimeoutError("the oracle does not answer")
        line = self._process.stdout.readline()
        assert line, "the oracle died"
        problems: list[str] = json.loads(line)["answer"]
        return problems


@contextmanager
def judge(folder: Path) -> Iterator[Judge]:
    with (folder / "judge.err").open("w") as errors:
        command = [sys.executable, "-m", "tests.crash.oracle", "serve"]
        process = start(command, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield Judge(process)
        finally:
            finish(process)


def cuts_of(folder: Path, recording: Recording, seed: int) -> Cuts:
    return Cuts(recording.empty, recording.log, seed, folder / "base")


def search(
    folder: Path, recording: Recording, cuts: Cuts, places: list[int], modes: Sequence[str]
) -> Iterator[list[str]]:
    """Judge the states after these cuts, with alternating modes; yields the problems of each."""
    copy = folder / "state"
    with closing(cuts), judge(folder) as oracle:
        for number, place in enumerate(places):
            mode = modes[number % len(modes)]
            upto = cuts.image(place, mode, copy)
            with disks.mounted(copy, folder / "mounted") as mountpoint:
                problems = oracle.ask(Question(str(mountpoint / "data"), str(recording.ledger), upto))
            yield [f"{mode} after entry {place} (log {upto}): {problem}" for problem in problems]


def judge_all(folder: Path, size: str, states: int, seed: int) -> None:
    """Record a run, judge `states` cuts, demand that no state has a problem."""
    recording = record(folder / "run", size)
    cuts = cuts_of(folder, recording, seed)
    found = list(search(folder, recording, cuts, cuts.spread(states, recording.ready), MODES))
    problems = [problem for state in found for problem in state]
    print(f"power cuts: {len(found)} states judged, {len(problems)} problems, POWER_SEED={seed}")
    assert not problems, "\n".join(problems[:10])


def seed() -> int:
    return int(os.environ.get("POWER_SEED", "1"))


@pytest.mark.timeout(600)
def test_a_power_cut_loses_nothing(tmp_path: Path) -> None:
    judge_all(tmp_path, "small", STATES, seed())


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("round_", range(10))
def test_many_power_cuts_lose_nothing(tmp_path: Path, round_: int) -> None:
    drawn = seed() if "POWER_SEED" in os.environ else time.time_ns() % 1_000_000
    judge_all(tmp_path, "whole" if round_ % 2 else "small", STATES_TORTURE, drawn)


MUTATIONS: dict[str, Edits] = {
    "a missing file fsync": {"storage/disk.py": [("        os.fsync(file.fileno())\n", "")]},
    "a missing directory fsync": {
        "storage/disk.py": [("        os.fsync(descriptor)\n", "        pass\n")],
        "storage/backends/fts5/store.py": [("    _sync(path, os.O_RDONLY | os.O_DIRECTORY, os.fsync)\n", "")],
    },
    "sync=False": {
        "storage/catalog/environment.py": [
            ("                mode=0o600,\n", "                mode=0o600, sync=False,\n")
        ]
    },
}
"""The edits that leave a call out of a copy of the library."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_mutation_is_found(tmp_path: Path, mutation: str) -> None:
    code = copy_of_the_library(tmp_path / "code", MUTATIONS[mutation])
    recording = record(tmp_path / "run", "tiny", code)
    judged = 0
    for offset in range(STRIDE):
        cuts = cuts_of(tmp_path, recording, seed())
        places = cuts.flushes(recording.ready)[offset::STRIDE]
        for problems in search(tmp_path, recording, cuts, places, ["flushed"]):
            judged += 1
            if problems:
                print(f"{mutation}: found after {judged} states: {problems[0]}")
                return
    raise AssertionError(f"{judged} states and no problem: this search does not find {mutation}")
