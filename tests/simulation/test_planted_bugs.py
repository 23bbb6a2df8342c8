"""Planted bugs are found by the simulation, each as what it is. A mutant is a copy of the library, changed in text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine_helpers import ROOT
from tests.test_mutations import copy_of_the_library

SEEDS = 2000

PASS_ON = "        self._house.journal.tell(Append(self._row.number, message.batch, message.reply, fence))\n"
KEEPER = "            house, row, Held(0, LockTable(row.name, clock_id=boot_id()), status)\n"
RELOADED = '''
def _stored(house: House, row: BranchRow) -> Held | None:
    """What a passivated branch is when only what is stored is kept of it."""
    try:
        found = [stored for stored in all_locks(house.catalog) if stored.branch == row.number]
    except Exception:  # the process of the simulation is dying, its catalog is closed
        return None
    return Held(found[0].revision, LockTable.resume(found[0].table), found[0].status) if found else None


def load_keepers('''

MUTANTS: dict[str, tuple[str, dict[str, list[tuple[str, str]]]]] = {
    "late fence: the token is looked at before the transaction, not in it": (
        "was committed with the stale token",
        {
            "actors/journal_writer.py": [
                ("                    if message.fence is not None:\n", "                    if False:\n")
            ]
        },
    ),
    "lost waiter: a branch goes to sleep although somebody waits": (
        "ended in a timeout although nothing went wrong",
        {
            "actors/branch/router.py": [
                (
                    "load.sent == load.handled and not self._house.keepers[number].waiting",
                    "load.sent == load.handled",
                ),
                ("            if self._house.keepers[number].forgettable:\n", "            if True:\n"),
            ],
            "actors/branch/lock_registry.py": [
                (KEEPER, KEEPER.replace("Held(0,", "_stored(house, row) or Held(0,")),
                ("\ndef load_keepers(", RELOADED),
            ],
        },
    ),
    "admission after grant: what was admitted is passed on a little later": (
        "was committed under the lock",
        {
            "actors/branch/actor.py": [
                (PASS_ON, "        append = " + PASS_ON.partition("tell(")[2][:-2] + "\n"
                 "        self._house.timers.after(0.0, lambda: self._house.journal.tell(append))\n")
            ]
        },
    ),
    "tokens begin anew: the next one is not stored": (
        "was granted after",
        {"model/locks/view.py": [("            next_token=self.next_token,\n", "            next_token=1,\n")]},
    ),
    "the last comes first: a new request is not compared with those who wait": (
        "was served before",
        {"model/locks/table.py": [("exempt, draft.waiters)", "exempt, ())")]},
    ),
    "a restart forgets the locks": (
        "has revision 0 in memory",
        {
            "actors/branch/lock_registry.py": [
                ("    if not found:\n        return\n", "    if found:\n        return\n"),
            ]
        },
    ),
    "acknowledged before it is committed": (
        "was acknowledged",
        {
            "actors/journal_writer.py": [
                (
                    "                    results.append(commit.write(message.branch, message.batch))\n",
                    "                    results.append(commit.write(message.branch, message.batch))\n"
                    "                    message.reply.done() or message.reply.set_result(results[-1])\n",
                ),
                (
                    "            message.reply.set_result(result)\n\n    def _refuse",
                    "            message.reply.done() or message.reply.set_result(result)\n\n    def _refuse",
                ),
            ]
        },
    ),
}  # fmt: skip


BUILDING: dict[str, tuple[str, dict[str, list[tuple[str, str]]]]] = {
    "a switch is sealed at the LSN of its proof, and forgets what was written since": (
        "SW-3",
        {
            "actors/switch/attempt.py": [
                ("            commit.head(self._branch)[0],\n", "            self._writer.applied_lsn,\n")
            ]
        },
    ),
    "readers are led over before the last changes were brought in": (
        "SW-2: readers are led to LSN",
        {
            "actors/switch/attempt.py": [
                ("self._outcome.drained += self._writer.apply_until(upto, ends)", "pass"),
                ('self._compare(source, " after the last changes")\n', "pass\n"),
            ]
        },
    ),
    "a cancelled build keeps its generation": (
        "IX-6",
        {
            "storage/catalog/transitions.py": [
                (
                    '        _retire(commit, row.generation)\n    _emit(commit, row, "build.cancelled"',
                    '        pass\n    _emit(commit, row, "build.cancelled"',
                )
            ]
        },
    ),
    "two builds of one index are claimed": (
        "IX-6: two builds of one index",
        {
            "storage/catalog/transitions.py": [
                ("spec.index_type and other.state in UNDER_WAY:\n", "spec.index_type and not other.state:\n")
            ]
        },
    ),
}


def simulate(library: Path, seeds: int, *more: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.runs", "--seeds", str(seeds), *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(tmp_path: Path, name: str) -> None:
    expected, patches = MUTANTS[name]
    status, told = simulate(copy_of_the_library(tmp_path / "library", patches), SEEDS)
    assert status == 1, f"the mutant survived: {told}"
    assert expected in told.splitlines()[0], told
    print(name, told.splitlines()[0], sep="\n  ")


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDING)
def test_a_planted_bug_of_builds_is_found(tmp_path: Path, name: str) -> None:
    expected, patches = BUILDING[name]
    status, told = simulate(copy_of_the_library(tmp_path / "library", patches), SEEDS // 10, "--builds")
    assert status == 1, f"the mutant survived: {told}"
    assert expected in told.splitlines()[0], told


def test_the_copy_without_a_planted_bug_passes(tmp_path: Path) -> None:
    status, told = simulate(copy_of_the_library(tmp_path / "library", {}), 50)
    assert status == 0, told
