"""The power fails: ext4 on a recording disk; the disk as it may be after a cut at any point is mounted and judged.

The same search must find each planted mutation of the code; else it proves nothing. A promise that was not forced to
disk is broken at the moment of its acknowledgement, so the search cuts the power there, too.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.crash import disks
from tests.crash.ledger import ACKNOWLEDGEMENTS, entries
from tests.crash.oracle import Question
from tests.crash.power import MODES, Cuts
from tests.crash.running import Scene, finish, start
from tests.repository import field_mutants
from tests.support.edited_library import Edits, copy_of_the_library

IMAGE_BYTES = 64 << 20
STATES = 60
STRIDE = 4
"""With a mutation the acknowledgements are tried, then every fourth flush, to find it early; then all those between."""
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

    def made(self, *kinds: str) -> set[int]:
        """The positions in the log at which entries of these kinds were made."""
        return {entry["at"] for entry in entries(self.ledger) if entry["kind"] in kinds and entry["at"] > self.ready}


def record(folder: Path, size: str, code: Path | None = None, backend: str = "fts5") -> Recording:
    """Run the workload; with `code`, that of a patched copy of the package."""
    image, empty, log = folder / "image", folder / "empty", folder / "log"
    folder.mkdir()
    disks.make_image(image, IMAGE_BYTES)
    shutil.copyfile(image, empty)
    more = {"PYTHONPATH": str(code)} if code is not None else {}
    with disks.recorded_disk(folder, image, log) as mountpoint:
        scene = Scene(folder, mountpoint / "data", backend)
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


def search(folder: Path, recording: Recording, cuts: Cuts, places: list[tuple[int, str]]) -> Iterator[list[str]]:
    """Judge the states after these cuts, each with its mode; yields the problems of each."""
    copy = folder / "state"
    with closing(cuts), judge(folder) as oracle:
        for place, mode in sorted(places):
            upto = cuts.image(place, mode, copy)
            with disks.mounted(copy, folder / "mounted") as mountpoint:
                problems = oracle.ask(Question(str(mountpoint / "data"), str(recording.ledger), upto))
            yield [f"{mode} after entry {place} (log {upto}): {problem}" for problem in problems]


def judge_all(folder: Path, size: str, states: int, seed: int, backend: str) -> None:
    """Record a run, judge `states` cuts and those at switches and flushes, demand that no state has a problem."""
    recording = record(folder / "run", size, backend=backend)
    cuts = cuts_of(folder, recording, seed)
    spread = enumerate(cuts.spread(states, recording.ready))
    places = [(place, MODES[number % len(MODES)]) for number, place in spread]
    promised = cuts.moments(recording.made("switched", "forced"))
    assert promised, "the ledger has no switch and no flush at an entry of the log"
    found = list(search(folder, recording, cuts, places + [(place, "flushed") for place in promised]))
    problems = [problem for state in found for problem in state]
    print(f"power cuts: {len(found)} states judged, {len(problems)} problems, POWER_SEED={seed}")
    assert not problems, "\n".join(problems[:10])


def seed() -> int:
    return int(os.environ.get("POWER_SEED", "1"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["fts5", "tantivy"])
def test_a_power_cut_loses_nothing(tmp_path: Path, backend: str) -> None:
    judge_all(tmp_path, "small", STATES, seed(), backend)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("round_", range(10))
def test_many_power_cuts_lose_nothing(tmp_path: Path, round_: int) -> None:
    drawn = seed() if "POWER_SEED" in os.environ else time.time_ns() % 1_000_000
    backend = ("fts5", "vector", "tantivy", "graph", "fts5")[round_ % 5]
    judge_all(tmp_path, "whole" if round_ % 2 else "small", STATES_TORTURE, drawn, backend)


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

SYNCING = {
    "a published copy that is not forced to disk": "published/main/SEARCH_INDEX is torn",
    "a published folder that is not forced to disk": "before recovery: published/main/SEARCH_INDEX",
    "a flush that does not force the log of a shard to disk": "was promised",
}
"""Mutants of `MUTANTS_OF_SYNCING`, and a part of the problem that each must cause. Only system calls show the others:
ext4 forces all names to disk with any of them."""
MUTATIONS |= {name: field_mutants.by_file(field_mutants.MUTANTS_OF_SYNCING[name][1]) for name in SYNCING}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_mutation_is_found(tmp_path: Path, mutation: str) -> None:
    code = copy_of_the_library(tmp_path / "code", MUTATIONS[mutation])
    recording = record(tmp_path / "run", "tiny", code)
    with closing(cuts_of(tmp_path, recording, seed())) as cuts:
        flushes = cuts.flushes(recording.ready)
        promised = cuts.moments(recording.made(*ACKNOWLEDGEMENTS))
    judged = 0
    for places in (promised, *(flushes[offset::STRIDE] for offset in range(STRIDE))):
        cuts = cuts_of(tmp_path, recording, seed())
        for problems in search(tmp_path, recording, cuts, [(place, "flushed") for place in places]):
            judged += 1
            own = [problem for problem in problems if SYNCING.get(mutation, "") in problem]
            if own:
                print(f"{mutation}: found after {judged} states: {own[0]}")
                return
    raise AssertionError(f"{judged} states and no problem: this search does not find {mutation}")
