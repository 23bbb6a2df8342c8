"""Short calls: the beginning of an id, the data directory of the environment; an error of any kind as an object."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support.cli_helpers import Cli, imported
from tests.support.engine_helpers import outside_environment


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return imported(tmp_path, capsys)


def built(cli: Cli, data: Path, index_type: str) -> str:
    """The id of a BUILT shadow."""
    return str(cli.json("build", "main", index_type, "--data", data)["shadow"]["shadow_index_id"])


def test_the_beginning_of_an_id_that_one_shadow_has_stands_for_it(cli: Cli, data: Path) -> None:
    first, second = built(cli, data, "SEARCH_INDEX"), built(cli, data, "OTHER_INDEX")
    assert cli.json("status", first[:8], "--data", data)["shadow_index_id"] == first
    assert cli.json("switch", first[:8], "--data", data)["success"]
    assert cli.json("cancel", second[:8], "--data", data)["state"] == "CANCELLED"
    for call in ("status", "switch", "cancel"):
        for text in ("", first[:3], "?" * 8, first + "0"):
            assert cli.failure(call, text, "--data", data, status=1)["kind"] == "UnknownShadow"


def test_the_beginning_of_several_ids_names_them_and_does_nothing(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(f"abcd{next(numbers):028x}"))
    first, second = built(cli, data, "SEARCH_INDEX"), built(cli, data, "OTHER_INDEX")
    monkeypatch.undo()
    assert first[:4] == second[:4] == "abcd"
    for call in ("status", "switch", "cancel"):
        message = cli.failure(call, "abcd", "--data", data, status=1)["message"]
        assert "2 shadows begin with 'abcd'" in message
        assert first in message
        assert second in message
    assert cli.json("status", first, "--data", data)["state"] == "BUILT"


def test_the_data_directory_may_come_from_the_environment(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_DATA", str(data))
    switched_ = cli.json("build", "main", "--switch")["switch"]
    assert switched_["success"]
    assert cli.json("search", "main", "unique7")["hits"]
    assert cli.json("status")["branches"]
    assert "does not exist" in cli.error("status", "--data", tmp_path / "other", status=1)  # the option comes first
    monkeypatch.setenv("SHADOWSWITCH_DATA", str(tmp_path / "other"))
    assert "SHADOWSWITCH_DATA" in cli.error("status", status=1)
    monkeypatch.setenv("SHADOWSWITCH_DATA", "")
    assert "is empty" in cli.error("status", status=2)  # and is not the working directory
    assert "is empty" in cli.error("status", "--data", "", status=2)
    assert "SHADOWSWITCH_DATA" in cli("--help")


ENDED_BY_A_SIGNAL = """
import os, signal, sys
from shadowswitch.service.cli import app
app._run = lambda tokens, debug: os.kill(os.getpid(), signal.SIGBUS)
sys.argv = ["shadowswitch", "status", "--json"]
sys.exit(app.main())
"""


def test_damage_that_ends_a_command_by_a_signal_is_an_object() -> None:
    command = [sys.executable, "-c", ENDED_BY_A_SIGNAL]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=outside_environment(), check=False, cwd=os.sep
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "CorruptData"
    assert "SIGBUS" in json.loads(done.stdout)["error"]["message"]
    assert done.stderr.count("\n") == 1
