"""`shadowswitch check --repair`: in this process, and by the server that has the directory open."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Put
from tests.support.cli_helpers import Cli
from tests.support.damage import digest_key, flip
from tests.support.http_helpers import serving


@pytest.fixture
def damaged(data_dir: Path, open_engine: Any) -> Path:
    """A closed directory with one wrong bit in a digest."""
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [Put("object_type", str(n), {"text": "hello"}) for n in range(50)])
    flip(data_dir, "heads", digest_key(), 64 * 8 + 3)
    return data_dir


def test_a_repair_prints_what_it_repaired_and_from_what(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    assert "1 finding" in cli("check", "--data", damaged, status=1)
    out = cli("check", "--repair", "--data", damaged)
    assert "repaired from the records" in out
    assert out.endswith("1 repaired, sound\n")
    assert cli("check", "--data", damaged) == "sound\n"
    (entry,) = [entry for entry in cli.json("audit", "--data", damaged) if entry["type"] == "catalog.repaired"]
    assert entry["data"]["by"].endswith(f"@{socket.gethostname()}, process {os.getpid()}")


def test_a_running_server_repairs(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    with serving(damaged):
        (finding,) = cli.json("check", "--repair", "--data", damaged)
        assert (finding["invariant"], finding["repaired"]) == ("ST-3", "the records")
        assert cli.json("check", "--data", damaged) == []


def test_a_check_shows_its_progress_in_lines_and_a_server_to_its_clients(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    cli("check", "--repair", "--data", damaged)
    assert "check  0 %" in cli.err
    with serving(damaged) as server:
        assert server.client().get("check") == []
        cli("check", "--repair", "--data", damaged)
        assert "check  0 %" in cli.err
