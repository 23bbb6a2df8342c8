"""Benchmarks and the simulation run with tiny parameters, so that none breaks unnoticed. Figures are not judged."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import results, run
from benchmarks.common import Report, decode_report
from benchmarks.ledger import Key, Ledger
from benchmarks.results import Section
from benchmarks.simulation.hosts import Delays
from benchmarks.simulation.running import run_mode
from benchmarks.simulation.schedule import Size, everyday
from tests.support import inside
from tests.support.engine_helpers import outside_environment

ROOT = Path(__file__).parents[2]
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def report_of(tmp_path: Path, module: str, *arguments: str) -> Report:
    """Run a script as a user would, and read its report."""
    written = tmp_path / "report.json"
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", str(written), "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=outside_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert written.exists(), done.stdout + done.stderr
    report = decode_report(written.read_bytes())
    assert (done.returncode, report.problems) == (0, []), done.stdout + done.stderr
    assert report.figures
    assert msgspec.json.decode(msgspec.json.encode(report))["title"]
    return report


@pytest.mark.slow
def test_the_simulation_shows_the_failures_of_the_other_ways_and_none_of_ours(tmp_path: Path) -> None:
    size = "--developers 10 --branches 1 --minutes 0.015 --rebuilds 1 --records 400 --think-s 0.008"
    # on a loaded machine an edit may take long to become visible; only a quiet machine judges that
    options = f"{size} --gap-ms 200 --copy-deletes 5 --stale-s 30 --expect-failures --plots {tmp_path / 'plots'}"
    report = report_of(tmp_path, "simulate", *options.split())
    assert [target.met for target in report.targets] == [True, True]
    assert all((tmp_path / "plots" / name).read_text().endswith("</svg>\n") for name in report.plots)


@pytest.mark.slow
def test_every_benchmark_runs_and_writes_its_targets_and_figures_into_the_results(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--tiny", "--out", str(tmp_path), "--folder", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=outside_environment(), capture_output=True, text=True, timeout=280, check=False
    )
    written = (tmp_path / "RESULTS.md").read_text()
    assert (done.returncode, "WRONG" in written) == (0, False), written + done.stderr
    for script in (ROOT / "benchmarks").glob("bench_*.py"):
        assert f"<!-- {script.stem} -->" in written, "a benchmark that the runner does not run breaks unnoticed"
    for plot in re.findall(r"\(plots/(.*?)\)", written):
        assert (tmp_path / "plots" / plot).read_text().endswith("</svg>\n")
    assert not list(tmp_path.glob("shadowswitch-bench-*")), "a script removes its working files"


@pytest.mark.slow
def test_reading_and_checks_of_many_types_stand_beside_bare_lmdb(tmp_path: Path) -> None:
    sizes = "--records 500 --branches 20 --types 20 --seconds 0.1"
    report = report_of(tmp_path, "bench_scale", "--rows", "types,checks", *sizes.split())
    names = {figure.name for figure in report.figures}
    for one in ("branch()", "check()", "bare LMDB, the row of a branch", "bare LMDB, all rows of the catalog"):
        assert {f"types: {one}, 1 type", f"types: {one}, 20 types"} <= names
    assert len([name for name in names if name.startswith("checks: bare LMDB, all rows")]) == 2


def test_a_script_whose_limit_no_longer_fits_does_not_start_and_is_named(tmp_path: Path) -> None:
    names = ["--only", "scale,quiet_hours", "--minutes", "2"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.run",
        "--tiny",
        *names,
        "--out",
        str(tmp_path),
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=outside_environment(), capture_output=True, text=True, timeout=200, check=False
    )
    scale, quiet_hours = (tmp_path / "RESULTS.md").read_text().split("<!-- end of bench_scale -->")
    assert (done.returncode, "2.0 minutes were left" in scale) == (1, True), done.stderr
    assert "| figure |" in quiet_hours


def test_every_script_has_its_whole_limit_by_default_and_the_documentation_says_how_long() -> None:
    minutes = sum(script.minutes for script in run.chosen(""))
    assert f"# everything, {minutes:g} minutes at most;" in (ROOT / "docs/performance.md").read_text()


def test_results_of_other_scripts_are_kept_when_one_runs_alone(tmp_path: Path) -> None:
    report = Report("Title", "data")
    report.figure("speed", 1234567.0, "rows/s", "how")
    report.target("fast", "slow", met=False)
    report.problems = ["a record is lost"]
    for name in ("one", "two", "one"):
        results.write(tmp_path / "RESULTS.md", [Section(name, "cmd", 1.0, report)], {}, WHEN, keep=True)
    text = (tmp_path / "RESULTS.md").read_text()
    assert [text.count(f"<!-- {name} -->") for name in ("one", "two")] == [1, 1]
    assert "**0 targets met, 2 not met**" in text
    assert "| speed | 1,235,000 | rows/s | how |" in text
    assert text.count("**WRONG**: a record is lost") == 2


@pytest.mark.parametrize(
    ("code", "limit_s", "says"),
    [
        ("import threading; threading.Event().wait(60)", 1.0, "did not end"),
        ("raise SystemExit(3)", 30.0, "status 3"),
        ("", 30.0, ""),
    ],
)
def test_a_script_that_fails_or_does_not_end_is_named(code: str, limit_s: float, says: str) -> None:
    assert says in run._run([sys.executable, "-c", code], limit_s)


KEYS: list[Key] = [("main", "object_type", str(n)) for n in range(6)]


@pytest.fixture
def ledger() -> Ledger:
    """Six records: imported at LSN 1 to 6; 0 was edited at 7, 1 deleted at 8, 2 edited at 9 with unknown outcome."""
    ledger = Ledger()
    for lsn, key in enumerate(KEYS, 1):
        ledger.imported(key, lsn)
    ledger.acked(KEYS[0], 7, deleted=False)
    ledger.acked(KEYS[1], 8, deleted=True)
    ledger.unknown(KEYS[2])
    return ledger


SOUND = {KEYS[0]: 7, KEYS[3]: 4, KEYS[4]: 5, KEYS[5]: 6}


def test_the_auditor_accepts_acknowledged_writes_and_either_result_of_an_unknown_one(ledger: Ledger) -> None:
    for unknown in ({}, {KEYS[2]: 3}, {KEYS[2]: 9}):
        found = ledger.audit_whole("main", SOUND | unknown)
        assert (found.lost, found.revived) == (set(), set())


@pytest.mark.parametrize(
    ("held", "lost", "revived"),
    [
        ({KEYS[0]: 1}, {(KEYS[0], 7)}, set()),
        ({KEYS[1]: 2}, set(), {(KEYS[1], 8)}),
        ({("main", "object_type", "never"): 99}, set(), {(("main", "object_type", "never"), 99)}),
    ],
    ids=["an older version", "a deleted record", "a record that was never written"],
)
def test_the_auditor_finds_wrong_records(
    ledger: Ledger, held: dict[Key, int], lost: set[object], revived: set[object]
) -> None:
    found = ledger.audit_whole("main", SOUND | held)
    assert (found.lost, found.revived) == (lost, revived)


def test_the_auditor_finds_missing_records(ledger: Ledger) -> None:
    held = {key: lsn for key, lsn in SOUND.items() if key != KEYS[3]}
    assert ledger.audit_whole("main", held).lost == {(KEYS[3], 4)}


def test_the_auditor_does_not_report_records_that_change_while_it_looks(ledger: Ledger) -> None:
    def moving(key: Key) -> int | None:
        ledger.acked(key, 100, deleted=False)
        return 1

    known = ledger.of_branch("main", since=1e-9)
    assert set(known) == {KEYS[0], KEYS[1]}
    stored = {KEYS[0]: 7}
    assert ledger.audit_changed(known, lambda key: 1, stored.get).lost == {(KEYS[0], 7)}
    assert ledger.audit_changed(known, lambda key: 1, stored.get).revived == {(KEYS[1], 8)}
    assert not ledger.audit_changed(known, lambda key: 1, {KEYS[0]: 99}.get).lost, (
        "the index already has a newer version"
    )
    assert not ledger.audit_changed(known, moving, stored.get).lost


@pytest.mark.slow
def test_the_simulation_merges_features_and_finds_a_merge_that_loses_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = everyday(Size(2, 1, 2.0, 1, 60, 0.1, 1))
    sound = run_mode(plan, "shadow", tmp_path / "sound", 30.0, Delays())
    assert (sound.problems, sound.lost, sound.revived) == ([], 0, 0)
    assert sound.counts["feature branches merged"] > 0

    def loses_one(ordinary: Any, bringing: Any, part: Any) -> Any:
        return ordinary(bringing, part[1:]) if len(part) > 1 else ordinary(bringing, part)

    inside.wrap(monkeypatch, inside.Step.BRING, loses_one)
    wrong = run_mode(plan, "shadow", tmp_path / "wrong", 30.0, Delays())
    assert any("feature/" in problem for problem in wrong.problems), wrong.problems
