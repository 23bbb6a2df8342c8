"""Mutation proof: an oracle that passes the right protocol catches each of its deliberately wrong variants.

Every mutant is a copy of the library with one textual change. A defence of the library (a digest that differs, a
switch refused) or the audit catches it; with the digest check removed, too, only the audit is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import test_power_cut, tracing
from tests.repository import field_mutants
from tests.repository.mutants import IN_TORTURE, UNSAFE
from tests.support.edited_library import ROOT, Edits, assert_fits, assert_of_its_own, copy_of_the_library

SCENARIO = Path(__file__).parents[1] / "support" / "rebuild_scenario.py"
SLOW = "copy.slice=sleep:0.01;copy.loaded=sleep:0.15"
"""Makes the copy slow, so that many writes come during the copy, and between copy and catch-up."""
TIMEOUT_S = 140
HANGS = -1

LATE_COPY = (
    """                self._copy(writer)
                writer.finish_load(self.task.start_lsn)
                writer.flush()
                failpoint("copy.loaded")
            self._catch_up(writer)
""",
    """                load, held = writer.load, []
                writer.load = lambda items, cursor: held.append((items, cursor))
                self._copy(writer)
                failpoint("copy.loaded")
                writer.finish_load(self.task.start_lsn)
                self._catch_up(writer)
                for items, cursor in held:
                    load(items, cursor)
            self._catch_up(writer)
