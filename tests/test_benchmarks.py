"""Benchmarks are run with tiny parameters, so that none of them rots. Their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_switch_benchmark_runs_and_finds_nothing_lost() -> None:
    arguments = ["--records", "2000", "--switches", "3", "--json"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "bench_switch.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["switches"], found["problems"]) == (3, [])
    assert found["sealed_ms"]["max"] > 0
