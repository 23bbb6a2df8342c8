"""The simulation finds each planted bug, with the expected violation. A mutant is an edited copy of the library."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support import patience
from tests.support.edited_library import Edits, assert_fits, copy_of_the_library
from tests.support.engine_helpers import ROOT

SEEDS = 2000

PASS_ON = "        self._journal.tell(Append(self._row.number, message.batch, message.reply, fence))\n"
NEW_LOCKS = "            locks = self._make(row, Held(0, table, status))\n"
RELOADED = '''
def _stored(catalog, row):
    """The stored locks of a branch whose actor has stopped."""
    try:
        found = [stored for stored in all_locks(catalog) if stored.branch == row.number]
    except Exception:  # the process of the simulation is dying, its catalog is closed
        return None
    return Held(found[0].revision, LockTable.resume(found[0].table), found[0].status) if found else None


class LockRegistry:'''

Planted = dict[str, tuple[str, Edits]]
"""By the name of the bug: a text of the violation, and the edits by file."""

MUTANTS: Planted = {
    "late fence: the token is checked before the transaction, not in it": (
        "was committed with the stale token",
        {
            "actors/journal_writer.py": [
                ("                    if message.fence is not None:\n", "                    if False:\n")
            ]
        },
    ),
    "lost waiter: the actor of a branch stops although a request waits": (
        "although",  # its locks are held, or nothing went wrong: the waiter is refused, or is never answered
        {
            "actors/branch/router.py": [
                (
                    "load.sent == load.handled and not self.locks.get(number).waiters",
                    "load.sent == load.handled",
                ),
                ("            if self.locks.get(number).forgettable:\n", "            if True:\n"),
            ],
            "actors/branch/lock_registry.py": [
                (NEW_LOCKS, NEW_LOCKS.replace("Held(0,", "_stored(self._context.catalog, row) or Held(0,")),
                ("\nclass LockRegistry:", RELOADED),
            ],
        },
    ),
    "admission after grant: an admitted write is sent on a little later": (
        "was committed under the lock",
        {
            "actors/branch/actor.py": [
                (PASS_ON, "        append = " + PASS_ON.partition("tell(")[2][:-2] + "\n"
                 "        self._locks._alarm._timers.after(0.0, lambda: self._journal.tell(append))\n")
            ]
        },
    ),
    "tokens begin anew: the next one is not stored": (
        "was granted after",
        {"model/locks/view.py": [("now,\n            next_token=self.next_token", "now,\n            next_token=1")]},
    ),
    "the last comes first: a new request is not compared with the waiting ones": (
        "was served before",
        {"model/locks/table.py": [("exempt, draft.waiters)", "exempt, ())")]},
    ),
    "a restart forgets the locks": (
        "has revision 0 in memory",
        {
            "actors/branch/lock_registry.py": [
                ("        if not found:\n            return\n", "        if found:\n            return\n"),
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


PROVEN = '        failpoint("switch.proven")\n'
PROOF = "        if self._target.writer.differing(source):\n"
DRAIN = (
    "            self._end.drained = self._index.catch_up("
    "self._target, self._head, ends, min(ends, self._live_until))\n"
)
AGREE = "        if not self._index.agree(self._context.catalog, self._generations, row):\n"
MOVE_POINTER = "        self._index.set_live(self._target, self._index.epoch + 1, self._context.catalog.head(1)[0])\n"
OBSERVED = '        self._end.sealed_ms = self._observe("sealed", self._begun)\n'
GATHERED = "        self._commit_pending()\n        self._answer()  # its writers do not wait for the switch\n"
COMMIT = "        try:\n            self._commit([message])\n        except BaseException as error:\n"
SETTLE = "            self._settle(message)\n"
STILL_PROVEN = "        if head != self._head:\n"

BUILDING: Planted = {
    "the pointer moves before the commit": (
        "IX-1: the pointer leads to generation",
        {"actors/switch/attempt.py": [(PROVEN, PROVEN + MOVE_POINTER)]},
    ),
    "the pointer moves to the target without a look at the catalog": (
        "IX-1: the pointer leads to generation",
        {"actors/switch/attempt.py": [(AGREE, MOVE_POINTER + "        if False:\n")]},
    ),
    "the pointer moves and keeps its epoch": (
        "IX-1: the pointer leads to generation",
        {"actors/switch/live_index.py": [("(row.live), row.epoch, row", "(row.live), self.epoch, row")]},
    ),
    "the pointer does not move when the commit got no answer": (
        "IX-1: the pointer of",
        {"actors/journal_writer.py": [(SETTLE + "            self._refuse(", "            self._refuse(")]},
    ),
    "no proof before the commit": (
        "and differs from its source",
        {"actors/switch/attempt.py": [(PROOF, "        if False:\n")]},
    ),
    "the last changes are applied behind the commit": (
        "SW-3: generation",
        {
            "actors/switch/attempt.py": [
                (DRAIN, "            pass\n"),
                (PROOF, "        if False:\n"),
                (
                    OBSERVED,
                    "        self._index.catch_up(self._target, self._context.catalog.head(1)[0], 1e9, 1e9)\n"
                    + OBSERVED,
                ),
            ]
        },
    ),
    "gathered writes are committed between the proof and the commit": (
        "SW-3: generation",
        {
            "actors/journal_writer.py": [
                (GATHERED, ""),
                (COMMIT + SETTLE, "        self._commit_pending()\n" + COMMIT + SETTLE),
            ],
            "actors/switch/attempt.py": [(STILL_PROVEN, "        if False:\n")],
        },
    ),
    "a switch does not raise the read floor": (
        "SW-2: the read floor is LSN",
        {"actors/switch/live_index.py": [("(row.live), row.epoch, row.sealed_lsn)", "(row.live), row.epoch, 0)")]},
    ),
    "the start of an engine sets no read floor": (
        "SW-2: the read floor is LSN",
        {"engine/recovery.py": [(".set_live(live, index.epoch, head)", ".set_live(live, index.epoch, 0)")]},
    ),
    "a follower brings a soaking generation ahead of the live one": (
        "which readers may hold",
        {"actors/switch/live_index.py": [("        return min(head, live.applied_lsn)\n", "        return head\n")]},
    ),
    "the live generation does not catch up before a rollback": (
        "which readers may hold",
        {
            "actors/switch/live_index.py": [
                ("live.writer.apply_until(upto, live_until)", "pass"),
            ]
        },
    ),
    "the start of an engine forgets which generations are exposed": (
        "which readers may hold",
        {"engine/recovery.py": [(".index_type).expose(row.number)", ".index_type)")]},
    ),
    "a reader is given less than it asks for": (
        "SW-2: ",
        {
            "actors/switch/live_index.py": [
                ("least = max(min_lsn, self._floor_of(live))", "least = self._floor_of(live)")
            ]
        },
    ),
    "an unknown outcome counts as not switched": (
        "says that nothing was switched",
        {"model/switch_outcome.py": [("        if target_live:\n            return SwitchOutcome.SWITCHED\n", "")]},
    ),
    "a cancelled build keeps its generation": (
        "IX-6",
        {
            "storage/catalog/transitions/builds.py": [
                (
                    '        retire(commit, row.generation)\n    emit(commit, row, "build.cancelled"',
                    '        pass\n    emit(commit, row, "build.cancelled"',
                )
            ]
        },
    ),
    "the delta is not searched": (
        "found other records than the rows",
        {"storage/backends/tantivy/reader.py": [(" if wanted.last > wanted.covers else []\n", " if False else []\n")]},
    ),
    "words of rows that are not carried yet leave the delta": (
        "delta: it lacks",
        {
            "storage/backends/tantivy/writer.py": [
                (
                    "            if 0 < delta.last_row(self._connection, number) <= state.covers:\n",
                    "            if delta.last_row(self._connection, number):\n",
                )
            ]
        },
    ),
    "entries of a row that is removed stay": (
        "their number is not that of the rows' entries",
        {
            "storage/backends/derived/writer.py": [
                ("        entries.remove(transaction, derived_of(self._opened()), key)\n", "        pass\n")
            ]
        },
    ),
    "two builds of one index are claimed": (
        "IX-6: two builds of one index",
        {
            "storage/catalog/transitions/builds.py": [
                ("other = commit.under_way(branch.number, spec.index_type)\n", "other: ShadowRow | None = None\n")
            ]
        },
    ),
}


FORKING: Planted = {
    "the parent saves no old images": (
        "BR-1",
        {
            "storage/catalog/source/overlay.py": [
                ("    if keys.claimed_lsn(value) <= lineage.newest_fork:\n", "    if False:\n")
            ]
        },
    ),
    "ancestors are not cut at the fork": (
        "BR-1",
        {
            "storage/catalog/source/fork_table.py": [
                ("min(cut, row.shows_as_of)\n", "LSN_MAX\n"),
            ]
        },
    ),
    "old images that a fork needs are trimmed": (
        "BR-1",
        {"storage/catalog/transitions/forks.py": [("any(lsn <= fork < newer for fork in forks)", "False")]},
    ),
    "a merge does not compare in its transaction": (
        "BR-2: no merge under way makes",
        {
            "storage/catalog/source/own_changes.py": [
                ('            raise Moved("a record', '            lambda: Moved("a record')
            ]
        },
    ),
    "a rebase that was cut short begins again from a later head": (
        "BR-",
        {
            "storage/catalog/transitions/forks.py": [
                ("    if row.rebase_lsn < 0:\n        row = _put", "    if True:\n        row = _put")
            ]
        },
    ),
    "a fork that follows takes over changes of what it changed itself": (
        "BR-1",
        {"storage/catalog/source/followed.py": [("if not _is_own(commit, branch, one)]", "if one]")]},
    ),
    "a fork that follows keeps no base": (
        "BR-2",
        {"storage/catalog/source/overlay.py": [("    elif lineage.follows:\n", "    elif False:\n")]},
    ),
    "old images are not kept for a fork of one that follows": (
        "BR-1",
        {
            "storage/catalog/source/fork_table.py": [
                ("        if of is None or not of.follows:\n", "        if True:\n")
            ]
        },
    ),
}


def simulate(folder: Path, edits: Edits, seeds: int, *more: str) -> tuple[int, str]:
    """Run seeds on an edited copy of the library, as long as they make progress; returns its status and its output."""
    output = folder / "output"
    command = [sys.executable, "-m", "tests.simulation.runs", "--progress", "--seeds", str(seeds), *more]
    environment = {**os.environ, "PYTHONPATH": str(copy_of_the_library(folder / "library", edits))}
    with patience.running(command, output, cwd=ROOT, env=environment) as process:
        status = patience.wait(process, lambda: patience.size_of(output))
    lines = output.read_text().splitlines()
    return status, "\n".join(line for line in lines if not line.endswith(f" of {seeds} seeds"))


@pytest.mark.parametrize("name", [*MUTANTS, *BUILDING, *FORKING])
def test_every_planted_bug_fits_the_source(name: str) -> None:
    assert_fits({**MUTANTS, **BUILDING, **FORKING}[name][1])


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(tmp_path: Path, name: str) -> None:
    expected, edits = MUTANTS[name]
    status, output = simulate(tmp_path, edits, SEEDS)
    assert status == 1, f"the mutant survived: {output}"
    assert expected in output.splitlines()[0], output
    print(name, output.splitlines()[0], sep="\n  ")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", BUILDING)
def test_a_planted_bug_of_builds_is_found(tmp_path: Path, name: str) -> None:
    expected, edits = BUILDING[name]
    status, output = simulate(tmp_path, edits, SEEDS // 2, "--builds")
    assert status == 1, f"the mutant survived: {output}"
    assert expected in output.splitlines()[0], output


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", FORKING)
def test_a_planted_bug_of_forks_is_found(tmp_path: Path, name: str) -> None:
    expected, edits = FORKING[name]
    status, output = simulate(tmp_path, edits, SEEDS, "--forks")
    assert status == 1, f"the mutant survived: {output}"
    assert expected in output.splitlines()[0], output


def test_the_copy_without_a_planted_bug_passes(tmp_path: Path) -> None:
    status, output = simulate(tmp_path, {}, 50)
    assert status == 0, output
