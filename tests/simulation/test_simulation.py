"""Many seeds have no violation; the same seed twice is the same run; the simulated library has no real clock or thread.

make simulate SEEDS=100000 runs more of them, make simulate SEED=4711 shows one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shadowswitch.actors.branch import router
from shadowswitch.actors.kit import actor as base
from tests.simulation import runs, scenario, seams
from tests.simulation.forks import Forking
from tests.simulation.host import Store
from tests.simulation.world import Violation
from tests.support import patience
from tests.support.engine_helpers import ROOT, outside_environment

SEEDS = int(os.environ.get("SEEDS") or 10_000)
BUILD_SEEDS = SEEDS // 20
"""Seeds with builds and switches take five times as long."""
FORK_SEEDS = SEEDS // 10
RUNS = [sys.executable, "-m", "tests.simulation.runs"]
PROCESSES = min(2, os.cpu_count() or 1)

ACTOR_LOOP = vars(base.EngineActor)["_start_actor_loop"]


@pytest.fixture
def store() -> Iterator[Store]:
    with runs.simulating() as store:
        yield store


def simulate(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    settings = outside_environment(**environment)
    return subprocess.Popen(
        [*RUNS, *arguments], cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_all(folder: Path, seeds: int, *more: str) -> None:
    """Run seeds in several processes. There is no deadline for all of them: each process must make progress."""
    share = -(-seeds // PROCESSES)
    outputs = [folder / f"seeds-{number}" for number in range(PROCESSES)]
    with ExitStack() as stack:
        todo = [
            stack.enter_context(
                patience.running(
                    [*RUNS, "--progress", "--seeds", str(share), "--from", str(share * number), *more],
                    output,
                    cwd=ROOT,
                    env=outside_environment(),
                )
            )
            for number, output in enumerate(outputs)
        ]
        statuses = [
            patience.wait(process, lambda: [patience.size_of(output) for output in outputs]) for process in todo
        ]
    output_lines = "\n".join(
        line for output in outputs for line in output.read_text().splitlines() if " seeds" not in line[-6:]
    )
    print(output_lines)
    assert statuses == [0] * len(todo), output_lines
    assert output_lines.count("no violation") == len(todo)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_ten_thousand_seeds_without_a_violation(tmp_path: Path) -> None:
    run_all(tmp_path, SEEDS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_seeds_with_builds_and_switches_without_a_violation(tmp_path: Path) -> None:
    run_all(tmp_path, BUILD_SEEDS, "--builds")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_seeds_with_forks_without_a_violation(tmp_path: Path) -> None:
    run_all(tmp_path, FORK_SEEDS, "--forks")


def test_the_seeds_with_forks_reach_every_event_and_fault(store: Store) -> None:
    counts: Counter[str] = Counter()
    for seed in range(150):
        counts += runs.run_seed(seed, store, Forking).counts
    expected = {
        "restarts", "ENOSPC", "EIO", "snapshot forks", "following forks", "merges", "batches of a merge", "rebases",
        "batches of a rebase", "drops", "reads", "merge: WriteBlocked", "drop: InUse",
    }  # fmt: skip
    assert expected <= set(counts), sorted(expected - set(counts))


def test_the_seeds_reach_every_event_and_fault(store: Store) -> None:
    counts: Counter[str] = Counter()
    for seed in range(150):
        counts += runs.run_seed(seed, store).counts
    expected = {
        "restarts", "reboots", "ENOSPC", "EIO", "lock.granted", "lock.released", "lock.expired", "lock.forced",
        "lock.extended", "locks that were waited for", "writes under a lock", "write: WriteBlocked", "write: LockLost",
        "release: LockLost", "heartbeat: LockLost", "acquire: LockConflict", "write: StorageFull", "write: Timeout",
    }  # fmt: skip
    assert expected <= set(counts), sorted(expected - set(counts))


def test_the_seeds_with_builds_reach_every_event_and_fault(store: Store) -> None:
    counts: Counter[str] = Counter()
    for seed in range(200):
        counts += runs.run_seed(seed, store, scenario.Rebuilding).counts
    expected = {
        "restarts", "ENOSPC", "EIO", "switches", "switch: success True", "rollback: success True", "worker deaths",
        "switch: InvalidTransition", "build: DuplicateBuild", "built: BuildFailed", "built: BuildCancelled",
        "shadow BUILT", "shadow SWITCHING", "shadow ACTIVE", "shadow FAILED", "shadow CANCELLED", "shadow CLEANUP",
    }  # fmt: skip
    assert expected <= set(counts), sorted(expected - set(counts))


@pytest.mark.parametrize(("seed", "more"), [(0, ()), (21, ()), (397, ()), (3, ("--builds",)), (7, ("--forks",))])
def test_a_seed_is_the_same_run_again_in_every_process(store: Store, seed: int, more: tuple[str, ...]) -> None:
    kind = {"--builds": scenario.Rebuilding, "--forks": Forking}[more[0]] if more else scenario.Run
    here = runs.run_seed(seed, store, kind).world.trace_lines()
    assert here == runs.run_seed(seed, store, kind).world.trace_lines()
    elsewhere = simulate("--seed", str(seed), *more, PYTHONHASHSEED=str(seed + 1)).communicate()[0]
    assert elsewhere.splitlines() == here


def test_a_violation_names_its_seed_its_trace_and_the_command_that_repeats_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenario, "SETTLED_S", -100.0)
    with pytest.raises(Violation, match=r"(?s)^seed 3: .* done .*make simulate SEED=3$"):
        runs.run_seed(3, store)


def test_no_real_clock_or_id_is_left_in_the_simulated_library(store: Store) -> None:
    assert seams.reality_left() == []


def test_the_library_is_restored_after_a_simulation() -> None:
    with runs.simulating():
        pass
    assert vars(base.EngineActor)["_start_actor_loop"] is ACTOR_LOOP
    assert vars(router)["threading"] is threading
