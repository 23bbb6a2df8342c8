"""The demo on a small folder. Its audit finds every planted failure."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, Put, SwitchResult
from shadowswitch.service.demo import demo
from shadowswitch.service.demo.workload import Acked, Searcher, Writer
from tests.support import inside
from tests.support.cli_helpers import Cli, lose_one_row, spawn, texts

SHORT = ("--seconds", "0.4")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 60)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parent of temporary folders during the test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


# -- success -------------------------------------------------------------------------------------------------------


def test_the_demo_rebuilds_three_times_under_load_and_loses_nothing(cli: Cli, folder: Path, temporary: Path) -> None:
    found = cli.json("demo", folder, *SHORT)
    assert (found["ok"], found["problems"], found["check"]) == (True, [], [])
    assert [build["tokenizer"] for build in found["builds"]] == ["unicode61", "porter", "ascii", "unicode61"]
    assert all(build["switch"]["success"] for build in found["builds"])
    assert found["imported"]["files"] == found["audit"]["records"] == 60
    assert found["audit"]["problems"] == []
    assert found["audit"]["searches"] > 0
    assert found["writes"] == sum(found["writes_by_kind"].values()) > 0
    assert set(found["writes_by_kind"]) <= {"edits", "deletes", "creates again"}
    assert found["searches"] > 0
    assert found["failed_reads"] == found["failed_writes"] == found["reads_back_in_time"] == 0
    assert {group: stalls["switching"]["windows"] for group, stalls in found["stalls"].items()} == {
        "writers": 3,
        "readers": 3,
    }
    assert list(temporary.iterdir()) == []


def test_without_json_the_demo_prints_progress_and_a_report(cli: Cli, folder: Path) -> None:
    out = cli("demo", folder, *SHORT, "--max-files", "30")
    assert "all is well" in out
    assert "30 beyond the limit" in out
    assert "around the switches" in out
    for step in ("import", "first index", "quiet time", "rebuild 3/3 unicode61", "audit", "check"):
        assert any(line.startswith(step) for line in cli.err.splitlines()), cli.err


def test_a_kept_directory_serves_other_commands_and_another_demo(cli: Cli, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "kept"
    cli.json("demo", folder, *SHORT, "--keep", data)
    assert cli.json("check", "--data", data) == []
    assert cli.json("status", "--data", data)["indexes"][0]["switches"] == 4
    assert cli.json("search", "main", "evening", "--data", data)["hits"]
    other = texts(tmp_path / "other", 20)
    (other / "extra.txt").write_text("something more")
    again = cli.json("demo", other, *SHORT, "--keep", data)
    assert again["ok"] is True
    assert again["audit"]["records"] > 21  # more records than the second folder has files


def test_a_directory_of_another_origin_is_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    cli("import", "main", folder, "--data", tmp_path / "data")
    before = cli.json("status", "--data", tmp_path / "data")
    assert "no demo made it" in cli.error("demo", folder, "--keep", tmp_path / "data", status=2)
    assert "no demo made it" in cli.error("demo", folder, "--keep", folder, status=2)
    assert cli.json("status", "--data", tmp_path / "data") == before


def test_a_folder_without_texts_is_a_wrong_call(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cli("demo", tmp_path / "empty", *SHORT, status=2)
    assert cli.err.endswith("has no text files\n")
    cli.error("demo", tmp_path / "nowhere", status=2)


def test_the_default_folder_is_the_standard_library() -> None:
    assert (demo.default_corpus() / "json" / "decoder.py").is_file()


def test_an_interrupted_demo_leaves_nothing_behind(folder: Path, temporary: Path) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = spawn("demo", folder, "--seconds", 60)
        assert process.stderr is not None
        while not process.stderr.readline().startswith("quiet time"):
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status
        assert "Traceback" not in err
        assert f"shadowswitch: {'interrupted' if status == 130 else 'terminated'}" in err
        assert list(temporary.iterdir()) == []


# -- planted failures: each is found, with exit status 1 -----------------------------------------------------------


def run_with(monkeypatch: pytest.MonkeyPatch, plant: Any) -> None:
    """Plant a failure between the load and the audit."""

    def planted(ordinary: Any, engine: Engine, branch: str, acked: dict[str, Acked]) -> Any:
        plant(engine, acked)
        return ordinary(engine, branch, acked)

    inside.wrap(monkeypatch, inside.Step.DEMO_AUDIT, planted)


def test_a_lost_row_of_the_live_index_is_found(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def plant(engine: Engine, _: Any) -> None:
        with engine.reader("main", "SEARCH_INDEX", min_lsn=engine.head("main")):
            pass  # a change applied later could restore the row
        lost.append(lose_one_row(Path(engine.index("main", "SEARCH_INDEX").path)))

    run_with(monkeypatch, plant)
    # The reading of a live index, which may come late, would find the damage before the check, and go back.
    inside.wrap(monkeypatch, inside.Step.RECHECK, lambda ordinary, scrubber: None)
    found = cli.json("demo", folder, *SHORT, status=1)
    assert found["ok"] is False
    assert any(text.startswith(f"{lost[0]}: written at LSN") for text in found["audit"]["problems"]), found["problems"]
    assert any(text.startswith("IX-") for text in found["check"])


def test_a_write_without_an_acknowledgement_is_found(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index agrees with the branch, so only the acknowledgements show the write."""
    run_with(monkeypatch, lambda engine, _: engine.write("main", [Put("file", "part0/file0.txt", {})]))
    found = cli.json("demo", folder, *SHORT, status=1)
    assert found["audit"]["problems"][0].startswith("part0/file0.txt: ")
    assert found["check"] == []


def test_the_printed_report_names_the_problems(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(_: Any, acked: dict[str, Acked]) -> None:
        acked["never-written.txt"] = Acked(7, marker="ghost")

    run_with(monkeypatch, plant)
    out = cli("demo", folder, *SHORT, status=1)
    assert "NOT WELL" in out
    assert "never-written.txt: written at LSN 7, and lost from the index" in out


def test_a_failed_read_and_a_read_back_in_time_are_found(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def sometimes(step: Any, self: Searcher) -> None:
        step(self)
        if len(self.done) == 3:
            self.last_lsn += 1_000_000
        if len(self.done) == 5:
            self.done.append(self.done[-1])
            raise OSError("planted")

    inside.wrap(monkeypatch, inside.Step.WORKLOAD_SEARCH, sometimes)
    found = cli.json("demo", folder, *SHORT, status=1)
    assert found["failed_reads"] >= 1
    assert found["reads_back_in_time"] >= 1
    assert any("OSError: planted" in text for text in found["problems"])
    assert any("went from LSN" in text for text in found["problems"])
    assert found["audit"]["problems"] == []


def test_a_failed_write_is_found_and_the_audit_drops_its_record(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def once(step: Any, self: Writer) -> None:
        if len(self.done) == 2 and not self.failures:
            raise OSError("planted")
        step(self)

    inside.wrap(monkeypatch, inside.Step.WORKLOAD_WRITE, once)
    found = cli.json("demo", folder, *SHORT, status=1)
    assert found["failed_writes"] >= 1
    assert any("OSError: planted" in text for text in found["problems"])


def test_a_refused_switch_is_found(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Engine.switch
    results: list[SwitchResult] = []

    def refused(engine: Engine, *arguments: Any) -> SwitchResult:
        results.append(real(engine, *arguments))
        return msgspec.structs.replace(results[-1], success=len(results) != 2, message="planted")

    monkeypatch.setattr(Engine, "switch", refused)
    assert cli.json("demo", folder, *SHORT, status=1)["problems"] == ["the switch to porter failed: planted"]
