"""The curl lines of docs/http.md, run unchanged against a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.engine_helpers import ROOT
from tests.support.http_helpers import serving

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "http.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_curl_line_of_the_documentation_works(tmp_path: Path) -> None:
    lines = commands()
    assert sum("curl" in line for line in lines) > 20
    with serving(tmp_path / "data") as server:
        script = ["set -eu"]
        for line in lines:
            ours = line.replace("http://127.0.0.1:8740", server.url)
            script += [f"echo; echo '== {len(script)}'", ours]
        done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        problems = re.findall(r'"status":(\d+),"detail":"([^"]*)"', done.stdout)
        assert [status for status, _ in problems] == ["423"]
        assert '"hits":[{"resource_type":"object_type","id":"User"' in done.stdout
        assert "rolled back to generation" in done.stdout
        assert "com.shadowswitch.switch.committed" in done.stdout
