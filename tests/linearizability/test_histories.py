"""Histories of clients of a real engine are linearizable, by threads and by processes; those of planted bugs are not.

The engine runs in the process of the test. Processes call it through the socket of `hosting.SocketServer`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine
from tests.linearizability.hosting import record, violations
from tests.support.edited_library import Edits, assert_fits, copy_of_the_library
from tests.support.engine_helpers import ROOT

SHARES = {"threads": (6, 100, 12), "processes": (5, 100, 10)}
"""Clients of each branch, operations of each, branches: 12,200 calls together."""

MUTANTS: dict[str, tuple[str, Edits]] = {
    "a record is locked although its type is": (
        "threads",
        {
            "model/locks/index.py": [
                (
                    "                    + self._types.get(target.resource_type, [])\n"
                    "                    + self._resources.get",
                    "                    + self._resources.get",
                )
            ]
        },
    ),
    "a lock is answered before the writes that were admitted before it are committed": (
        "threads",
        {
            "actors/branch/lock_requests.py": [
                (
                    '        locks.take(step, now, wall, "acquire a lock")\n',
                    "        message.reply.set_result(tuple(lock_info(lock, now, wall) for lock in step.value.locks))\n"
                    '        locks.take(step, now, wall, "acquire a lock")\n'
                    "        return\n",
                )
            ]
        },
    ),
    "a write is acknowledged before it is committed": (
        "processes",
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
}


@pytest.mark.slow
@pytest.mark.parametrize("how", SHARES)
def test_the_histories_of_clients_are_linearizable(open_engine: Callable[[], Engine], tmp_path: Path, how: str) -> None:
    clients, operations, branches = SHARES[how]
    seen = record(open_engine(), tmp_path, how, clients, operations, "1", branches)
    assert len(seen) == clients * operations * branches
    wrong, checked = violations(seen)
    assert wrong == []
    assert checked > len(seen) / 2, "too many branches had a timeout"
    answers = Counter((one.request.kind, one.answer[0]) for one in seen)
    wanted = {
        ("acquire", "granted"), ("acquire", "conflict"), ("release", "ok"), ("release", "lost"), ("write", "lsn"),
        ("write", "blocked"), ("write", "lost"), ("check", "allowed"), ("check", "blocked"), ("heartbeat", "ok"),
        ("heartbeat", "lost"), ("head", "head"), ("force", "forced"),
    }  # fmt: skip
    assert wanted <= set(answers), sorted(wanted - set(answers))


def verdict(tmp_path: Path, how: str, edits: Edits, seed: int) -> tuple[int, str]:
    library = tmp_path / "library"
    if not library.exists():
        copy_of_the_library(library, edits)
    folder = tmp_path / f"run-{seed}"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.linearizability.hosting", str(folder), how, "5", "60", str(seed), "8"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert "calls checked" in done.stdout, done.stdout + done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_bug_fits_the_source(name: str) -> None:
    assert_fits(MUTANTS[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_not_linearizable(tmp_path: Path, name: str) -> None:
    how, edits = MUTANTS[name]
    statuses = [0]
    while not any(statuses) and len(statuses) < 6:
        status, output = verdict(tmp_path, how, edits, seed=len(statuses))
        statuses.append(status)
    assert any(statuses), f"the mutant survived {len(statuses) - 1} runs: {output}"


@pytest.mark.slow
def test_the_unedited_library_is_linearizable_in_the_same_trial(tmp_path: Path) -> None:
    assert [verdict(tmp_path, "threads", {}, seed)[0] for seed in (1, 2)] == [0, 0]
