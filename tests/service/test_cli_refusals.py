"""Refusals of the command line: one line, the right exit status, no change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, SwitchResult
from shadowswitch.service.cli.app import main
from tests.support import inside
from tests.support.cli_helpers import Cli, imported, lose_one_row, switched, texts


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return imported(tmp_path, capsys)


@pytest.fixture
def live(data: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return switched(data, capsys)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["search", "nowhere", "word"], "no branch 'nowhere'"),
        (["search", "main", "word", "--index-type", "GRAPH_INDEX"], "no live GRAPH_INDEX"),
        (["build", "nowhere"], "no branch 'nowhere'"),
        (["switch", "0123"], "no shadow index '0123'"),
        (["cancel", "0123"], "no shadow index '0123'"),
        (["cancel", "012"], "the beginning of an id has 4 characters"),
        (["status", "0123"], "no shadow index '0123'"),
        (["rollback", "main"], "has no previous generation"),
        (["rollback", "nowhere"], "no branch 'nowhere'"),
        (["events", "--after", "9999"], "there is no event 9999, the newest is"),
        (["events", "--after", "9999", "--follow"], "there is no event 9999"),
        (["audit", "--after", "9999"], "there is no entry 9999"),
    ],
)
def test_an_unknown_name_is_status_1_and_one_line(cli: Cli, live: Path, call: list[str], says: str) -> None:
    assert says in cli.error(*call, "--data", live, status=1)
    failure = cli.failure(*call, "--data", live, status=1)
    assert says in failure["message"]
    assert failure["kind"] in (
        "UnknownBranch", "UnknownIndex", "UnknownShadow", "InvalidTransition", "PlaceLost",
    )  # fmt: skip


def test_a_change_of_state_that_is_refused_names_the_commands_that_are_possible(cli: Cli, live: Path) -> None:
    line = cli.error("branch", "recover", "main", "--data", live, status=1)
    assert "shadowswitch branch archive" in line
    assert "_branch" not in line


def test_a_type_that_no_record_has_is_named_before_the_build(cli: Cli, live: Path) -> None:
    assert "with 0 records" in cli("build", "main", "--resource-type", "dok", "--data", live)
    assert "warning: the index would be empty: branch 'main' has no records of dok (it has file)" in cli.err


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
    assert says in cli.failure(*call, "--data", live, status=2)["message"]


def test_a_wrong_call_names_the_help_of_its_command(cli: Cli, live: Path) -> None:
    assert cli.error("search", "main", "--data", live, status=2).strip().endswith("See shadowswitch search --help.")
    assert cli.error("frobnicate", status=2).strip().endswith("See shadowswitch --help.")


def test_an_unknown_command_and_a_missing_data_directory_are_wrong_calls(cli: Cli) -> None:
    assert "frobnicate" in cli.error("frobnicate", status=2)
    assert "--data" in cli.error("status", status=2)


@pytest.mark.parametrize(
    "call",
    ["status", "events", "check", "search main word", "build main", "switch x", "cancel x", "rollback main"],
)
def test_a_directory_without_data_is_refused_and_stays_as_it_is(cli: Cli, tmp_path: Path, call: str) -> None:
    assert "does not exist" in cli.error(*call.split(), "--data", tmp_path / "nothing", status=1)
    (tmp_path / "other").mkdir()
    assert "is not a data directory" in cli.error(*call.split(), "--data", tmp_path / "other", status=1)
    assert not (tmp_path / "nothing").exists()
    assert list((tmp_path / "other").iterdir()) == []


def test_import_creates_no_data_directory_among_other_files(cli: Cli, tmp_path: Path) -> None:
    folder = texts(tmp_path / "texts", 2)
    assert "holds 'part0'" in cli.error("import", "main", folder, "--data", folder, status=2)
    (tmp_path / "file").write_text("x")
    cli.error("import", "main", folder, "--data", tmp_path / "file", status=2)


def test_an_invalid_branch_name_is_a_wrong_call(cli: Cli, tmp_path: Path) -> None:
    cli.error("import", "a\nb", texts(tmp_path / "texts", 2), "--data", tmp_path / "data", status=2)


def test_a_second_build_of_an_index_is_refused(cli: Cli, data: Path) -> None:
    cli("build", "main", "--data", data)
    assert "cancel" in cli.error("build", "main", "--data", data, status=1)
    failure = cli.failure("build", "main", "--data", data, status=1)
    assert (failure["kind"], "cancel" in failure["hint"]) == ("DuplicateBuild", True)


def test_a_built_shadow_cannot_be_paused_and_the_hint_is_what_can_be_done(cli: Cli, data: Path) -> None:
    shadow = cli("build", "main", "--data", data).split()[0]
    said = cli.error("pause", shadow, "--data", data, status=1)
    assert "is BUILT, not being built; switch to it, or discard it with shadowswitch cancel" in said


def test_the_settings_of_the_engine_count_without_a_server(cli: Cli, data: Path) -> None:
    settings = data / "shadowswitch.toml"
    settings.write_text("[engine]\ndisk_reserve_bytes = 1000000000000000\n")
    assert "free" in cli.error("build", "main", "--data", data, status=1)
    settings.write_text("[engine]\ndisk_reserve = 1\n")
    assert "shadowswitch.toml" in cli.error("build", "main", "--data", data, status=2)
    settings.write_text("[engine]\ndisk_reserve_bytes = 0\n")
    assert "is BUILT" in cli("build", "main", "--data", data)


def test_a_refused_switch_is_status_1_with_its_reason(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = cli("build", "main", "--data", data).split()[0]
    refused = SwitchResult(shadow, False, "not switched: the budget was overrun")
    monkeypatch.setattr(Engine, "switch", lambda *_: refused)
    assert cli.json("switch", shadow, "--data", data, status=1)["success"] is False
    assert cli("switch", shadow, "--data", data, status=1) == "not switched: the budget was overrun\n"
    cli("cancel", shadow, "--data", data)
    assert cli.json("build", "main", "--data", data, "--switch", status=1)["switch"]["success"] is False


def test_a_failed_build_is_status_1_with_its_reason(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=raise:EIO")  # in the worker processes
    assert "injected at copy.slice" in cli("build", "main", "--data", data, status=1) + cli.err
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    assert (shadow["state"], "copy.slice" in shadow["error"]) == ("FAILED", True)


def test_check_finds_planted_damage_with_status_1(cli: Cli, live: Path) -> None:
    assert lose_one_row(live)
    findings = cli.json("check", "--data", live, status=1)
    assert {finding["invariant"] for finding in findings} >= {"IX-2", "IX-3"}
    assert "IX-3" in cli("check", "--data", live, status=1)


def test_an_unforeseen_error_is_one_line_and_debug_adds_the_traceback(
    cli: Cli, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    inside.replace(monkeypatch, inside.Step.CLI_STATUS, broken)
    assert "unforeseen RuntimeError: a bug; --debug" in cli.error("status", "--data", live, status=1)
    with pytest.raises(RuntimeError):
        main(["status", "--data", str(live), "--debug"])
