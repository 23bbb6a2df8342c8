"""A host is killed during its commits: its acknowledged writes are there. The same test catches a library that
acknowledges before the commit.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shadowswitch import Engine
from tests.repository.test_mutations import SCENARIO
from tests.support.edited_library import Edits, assert_fits, copy_of_the_library
from tests.support.engine_helpers import outside_environment
from tests.support.rebuild_scenario import TYPE

LAST = "        for message, result in answers:\n            message.reply.set_result(result)\n"
PAUSE = "self._catalog.clock" + ".sleep(0.1)"  # in two parts: a sleep of the mutant, not of the test
ACK_BEFORE_COMMIT: Edits = {
    "actors/journal_writer.py": [
        (
            "        commit.run(work, self._answer)\n",
            f"        commit.run(lambda c: (work(c), acknowledge(), {PAUSE}), self._answer)\n",
        ),
        (
            "        commit = Commit(self._catalog, self._counters)\n",
            "        commit = Commit(self._catalog, self._counters)\n"
            "\n"
            "        def acknowledge() -> None:\n"
            "            for message, result in zip(group, results):\n"
            "                if isinstance(message, Append):\n"
            "                    message.reply.set_result(result)\n",
        ),
        (LAST, LAST.replace("            message", "            if isinstance(message, Transact): message")),
    ]
}


def lost_acks(tmp_path: Path, edits: Edits, nth: int) -> tuple[int, list[str]]:
    """Let a host write until a kill before a commit; the number of its acknowledged writes, and the lost ones."""
    library = copy_of_the_library(tmp_path / "library", edits)
    environment = outside_environment(PYTHONPATH=str(library), SHADOWSWITCH_POINTS=f"journal.before_commit=kill@{nth}")
    command = [sys.executable, str(SCENARIO), str(tmp_path / "data"), "acks"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acked = done.stdout.splitlines()
    with Engine.open(tmp_path / "data") as engine:
        lost = [id for id in acked if engine.get("main", TYPE, id) is None]
        assert engine.check() == []
    return len(acked), lost


def test_the_wrong_library_fits_the_source() -> None:
    assert_fits(ACK_BEFORE_COMMIT)


@pytest.mark.parametrize("nth", [6, 20, 77])
def test_acknowledged_writes_of_a_killed_host_are_there(tmp_path: Path, nth: int) -> None:
    count, lost = lost_acks(tmp_path, {}, nth)
    assert lost == []
    assert count > 0


@pytest.mark.slow
def test_a_library_that_acknowledges_before_the_commit_is_caught(tmp_path: Path) -> None:
    _, lost = lost_acks(tmp_path, ACK_BEFORE_COMMIT, 20)
    assert lost, "the mutant survived"
