"""Every command, as users and scripts call it: output, JSON, exit status, a running host, interrupts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine, Put
from shadowswitch.service.cli.builds import build_config
from tests.support.cli_helpers import Cli, imported, spawn, switched, texts


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return imported(tmp_path, capsys)


@pytest.fixture
def live(data: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return switched(data, capsys)


def hits(cli: Cli, data: Path, query: str) -> list[str]:
    found = cli.json("search", "main", query, "--data", data)
    return sorted(hit["id"] for hit in found["hits"])


# -- the story -----------------------------------------------------------------------------------------------------


def test_import_build_switch_search_and_roll_back(cli: Cli, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", texts(tmp_path / "texts")
    assert cli.json("import", "main", folder, "--data", data)["files"] == 40
    assert cli.json("import", "main", folder, "--data", data)["unchanged"] == 40

    first = cli.json("build", "main", "--data", data, "--tokenizer", "ascii", "--switch")
    assert (first["shadow"]["record_count"], first["switch"]["success"]) == (40, True)
    assert hits(cli, data, "unique7") == ["part1/file7.txt"]
    assert hits(cli, data, "sing") == []

    second = cli.json("build", "main", "SEARCH_INDEX", "--data", data, "--tokenizer", "porter")
    assert second["switch"] is None
    assert hits(cli, data, "sing") == []  # the shadow is not live yet
    shadow = second["shadow"]["shadow_index_id"]
    assert cli.json("status", shadow, "--data", data)["switch_ready"] is True
    assert cli.json("switch", shadow, "--data", data)["success"] is True
    assert len(hits(cli, data, "sing")) == 10

    assert cli.json("rollback", "main", "--data", data)["success"] is True
    assert hits(cli, data, "sing") == []
    assert cli.json("rollback", "main", "SEARCH_INDEX", "--data", data)["success"] is True
    assert len(hits(cli, data, "sing")) == 10
    assert cli.json("check", "--data", data) == []


def test_a_build_says_what_was_likely_mistyped(cli: Cli, live: Path) -> None:
    typo = cli("build", "main", "SERCH_INDEX", "--data", live)
    assert "SERCH_INDEX is an index type of its own: did you mean SEARCH_INDEX?" in typo
    empty = cli("build", "main", "GRAPH_INDEX", "--resource-type", "fil", "--data", live)
    assert "did you mean" not in empty
    assert "it has no records: a switch to it is refused without --allow-empty" in empty


def test_commands_print_tables_and_sentences_without_json(cli: Cli, live: Path, tmp_path: Path) -> None:
    assert "40 unchanged" in cli("import", "main", tmp_path / "texts", "--data", live)
    built = cli("build", "main", "--data", live, "--tokenizer", "porter")
    shadow = built.split()[0]
    assert "is BUILT with 40 records" in built
    assert "switched to generation" in cli("switch", shadow, "--data", live)
    assert "rolled back to generation" in cli("rollback", "main", "--data", live)
    found = cli("search", "main", "unique7", "--data", live)
    assert "1 hit," in found
    assert "part1/file7.txt" in found
    status = cli("status", "--data", live)
    assert "not open in any process" in status
    assert shadow in status  # the id is in one piece, so that a user can copy it
    assert "SEARCH_INDEX" in cli("status", shadow, "--data", live)
    assert "switch.committed" in cli("events", "--data", live)
    assert cli("check", "--data", live) == "sound\n"


def test_progress_is_lines_on_standard_error_without_a_terminal(cli: Cli, data: Path) -> None:
    cli("build", "main", "--data", data)
    assert "build SEARCH_INDEX of main" in cli.err
    assert "\x1b" not in cli.err


def test_status_shows_branches_indexes_and_shadows(cli: Cli, live: Path) -> None:
    found = cli.json("status", "--data", live)
    assert found["host"] is None
    (branch,), (index,), (shadow,) = found["branches"], found["indexes"], found["shadows"]
    assert (branch["name"], branch["record_count"], branch["head_lsn"]) == ("main", 40, 40)
    assert (index["branch_name"], index["record_count"], index["lag_changes"]) == ("main", 40, 0)
    assert (index["shadow_index_id"], shadow["state"]) == (shadow["shadow_index_id"], "ACTIVE")
    assert cli.json("status", shadow["shadow_index_id"], "--data", live) == shadow


def test_events_are_in_order_and_start_after_a_sequence_number(cli: Cli, live: Path) -> None:
    everything = cli.json("events", "--data", live)
    assert [int(event["sequence"]) for event in everything] == list(range(1, len(everything) + 1))
    assert {event["specversion"] for event in everything} == {"1.0"}
    assert everything[-1]["type"] == "com.shadowswitch.switch.finished"
    assert cli.json("events", "--data", live, "--after", 2, "--limit", 2) == everything[2:4]
    assert cli.json("events", "--data", live, "--after", len(everything)) == []


def test_cancel_discards_a_built_shadow(cli: Cli, data: Path) -> None:
    shadow = cli.json("build", "main", "--data", data)["shadow"]["shadow_index_id"]
    assert cli.json("cancel", shadow, "--data", data, "--reason", "not wanted")["state"] == "CANCELLED"
    assert "CANCELLED" in cli.error("switch", shadow, "--data", data, status=1)
    another = cli("build", "main", "--data", data).split()[0]
    assert cli("cancel", another, "--data", data) == f"{another} is CANCELLED\n"


# -- options of build ----------------------------------------------------------------------------------------------


def test_build_options_reach_the_backend(cli: Cli, data: Path) -> None:
    built = cli.json(
        *("build", "main", "SEARCH_INDEX", "--data", data, "--backend", "fts5", "--tokenizer", "porter", "--switch"),
        *("--column", "name", "--column", "path", "--workers", 1, "--option", "prefix=[2, 3]", "--option", "shards=3"),
    )
    config = built["shadow"]["build_config"]
    expected = {"backend": "fts5", "tokenizer": "porter", "columns": ["name", "path"], "prefix": [2, 3], "shards": 3}
    assert {name: config[name] for name in expected} == expected
    assert hits(cli, data, "amber") == []  # a word of `text`, which is not an indexed column
    assert hits(cli, data, "file7.txt") == ["part1/file7.txt"]


def test_an_option_is_json_or_else_a_string() -> None:
    options = ["a=1", "b=[1]", 'c="x"', "d=porter", "e=x=y", "f="]
    assert build_config(None, None, None, None, options) == {
        "a": 1, "b": [1], "c": "x", "d": "porter", "e": "x=y", "f": "",
    }  # fmt: skip


def test_a_build_covers_every_type_of_the_branch_or_the_given_types(cli: Cli, data: Path) -> None:
    with Engine.open(data) as engine:
        engine.write("main", [Put("note", "n1", {"text": "a note"})])
        engine.create_branch("empty")
    assert cli.json("build", "main", "--data", data, "--switch")["shadow"]["resource_types"] == ["file", "note"]
    only = cli.json("build", "main", "--data", data, "--resource-type", "note", "--switch")["shadow"]
    assert (only["resource_types"], only["record_count"]) == (["note"], 1)
    assert "has no records" in cli.error("build", "empty", "--data", data, status=1)


# -- help ----------------------------------------------------------------------------------------------------------


def test_help_has_an_example_for_every_command(cli: Cli) -> None:
    overview = cli("--help")
    for command in [
        "demo",
        "import",
        "build",
        "switch",
        "rollback",
        "cancel",
        "search",
        "status",
        "events",
        "check",
        "manual",
    ]:
        assert command in overview
        text = cli(command, "--help")
        assert f"shadowswitch {command} " in text.replace("\n", " ")
        assert "--json" in text
    assert cli("--version").strip()


def test_docs_cli_md_is_the_manual_of_the_commands(cli: Cli) -> None:
    stored = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
    assert cli("manual") == stored, "run: shadowswitch manual > docs/cli.md"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(cli: Cli, shell: str) -> None:
    script = cli.json("completion", shell)["script"]
    assert "rollback" in script
    assert "index-type" in script


# -- beside a running host -----------------------------------------------------------------------------------------


@pytest.fixture
def host(live: Path) -> Iterator[Engine]:
    """An engine in this process; the commands run in processes of their own."""
    with Engine.open(live) as engine:
        yield engine
        assert engine.check() == []


def ran(*arguments: object) -> tuple[int, str, str]:
    process = spawn(*arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_read_commands_work_beside_a_running_host(host: Engine, live: Path) -> None:
    receipt = host.write("main", [Put("file", "new.txt", {"text": "freshly written"})])
    with host.reader("main", "SEARCH_INDEX", min_lsn=receipt.lsn):
        pass
    status, out, err = ran("search", "main", "freshly", "--data", live, "--json")
    assert (status, err) == (0, "")
    assert [hit["id"] for hit in json.loads(out)["hits"]] == ["new.txt"]
    status, out, _ = ran("status", "--data", live, "--json")
    assert (status, json.loads(out)["host"]["pid"]) == (0, os.getpid())
    status, out, _ = ran("check", "--data", live, "--json")
    assert (status, json.loads(out)) == (0, [])
    status, out, _ = ran("events", "--data", live, "--json")
    assert (status, json.loads(out)[-1]["type"]) == (0, "com.shadowswitch.switch.finished")


def test_write_commands_beside_a_running_host_name_its_process(host: Engine, live: Path, tmp_path: Path) -> None:
    switch = ["switch", host.shadows()[0].shadow_index_id]
    for call in (["build", "main"], ["rollback", "main"], ["import", "main", tmp_path / "texts"], switch):
        status, out, err = ran(*call, "--data", live)
        assert (status, out) == (1, "")
        assert f"process {os.getpid()}" in err
        assert err.count("\n") == 1


def test_status_never_takes_the_lock_of_the_directory(live: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starting engine would take `status` for another engine."""
    taken: list[int] = []
    flock = fcntl.flock

    def spied(descriptor: int, operation: int) -> None:
        taken.append(os.fstat(descriptor).st_ino)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", spied)
    assert cli.json("status", "--data", live)["host"] is None
    assert taken  # `status` took the pin of the index
    assert (live / "LOCK").stat().st_ino not in taken


