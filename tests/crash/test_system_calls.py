"""A kill at any system call: strace kills at the n-th use of a call on a file, then the oracle. Needs no failpoint.

The whole life of an index makes some 1,400 such uses. `make test` takes a spread subset, `make torture` all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import tracing
from tests.crash.running import Scene
from tests.crash.tracing import LOCKING, Case

CASES_MAX = 20
PARTS = 40
MISSING = tracing.missing()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


def recorded(folder: Path) -> list[Case]:
    scene = Scene(folder / "recorded")
    cases = tracing.record(scene, scene.command("workload", "tiny"))
    scene.clear()
    return cases


def kill_at(case: Case, folder: Path) -> bool:
    """Kill at one case, ask the oracle; False when the run did not reach it (threads do not always do the same)."""
    scene = Scene(folder)
    ended = scene.run(tracing.injected(scene, scene.command("workload", "tiny"), case, "signal=KILL"), {})
    worker_died = ended.status == 1 and "died 4 times" in ended.errors
    assert ended.killed or worker_died or ended.status == 0, f"{case}: {ended.status} {ended.errors}"
    try:
        scene.verdict("died 4 times")
    except AssertionError as error:
        raise AssertionError(f"killed at {case} ({ended.status}): {error}") from error
    scene.clear()
    return ended.killed or worker_died


def test_kill_at_every_use_is_a_real_kill(tmp_path: Path) -> None:
    """Tests the tool: the third sync of the catalog kills, and no thread reaches a fourth."""
    scene = Scene(tmp_path)
    case = Case("catalog/data.mdb", "fdatasync", 3)
    assert scene.run(tracing.injected(scene, scene.command("workload", "tiny"), case, "signal=KILL"), {}).killed


def kill_at_all(cases: list[Case], folder: Path) -> None:
    killed, violations = 0, []
    for number, case in enumerate(cases):
        try:
            killed += kill_at(case, folder / f"{number}")
        except (AssertionError, TimeoutError) as violation:
            violations.append(str(violation))
    print(f"system calls: {len(cases)} points run, killed at {killed}, {len(violations)} violations")
    assert not violations, "\n\n".join(violations)
    assert killed >= len(cases) * 0.6, "most points are reached again in a second run"


@pytest.mark.timeout(900)
def test_kill_at_every_system_call(tmp_path: Path) -> None:
    cases = recorded(tmp_path)
    kill_at_all(tracing.spread(cases, CASES_MAX), tmp_path)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_kill_at_every_changing_system_call(tmp_path: Path, part: int) -> None:
    """All calls that change a file or a name, and every tenth of those that only take a lock."""
    cases = recorded(tmp_path)
    locks = [case for case in cases if case.call in LOCKING]
    all_cases = [case for case in cases if case.call not in LOCKING] + locks[::10]
    kill_at_all(all_cases[part::PARTS], tmp_path)
