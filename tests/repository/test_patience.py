"""Long tests wait for a slow process, and give up a process that stands still."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import patience


def test_a_process_that_stands_still_is_given_up_and_does_not_outlive_the_test(tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-c", "import threading; print('begun', flush=True); threading.Event().wait()"]
    with patience.running(command, output) as process:
        with pytest.raises(patience.StandsStill, match=r"did nothing for 0\.5 s"):
            patience.wait(process, lambda: 0, still_s=0.5)
    assert process.returncode != 0


def test_a_process_that_gets_on_is_waited_for_beyond_any_bound(tmp_path: Path) -> None:
    """The bound is zero: a process that changes at each look does not stand still."""
    looks = iter(range(1_000_000))
    command = [sys.executable, "-c", "import threading; threading.Event().wait(1); raise SystemExit(7)"]
    with patience.running(command, tmp_path / "output") as process:
        assert patience.wait(process, lambda: next(looks), still_s=0.0) == 7
    assert next(looks) >= 2
