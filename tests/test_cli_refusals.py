"""How the command line says no: one line, the right exit status, nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, SwitchResult
from shadowswitch.service.cli.app import main
from tests.cli_helpers import Cli, lose_one_row, texts
from tests.support import inside


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A data directory with forty records on `main`, made by the command line."""
    assert main(["import", "main", str(texts(tmp_path / "texts")), "--data", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    return tmp_path / "data"


@pytest.fixture
def live(data: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same with a live index."""
    assert main(["build", "main", "SEARCH_INDEX", "--data", str(data), "--switch"]) == 0
    capsys.readouterr()
    return data


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["search", "nowhere", "word"], "no branch 'nowhere'"),
        (["search", "main", "word", "--index-type", "GRAPH_INDEX"], "no live GRAPH_INDEX"),
        (["build", "nowhere"], "no branch 'nowhere'"),
        (["switch", "0123"], "no shadow index '0123'"),
        (["cancel", "0123"], "no shadow index '0123'"),
        (["status", "0123"], "no shadow index '0123'"),
        (["rollback", "main"], "has no previous generation"),
        (["rollback", "nowhere"], "no branch 'nowhere'"),
    ],
)
def test_what_is_not_known_is_status_1_and_one_line(cli: Cli, live: Path, call: list[str], says: str) -> None:
    assert says in cli.error(*call, "--data", live, status=1)
    assert says in cli.error(*call, "--data", live, "--json", status=1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["build", "main", "--tokenizer", "klingon"], "klingon"),
        (["build", "main", "--option", "tokenizer"], "not name=value"),
        (["build", "main", "--option", "nonsense=1"], "nonsense"),
        (["build", "main", "search_index"], "capital letters"),
        (["build", "main", "--workers", "0"], "--workers"),
        (["search", "main", "word", "--limit", "0"], "--limit"),
        (["events", "--after", "-1"], "--after"),
        (["import", "main", "no-such-folder"], "is not a folder"),
        (["search", "main"], "query"),
        (["status", "--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_call_is_status_2_and_one_line(cli: Cli, live: Path, call: list[str], says: str) -> None:
    assert says in cli.error(*call, "--data", live, status=2)


def test_an_unknown_command_and_a_missing_data_directory_are_wrong_calls(cli: Cli) -> None:
    assert "frobnicate" in cli.error("frobnicate", status=2)
    assert "--data" in cli.error("status", status=2)


@pytest.mark.parametrize(
    "call",
    ["status", "events", "check", "search main word", "build main", "switch x", "cancel x", "rollback main"],
)
def test_a_directory_without_data_is_said_clearly_and_left_as_it_is(cli: Cli, tmp_path: Path, call: str) -> None:
    assert "does not exist" in cli.error(*call.split(), "--data", tmp_path / "nothing", status=1)
    (tmp_path / "other").mkdir()
    assert "is not a data directory" in cli.error(*call.split(), "--data", tmp_path / "other", status=1)
    assert not (tmp_path / "nothing").exists()
    assert list((tmp_path / "other").iterdir()) == []


def test_import_makes_no_data_directory_among_other_files(cli: Cli, tmp_path: Path) -> None:
    folder = texts(tmp_path / "texts", 2)
    assert "holds 'part0'" in cli.error("import", "main", folder, "--data", folder, status=2)
    (tmp_path / "file").write_text("x")
    cli.error("import", "main", folder, "--data", tmp_path / "file", status=2)


def test_a_branch_name_that_cannot_be_used_is_a_wrong_call(cli: Cli, tmp_path: Path) -> None:
    cli.error("import", "a\nb", texts(tmp_path / "texts", 2), "--data", tmp_path / "data", status=2)


def test_a_build_that_is_under_way_is_not_doubled(cli: Cli, data: Path) -> None:
    cli("build", "main", "--data", data)
    assert "cancel" in cli.error("build", "main", "--data", data, "--json", status=1)


def test_a_switch_that_does_not_succeed_is_status_1_with_its_reason(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = cli("build", "main", "--data", data).split()[0]
    refused = SwitchResult(shadow, False, "not switched: the budget was overrun")
    monkeypatch.setattr(Engine, "switch", lambda *_: refused)
    assert cli.json("switch", shadow, "--data", data, status=1)["success"] is False
    assert cli("switch", shadow, "--data", data, status=1) == "not switched: the budget was overrun\n"
    cli("cancel", shadow, "--data", data)
    assert cli.json("build", "main", "--data", data, "--switch", status=1)["switch"]["success"] is False


def test_a_build_that_fails_is_status_1_with_its_reason(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=raise:EIO")  # in the worker processes
    assert "injected at copy.slice" in cli("build", "main", "--data", data, status=1) + cli.err
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    assert (shadow["state"], "copy.slice" in shadow["error"]) == ("FAILED", True)


def test_check_tells_planted_damage_with_status_1(cli: Cli, live: Path) -> None:
    assert lose_one_row(live)
    findings = cli.json("check", "--data", live, status=1)
    assert {finding["invariant"] for finding in findings} >= {"IX-2", "IX-3"}
    assert "IX-3" in cli("check", "--data", live, status=1)


def test_an_unforeseen_error_is_one_line_and_its_traceback_is_there_with_debug(
    cli: Cli, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    inside.replace(monkeypatch, inside.Step.CLI_STATUS, broken)
    assert "unforeseen RuntimeError: a bug; --debug" in cli.error("status", "--data", live, status=1)
    with pytest.raises(RuntimeError):
        main(["status", "--data", str(live), "--debug"])