""",
)
NO_CAPTURE = ("                writer.apply(items, reached)\n", "                writer.apply([], reached)\n")

BLIND: Edits = {
    "storage/generations/validation.py": [
        ("return Inspected(findings, rows.differing(source),", "return Inspected(findings, [],"),
        ("        findings[check] = findings.get(check, []) + found\n", "        findings[check] = []\n"),
    ],
    "actors/switch/fitness.py": [
        ("        differing = validator.differing(target, deadline)\n", "        differing = []\n")
    ],
    "actors/build/scrubber.py": [("        self._read_live()\n", "        pass\n")],
    "actors/switch/attempt.py": [("        if self._target.writer.differing(source):\n", "        if False:\n")],
    "actors/switch/switcher.py": [
        ("return Failure.UNSOUND if run.problems else Failure.NONE\n", "return Failure.NONE\n")
    ],
}
"""Removes the defences of the library: validation, the digests, verification, the reading of a live index."""

MUTANTS: dict[str, tuple[str, Edits]] = {
    "no capture": (SLOW, {"storage/generations/shard_build.py": [NO_CAPTURE]}),
    "capture begun after the snapshot": (
        SLOW,
        {
            "storage/generations/shard_build.py": [
                (
                    "writer.finish_load(self.task.start_lsn)",
                    "writer.finish_load(self.catalog.head(self.task.branch)[0])",
                )
            ]
        },
    ),
    "replay beside copy with blind upsert": (
        SLOW,
        {
            "storage/generations/shard_build.py": [LATE_COPY],
            "storage/backends/fts5/writer.py": [("if item.lsn <= lsn and", "if item.lsn == lsn and")],
        },
    ),
    "copy inserts if absent": (SLOW, {"storage/generations/shard_build.py": [LATE_COPY]}),
    "replay out of order per key": (
        SLOW,
        {
            "storage/catalog/journal.py": [
                (
                    "            last[entry.resource_type, entry.id] = entry\n",
                    "            last.setdefault((entry.resource_type, entry.id), entry)\n",
                )
            ]
        },
    ),
    "checkpoint advanced on read": (
        "copy.slice=kill@5",  # an odd pass is between the cursor and its rows
        {
            "storage/generations/shard_build.py": [
                (
                    "                    writer.load(items, position)\n",
                    "                    writer.load([], position)\n"
                    '                    failpoint("copy.slice")\n'
                    "                    writer.load(items, position)\n",
                )
            ]
        },
    ),
    "digest check removed too": (
        SLOW,
        {
            "storage/generations/shard_build.py": [NO_CAPTURE],
            **BLIND,
        },
    ),
    "a write acknowledged although it was dropped": (
        SLOW,
        {
            "storage/catalog/transaction.py": [
                (
                    "        replace, pop = self._records.replace, self._records.pop\n",
                    "        if self.last_lsn % 17 == 3:\n"
                    "            self.last_lsn += len(batch)\n"
                    "            return Receipt(self.last_lsn, len(batch))\n"
                    "        replace, pop = self._records.replace, self._records.pop\n",
                )
            ]
        },
    ),
}


def run_scenario(tmp_path: Path, points: str, edits: Edits, rebuilds: int) -> tuple[int, str]:
    library = copy_of_the_library(tmp_path / "library", edits)
    environment = {**os.environ, "PYTHONPATH": str(library), "SHADOWSWITCH_POINTS": points}
    done = subprocess.run(
        [sys.executable, str(SCENARIO), str(tmp_path / "data"), str(rebuilds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _without_defences(edits: Edits) -> Edits:
    assert not edits.keys() & BLIND.keys(), "two edits of one file would hide each other"
    return {**edits, **BLIND}


ALL: dict[str, Edits] = {
    "without defences": BLIND,
    **test_power_cut.MUTATIONS,
    **{name: edits for name, (_, edits) in {**MUTANTS, **UNSAFE}.items()},
    **{f"{name}, without defences": _without_defences(edits) for name, (_, edits) in list(MUTANTS.items())[:6]},
    **{
        name: field_mutants.by_file(edits)
        for name, (_, edits) in {**field_mutants.MUTANTS, **field_mutants.MUTANTS_OF_SYNCING}.items()
    },
}


@pytest.mark.parametrize("name", ALL)
def test_every_mutant_fits_the_source(name: str) -> None:
    assert_fits(ALL[name])


@pytest.mark.slow
@pytest.mark.parametrize(("points", "edits"), [(SLOW, {}), ("copy.slice=kill@5", {}), (SLOW, BLIND)])
def test_the_right_protocol_passes_the_oracle(tmp_path: Path, points: str, edits: Edits) -> None:
    status, output = run_scenario(tmp_path, points, edits, rebuilds=4)
    assert status == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_protocol_is_caught(tmp_path: Path, name: str) -> None:
    points, edits = MUTANTS[name]
    status, output = run_scenario(tmp_path, points, edits, rebuilds=3)
    assert status == 1, f"the mutant survived: {output}"
    assert "Traceback" not in output.splitlines()[0]
    assert_of_its_own(output)
    print(name, "was caught by:", *output.splitlines()[1:4], sep="\n  ")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MUTANTS)[:6])
def test_a_wrong_protocol_without_its_defences_is_caught_by_the_audit_alone(tmp_path: Path, name: str) -> None:
    points, edits = MUTANTS[name]
    status, output = run_scenario(tmp_path, points, _without_defences(edits), rebuilds=4)
    assert status == 1, f"the mutant survived: {output}"
    assert_of_its_own(output)
    assert any(word in output for word in ("lost:", "revived:", "back in time:", "duplicate:")), output


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.torture] if n in IN_TORTURE else []) for n in UNSAFE]
)
def test_an_unsafe_variant_is_caught(tmp_path: Path, name: str) -> None:
    which, edits = UNSAFE[name]
    assert_caught(tmp_path, name, which, edits)


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.parametrize("name", field_mutants.MUTANTS)
def test_a_wrong_edit_that_once_passed_is_caught(tmp_path: Path, name: str) -> None:
    which, edits = field_mutants.MUTANTS[name]
    assert_caught(tmp_path, name, which, field_mutants.by_file(edits))


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.skipif(bool(tracing.missing()), reason=tracing.missing())
@pytest.mark.parametrize("name", field_mutants.MUTANTS_OF_SYNCING)
def test_a_missing_fsync_is_caught(tmp_path: Path, name: str) -> None:
    which, edits = field_mutants.MUTANTS_OF_SYNCING[name]
    assert_caught(tmp_path, name, which, field_mutants.by_file(edits))


def assert_caught(tmp_path: Path, name: str, which: str, edits: Edits) -> None:
    """The test passes with the library as it is, and fails with the patched one."""
    file, _, expression = which.partition(" -k ")
    found = next((ROOT / "tests").rglob(file))
    for library, expected in ((tmp_path / "right", {}), (tmp_path / "wrong", edits)):
        copy_of_the_library(library, expected)
        status, output = _pytest(library, found, _words(expression))
        assert "passed" in output or "failed" in output or (expected and status == HANGS), output
        assert (status == 0) == (not expected), f"{name}: {output[-3000:]}"
        assert_of_its_own(output)


def _pytest(library: Path, file: Path, words: str) -> tuple[int, str]:
    """The exit status of a test, and what it printed. A mutant that hangs is caught, as mutation testing counts it: its
    status is `HANGS`, and the stacks of its threads are printed."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={TIMEOUT_S - 20}"]
    command = [sys.executable, "-m", "pytest", *options, str(file), "-k", words]
    environment = {**os.environ, "PYTHONPATH": str(library)}
    printed = library.with_suffix(".log")
    with printed.open("w") as log, subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log) as run:
        try:
            status = run.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            run.kill()
            status = HANGS
    output = printed.read_text()
    if status == HANGS:
        print(output)
    return status, output


def _words(expression: str) -> str:
    """The words of an expression, joined with `and`: `-k` of pytest takes no brackets."""
    return " and ".join(word for word in expression.replace("[", " ").replace("]", " ").replace("@", " ").split())
