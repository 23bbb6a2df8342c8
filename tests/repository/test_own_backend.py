"""The backend of docs/your-own-backend.md passes the conformance suite, as its reader would run it, and is short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.repository.test_doc_examples import BLOCK
from tests.repository.test_tidy import text_of

LINES_MAX = 120


def test_the_backend_of_the_page_keeps_the_promises(tmp_path: Path) -> None:
    backend, suite = BLOCK.findall(text_of("docs/your-own-backend.md"))
    assert backend.count("\n") < LINES_MAX
    (tmp_path / "example.py").write_text(backend, "utf-8")
    (tmp_path / "test_example.py").write_text(suite, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_example.py"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40
