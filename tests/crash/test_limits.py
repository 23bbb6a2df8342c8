"""Real limits of the operating system, RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_AS: what runs out is not damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_helpers import ROOT, outside_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def limited(data: Path, mode: str) -> dict[str, Any]:
    """What a host under limits saw."""
    command = [sys.executable, "-m", "tests.crash.limited", str(data), mode]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=outside_environment(PYTHONPATH=str(ROOT))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_readers_beyond_the_limit_of_open_files_condemn_nothing(tmp_path: Path) -> None:
    seen = limited(tmp_path / "data", "readers")
    assert seen["error"] == "ResourceExhausted"
    assert "RLIMIT_NOFILE" in seen["resource"]
    assert "ulimit -n" in seen["hint"]
    assert set(seen["refused"]) == {"ResourceExhausted"}
    assert seen["back"] == 50
    assert (seen["live"], seen["previous"]) == (True, True), "the index went back"
    assert (seen["rollbacks"], seen["pins"], seen["findings"]) == (0, 0, [])


def test_a_limit_of_the_file_size_is_a_full_disk(tmp_path: Path) -> None:
    seen = limited(tmp_path / "data", "file_size")
    assert seen["errors"] == ["StorageFull"]
    assert all("ulimit -f" in hint for hint in seen["hints"])
    assert seen["build"] in ("StorageFull", "BuildFailed", "Timeout", "")
    assert seen["late"] == ["late"]
    assert seen["again"]
    assert (seen["lost"], seen["held"], seen["findings"]) == (0, 0, [])


def test_a_map_that_cannot_be_had_is_refused_and_the_size_goes_with_the_work(tmp_path: Path) -> None:
    seen = limited(tmp_path / "data", "address_space")
    assert "RLIMIT_AS" in seen["resource"]
    assert "map_size_bytes" in seen["hint"]
    assert seen["found"] == 50
    assert seen["waiting"][0] in ("PREPARING", "BUILDING")
    assert "a resource cannot be had" in seen["waiting"][1]
    assert (seen["deaths"], seen["findings"]) == (0, [])