# -- interrupts and closed pipes -----------------------------------------------------------------------------------


def test_ctrl_c_during_a_build_cancels_it_with_status_130(live: Path, cli: Cli) -> None:
    process = spawn("build", "main", "--data", live, points="copy.slice=sleep:30")
    assert process.stderr is not None
    assert "build SEARCH_INDEX" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch("shadowswitch: interrupted: shadow [0-9a-f]{32} was cancelled", err.splitlines()[-1])
    assert "Traceback" not in err
    assert [shadow["state"] for shadow in cli.json("status", "--data", live)["shadows"]] == ["ACTIVE", "CANCELLED"]
    assert cli.json("check", "--data", live) == []


def test_a_closed_pipe_ends_a_command_without_a_message(live: Path) -> None:
    for arguments in (["--json"], []):
        read, write = os.pipe()
        os.close(read)
        process = spawn("events", "--data", live, *arguments, stdout=write)
        os.close(write)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, "")


def test_a_settings_file_may_be_there_before_the_data(cli: Cli, tmp_path: Path) -> None:
    data, folder = tmp_path / "fresh", texts(tmp_path / "texts", 2)
    data.mkdir()
    (data / "shadowswitch.toml").write_text("[engine]\ndisk_reserve_bytes = 1\n")
    cli("import", "main", folder, "--data", data)
    assert cli.json("status", "--data", data)["branches"][0]["record_count"] == 2


def test_an_import_that_fails_says_how_much_is_stored(cli: Cli, tmp_path: Path) -> None:
    folder = texts(tmp_path / "texts", 2)
    for number in range(60):
        (folder / f"large{number}.txt").write_text("word " * 100_000)
    data = tmp_path / "data"
    data.mkdir()
    (data / "shadowswitch.toml").write_text(f"[engine]\ndisk_reserve_bytes = 1\nmap_size_bytes = {16 << 20}\n")
    cli("import", "main", folder, "--data", data, status=1)
    line = cli.err
    stored = cli.json("status", "--data", data)["branches"][0]["record_count"]
    assert stored > 0
    assert f"{stored} files of the folder are stored; the same import goes on" in line
    assert "nothing was stored" not in line
