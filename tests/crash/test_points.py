"""A real SIGKILL at each failpoint, then the oracle: no promise is broken.

A failpoint in the host kills the host. A failpoint in a worker process kills the worker, and the host goes on with
another.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.storage.failpoints import POINTS
from tests.crash.ledger import LedgerContent
from tests.crash.running import ROOT, Scene, finish, start, wait_until
from tests.crash.workload import INDEX, config

pytestmark = pytest.mark.slow

IN_WORKERS = {"build.shard_opened", "copy.slice", "copy.loaded", "catchup.slice", "seed.made", "seed.slice"}
"""Failpoints that only worker processes pass."""
LATER_PASSES = {
    "journal.committed": (40,),
    "copy.slice": (5,),
    "switch.near": (3,),
    "switch.sealed": (3,),
    "switch.drained": (2, 3),
    "switch.proven": (3,),
    "switch.committed": (2, 3),
    "switch.pointed": (3,),
    "group.proven": (2, 3),
    "group.moved": (3, 5),
    "group.committed": (2, 3),
    "group.pointed": (3, 5),
    "follow.applied": (20,),
    "lock.stored": (4,),
    "words.begun": (3,),
    "words.synced": (3,),
    "words.added": (3,),
    "words.committed": (3,),
    "words.settling": (3,),
    "words.settled": (3,),
}
"""The first pass is always tried. Later ones: after a switch, during a rollback, in the second build."""
NEEDS = {
    "catchup.slice": "copy.slice=sleep:0.03",  # lets writers write while the workers copy
    "build.failed": "copy.loaded=raise:EIO@1",
    "switch.withdrawn": "switch.verify=raise:EIO@1",
}
"""The failpoints to plan besides, so that the workload passes this one."""
OF_TANTIVY = {name for name in POINTS if name.startswith("words.")}
"""Failpoints that only an index with this backend passes, in workers at the end of a load, and in the host."""
CASES = [(name, 1) for name in POINTS] + [(name, nth) for name, more in LATER_PASSES.items() for nth in more]
TANTIVY_CASES = [
    *(("copy.slice", 5), ("copy.loaded", 1), ("catchup.slice", 1), ("seed.made", 1), ("seed.slice", 1)),
    *(("build.built", 1), ("switch.drained", 2), ("switch.committed", 1), ("switch.committed", 2)),
    *(("switch.pointed", 2), ("publish.copied", 1), ("publish.staged", 1), ("follow.shard_applied", 2)),
    *(("follow.applied", 20), ("follow.flushed", 5), ("repair.bucket", 1), ("retire.shard_removed", 1)),
    *(("recover.opened", 2), ("merge.batch", 1)),
]
"""With an index of this backend as well: the steps in which its files are made, copied, written or removed."""
DERIVED_CASES = [
    *(("copy.slice", 5), ("copy.loaded", 1), ("catchup.slice", 1), ("seed.made", 1), ("switch.committed", 2)),
    *(("follow.shard_applied", 2), ("follow.applied", 20)),
]
"""With indexes that derive entries from their rows, or embed them: the steps in which both are written."""
SELDOM = {
    "publish.copied": 2,
    "publish.staged": 1,
    "publish.exchanged": 1,
    "trim.slice": 1,
    "retire.marked": 2,
    "retire.removed": 2,
}
SELDOM |= {
    "publish.done": 1,
    "retire.shard_removed": 2,
    "retire.forgotten": 2,
    "trim.noted": 1,
    "trim.events": 1,
    "trim.undo": 1,
    "merge.batch": 2,
    "merge.brought": 2,
    "withdraw.renamed": 1,
    "group.begun": 2,
    "ended.forgotten": 1,
    "drop.emptied": 1,
    "drop.forgotten": 1,
}
SELDOM |= {"open.locked": 2, "open.directories": 2, "open.catalog": 2, "recover.cleaned": 2, "repair.bucket": 1}
SELDOM |= dict.fromkeys(("build.failed", "build.stopped", "switch.withdrawn", "switch.given_up"), 1)
SELDOM |= dict.fromkeys(IN_WORKERS - {"copy.slice"}, 1)
"""How often the workload passes a failpoint at least, if that is less than three times."""
MORE_CASES = [(name, nth) for name in POINTS for nth in (2, 3) if nth <= SELDOM.get(name, 3)]
MORE_CASES += [(name, nth) for name in ("write.admitted", "journal.committed") for nth in range(4, 100)]
MORE_CASES += [("build.claimed", 4), ("follow.flushed", 5), ("journal.before_commit", 40)]


def ids(cases: list[tuple[str, int]]) -> list[str]:
    return [f"{name}@{nth}" for name, nth in cases]


@pytest.mark.parametrize(("name", "nth"), CASES, ids=ids(CASES))
def test_kill_at_every_named_point(tmp_path: Path, name: str, nth: int) -> None:
    kill_at(name, nth, tmp_path)


@pytest.mark.parametrize(("name", "nth"), TANTIVY_CASES, ids=ids(TANTIVY_CASES))
def test_kill_beside_a_tantivy_index(tmp_path: Path, name: str, nth: int) -> None:
    kill_at(name, nth, tmp_path, "tantivy")


@pytest.mark.parametrize("backend", ["graph", "vector"])
@pytest.mark.parametrize(("name", "nth"), DERIVED_CASES, ids=ids(DERIVED_CASES))
def test_kill_beside_an_index_that_is_derived(tmp_path: Path, name: str, nth: int, backend: str) -> None:
    kill_at(name, nth, tmp_path, backend)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "nth"), MORE_CASES, ids=ids(MORE_CASES))
def test_kill_at_later_passes_of_every_named_point(tmp_path: Path, name: str, nth: int) -> None:
    kill_at(name, nth, tmp_path)


def kill_at(name: str, nth: int, tmp_path: Path, backend: str = "") -> None:
    """Kill the process that passes a failpoint for the nth time, then ask the oracle."""
    scene = Scene(tmp_path, backend=backend or ("tantivy" if name in OF_TANTIVY else "fts5"))
    besides = f";{NEEDS[name]}" if name in NEEDS else ""
    size = "damaged" if name == "repair.bucket" else "whole"
    ended = scene.workload(size, points=f"{name}=kill@{nth}{besides}")
    victim = scene.passed(name)
    assert victim, f"the workload never passed {name} {nth} times: {ended.output} {ended.errors}"
    if victim == ended.pid:
        assert ended.killed, f"{name} killed the host, but it ended with {ended.status}: {ended.errors}"
        assert name not in IN_WORKERS
    else:
        assert name in IN_WORKERS | OF_TANTIVY, f"{name} was passed by a worker process"
        assert ended.status == 0, f"a worker died at {name}, and the host ended with {ended.status}: {ended.errors}"
        ledger = LedgerContent(scene.ledger)
        assert [note["worker_deaths"] for note in ledger.notes if note["kind"] == "end"] == [1]
    figures = scene.verdict("injected at")
    print(f"{name}@{nth}: {figures}")
    scene.clear()


def test_every_point_is_passed_somewhere_and_every_passed_one_is_listed() -> None:
    folders = ("storage", "actors", "engine", "service", "model")
    texts = "".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert set(re.findall(r'\bfailpoint\("([a-z_.]+)"\)', texts)) == set(POINTS)


@pytest.mark.parametrize("name", ["switch.near", "switch.sealed", "switch.drained", "switch.proven"])
def test_a_kill_before_the_commit_of_a_switch_has_changed_nothing(tmp_path: Path, name: str) -> None:
    live_after_kill(tmp_path, f"{name}=kill@2", generation=1, epoch=1, state="BUILT")


@pytest.mark.parametrize("name", ["switch.committed", "switch.pointed", "switch.verify"])
def test_a_kill_behind_the_commit_of_a_switch_leaves_it_done(tmp_path: Path, name: str) -> None:
    live_after_kill(tmp_path, f"{name}=kill@2", generation=2, epoch=2, state="ACTIVE")


def live_after_kill(tmp_path: Path, points: str, generation: int, epoch: int, state: str) -> None:
    """Kill the host in its second switch; look at the index and at the shadow of that switch."""
    scene = Scene(tmp_path)
    ended = scene.workload(points=points)
    assert ended.killed, ended.errors
    with Engine.open(scene.data, config()) as engine:
        committed = [event for event in engine.audit() if event.type == "switch.committed"]
        assert engine.index("main", INDEX).generation == generation
        assert committed[-1].data["epoch"] == epoch
        assert [shadow.state for shadow in engine.shadows("main") if shadow.generation == 2] == [state]
        assert engine.check() == []
    scene.verdict("injected at")


def test_a_kill_right_after_going_back_leaves_the_generation_unsound(tmp_path: Path) -> None:
    """The second switch does not verify. One transaction goes back and marks its generation unsound."""
    scene = Scene(tmp_path)
    ended = scene.workload(points="switch.verify=raise:EIO@2;switch.committed=kill@3")
    assert ended.killed, ended.errors
    with Engine.open(scene.data, config()) as engine:
        assert engine.index("main", INDEX).generation == 1
        assert engine.index("main", INDEX).previous_generation is None
        assert [shadow.generation for shadow in engine.shadows("main", "CLEANUP")] == [2]
    scene.verdict("injected at")


RECOVERIES = [
    ("journal.committed@40", "recover.step@1"),
    ("switch.validated", "journal.before_commit@1"),
    ("switch.validated", "journal.committed@1"),
    ("switch.sealed@2", "recover.step@2"),
    ("switch.proven@2", "recover.opened@1"),
    ("switch.committed@2", "follow.applied@1"),
    ("switch.pointed@2", "journal.committed@1"),
    ("build.claimed", "build.prepared@1"),
    ("build.prepared@2", "journal.committed@2"),
    ("build.validated@2", "build.built@1"),
    ("retire.removed", "retire.marked@1"),
    ("trim.noted", "trim.slice@1"),
    ("open.catalog", "open.catalog@1"),
    ("lock.stored", "recover.step@1"),
    ("lock.before_store@3", "lock.stored@1"),
    ("publish.copied", "recover.cleaned@1"),
    ("publish.exchanged@2", "recover.opened@1"),
    ("retire.shard_removed", "retire.shard_removed@1"),
    ("follow.shard_applied@9", "follow.shard_applied@1"),
]
"""A first kill that leaves something to recover, and a kill in that recovery (or in the work after it)."""


@pytest.mark.parametrize(("before", "during"), RECOVERIES, ids=[f"{b}-{d}" for b, d in RECOVERIES])
def test_kill_during_recovery(tmp_path: Path, before: str, during: str) -> None:
    scene = Scene(tmp_path)
    first, _, nth = before.partition("@")
    ended = scene.workload(points=f"{first}=kill@{nth or 1}")
    assert ended.killed, f"{before}: {ended.status} {ended.errors}"
    (scene.marks / first).unlink(missing_ok=True)
    point, _, nth = during.partition("@")
    again = scene.oracle(points=f"{point}=kill@{nth}")
    assert again.killed, f"recovery after {before} never passed {during}: {again.status} {again.output} {again.errors}"
    print(f"{before}, then {during}: {scene.verdict()}")
    scene.clear()


def stored(data: Path) -> list[int]:
    """How many records each shard of the first generation holds."""
    rows = []
    for shard in sorted(data.glob("generations/main/*/00000001/shard-*/shard.sqlite")):
        try:
            with closing(sqlite3.connect(f"file:{shard}?mode=ro", uri=True)) as connection:
                rows.append(int(connection.execute("SELECT count(*) FROM docs").fetchone()[0]))
        except sqlite3.Error:
            rows.append(0)
    return rows or [0]


def test_a_resumed_build_copies_only_the_missing_slices(tmp_path: Path) -> None:
    """A shard has about 130 records, in slices of 10. When each shard has stored 60, some 8 slices are missing.

    A worker that starts over passes 14 slices and is killed at the 12th. The oracle counts its death.
    """
    scene = Scene(tmp_path)
    process = start(scene.command("workload"), scene.environment("copy.slice=sleep:0.3", once=False))
    try:
        wait_until(lambda: min(stored(scene.data)) >= 60, "each shard has 60 records")
        os.kill(process.pid, signal.SIGKILL)
    finally:
        finish(process)
    print(f"the shards had {stored(scene.data)} records when the host was killed")
    again = scene.oracle(points="copy.slice=kill@12")
    figures = json.loads(again.output)
    assert again.status == 0, f"the oracle says: {figures}"
    assert figures["resumed"] == 1
    assert figures["worker_deaths"] == 0, "a resumed worker copied stored slices again"
