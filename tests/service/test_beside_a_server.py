"""A command says and does the same beside a server and without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.cli_helpers import Cli, imported, texts
from tests.support.http_helpers import serving

HOSTS = pytest.mark.parametrize("hosted", [True, False], ids=["beside a server", "without one"])


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str], hosted: bool) -> Iterator[Path]:
    found = imported(tmp_path, capsys)
    with serving(found) if hosted else nullcontext():
        yield found


@HOSTS
def test_the_options_of_a_switch_have_an_effect(cli: Cli, data: Path) -> None:
    cli("build", "main", "MEANT", "--resource-type", "later", "--switch", "--allow-empty", "--data", data)
    found = cli.json("build", "main", "FORCED", "--resource-type", "later", "--data", data)
    id = found["shadow"]["shadow_index_id"]
    assert "would be empty" in cli("switch", id, "--data", data, status=1)
    assert "switched" in cli("switch", id, "--force", "--data", data)
    found = cli.json("build", "main", "EMPTY", "--resource-type", "later", "--data", data)
    id = found["shadow"]["shadow_index_id"]
    assert "switched" in cli("switch", id, "--allow-empty", "--data", data)


@HOSTS
def test_each_command_that_switches_takes_the_time_for_it(cli: Cli, data: Path) -> None:
    short, long, at = ("--switch-timeout", "0.000001"), ("--switch-timeout", "60"), ("--data", data)
    says = "try again with more time (--switch-timeout)"
    assert says in cli("build", "main", "--switch", *short, *at, status=1)
    id = cli.json("build", "main", *at)["shadow"]["shadow_index_id"]
    assert says in cli("switch", id, *short, *at, status=1)
    assert not cli.json("switch", id, *short, *at, status=1)["success"]
    assert cli.json("switch", id, *long, *at)["success"]
    assert cli.json("build", "main", "--switch", "--tokenizer", "porter", *long, *at)["switch"]["success"]
    assert says in cli("rollback", "main", *short, *at, status=1)
    assert cli.json("rollback", "main", *long, *at)["success"]
    again = cli.json("build", "main", *at)["shadow"]["shadow_index_id"]
    cli("schedule", again, *long, *at)
    for wrong in ("0", "-1", "3601", "soon"):
        cli("rollback", "main", "--switch-timeout", wrong, *at, status=2)


@HOSTS
def test_a_wrong_name_is_the_same_refusal(cli: Cli, data: Path, tmp_path: Path) -> None:
    folder = texts(tmp_path / "more", 1)
    says = "a branch name must have 1 to 200 characters"
    for call in (["drop", ""], ["branch", "archive", ""], ["rollback", ""]):
        assert f"there is no branch '': {says}" in cli.error(*call, "--data", data, status=1)
    for call in (["drop", "main", "text"], ["rollback", "main", "text"], ["build", "main", "text"]):
        assert "'text' is not 1 to 64 capital letters" in cli.error(*call, "--data", data, status=2)
    wrong = ["build", "main", "--resource-type", ""]
    assert "a resource type must have 1 to 100 characters" in cli.error(*wrong, "--data", data, status=2)
    assert "unprintable character U+DCFF" in cli.error("drop", "a\udcff", "--data", data, status=1)
    assert cli("import", "", folder, "--data", data, status=2) == ""
    assert says in cli.err


@HOSTS
def test_a_call_in_the_wrong_state_says_what_is_possible(cli: Cli, data: Path) -> None:
    id = cli.json("build", "main", "--switch", "--data", data)["shadow"]["shadow_index_id"]
    assert "is ACTIVE, only a FAILED one can be retried" in cli.error("retry", id, "--data", data, status=1)
    assert "it has been switched to" in cli.error("switch", id, "--data", data, status=1)
    error = cli.error("search", "main", "amber", "--timeout", "1e-9", "--data", data, status=1)
    assert "--timeout gives it more time" in error
    id = cli.json("build", "main", "--data", data)["shadow"]["shadow_index_id"]
    assert "is BUILT, only a FAILED one can be retried" in cli.error("retry", id, "--data", data, status=1)
    cli("cancel", id, "--data", data)
    assert "start a new build with shadowswitch build" in cli.error("switch", id, "--data", data, status=1)


def test_without_the_extra_serve_says_what_to_install(tmp_path: Path) -> None:
    call = "import sys; sys.modules['h11'] = None; from shadowswitch.service.cli.app import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", call, "serve", "--data", tmp_path / "data"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "pip install 'shadowswitch[service]'" in done.stderr) == (2, True), done.stderr


@HOSTS
def test_a_number_out_of_bounds_is_a_wrong_call_that_names_it(cli: Cli, data: Path) -> None:
    assert "priority" in cli.error("build", "main", "--priority", 99999999999, "--data", data, status=2)
