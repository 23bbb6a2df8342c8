"""The command line: exit statuses, JSON, reading beside a running host, and the demo with its audit."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.service import demo as demo_module
from shadowswitch.service.cli import main
from shadowswitch.service.importer import import_folder
from shadowswitch.service.workload import Acked, audit, longest_gap_ms

KIND = "SEARCH_INDEX"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep" / "er").mkdir(parents=True)
    for n in range(40):
        (folder / f"file{n}.txt").write_text(f"hello number n{n} " + "filler words here " * 20)
    (folder / "deep" / "er" / "nested.md").write_text("a nested treasure")
    (folder / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (folder / "binary.bin").write_bytes(b"\x00\x01")
    (folder / "big.txt").write_text("x" * (2 << 20))
    (folder / "link.txt").symlink_to(folder / "file1.txt")
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    status = run(*arguments, "--json")
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture
def data(tmp_path: Path, texts: Path) -> Path:
    path = tmp_path / "data"
    assert run("import", "main", texts, "--data", path) == 0
    return path


def test_import_takes_text_and_counts_what_it_left_out(
    tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = run_json(capsys, "import", "main", texts, "--data", tmp_path / "data")
    assert status == 0
    assert (found["files"], found["not_utf8"]) == (42, 1)
    assert found["skipped"] == {"binary": 1, "too large": 1, "not a regular file": 1}
    with Engine.open(tmp_path / "data") as engine:
        record = engine.get("main", "file", "deep/er/nested.md")
        assert record is not None
        assert record.fields["text"] == "a nested treasure"
        assert import_folder(engine, "main", texts).files == 42  # again: replaced
        assert engine.count("main") == 42


def test_the_whole_story_by_command_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run_json(capsys, "build", "main", KIND, "--data", data, "--tokenizer", "porter")
    assert (status, found["shadow"]["state"], found["switch"]) == (0, "BUILT", None)
    status, switched = run_json(capsys, "switch", found["shadow"]["shadow_index_id"], "--data", data)
    assert (status, switched["success"]) == (0, True)
    status, hits = run_json(capsys, "search", "main", "treasures", "--data", data)  # porter: treasure
    assert [hit["id"] for hit in hits["hits"]] == ["deep/er/nested.md"]
    assert run("build", "main", "--data", data, "--switch", "--option", 'columns=["name"]', "--workers", "1") == 0
    status, hits = run_json(capsys, "search", "main", "treasures", "--data", data)
    assert hits["hits"] == []
    status, back = run_json(capsys, "rollback", "main", KIND, "--data", data)
    assert (status, back["generation"]) == (0, switched["generation"])
    status, shown = run_json(capsys, "status", "--data", data)
    assert shown["host"] is None
    assert shown["indexes"][0]["generation"] == switched["generation"]
    status, events = run_json(capsys, "events", "--data", data, "--limit", 2)
    assert [event["sequence"] for event in events] == [1, 2]
    assert run_json(capsys, "check", "--data", data) == (0, [])


def test_a_built_shadow_is_cancelled(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = run_json(capsys, "build", "main", "--data", data)
    shadow = found["shadow"]["shadow_index_id"]
    assert run_json(capsys, "cancel", shadow, "--data", data, "--reason", "no")[1]["state"] == "CANCELLED"
    assert run("cancel", shadow, "--data", data) == 1
    assert "final" in capsys.readouterr().err


def test_no_is_one_and_a_wrong_call_is_two(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no = [
        ("search", "main", "x", "--data", data),
        ("search", "other", "x", "--data", data),
        ("switch", "nonsense", "--data", data),
        ("rollback", "main", KIND, "--data", data),
        ("status", "--data", tmp_path / "nowhere"),
        ("build", "main", "--data", tmp_path / "nowhere"),
    ]
    for call in no:
        assert run(*call) == 1, call
        assert capsys.readouterr().err.startswith("shadowswitch: ")
    assert not (tmp_path / "nowhere").exists()
    wrong = [("bogus",), ("search", "main"), ("switch",), ("search", "main", "x", "--data", data, "--limit", "ten")]
    for call in wrong:
        assert run(*call) == 2, call
    assert run("build", "main", "--data", data, "--tokenizer", "nonsense") == 1
    assert run("import", "main", tmp_path / "missing", "--data", data) == 2


def test_reading_commands_work_beside_a_running_host_and_changing_ones_name_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Engine.open(data) as engine:
        engine.rebuild("main", KIND, ["file"])
        for command in ("status", "check", "events"):
            done = _command(command, "--data", str(data), "--json")
            assert done.returncode == 0, done.stderr
            json.loads(done.stdout)
        done = _command("search", "main", "treasure", "--data", str(data), "--json")
        assert [hit["id"] for hit in json.loads(done.stdout)["hits"]] == ["deep/er/nested.md"]
        done = _command("build", "main", "--data", str(data))
        assert done.returncode == 1
        assert "is open in process" in done.stderr


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shadowswitch", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_check_says_no_to_damage(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "main", "--data", data, "--switch") == 0
    file = next((data / "generations").glob("*/*/*/shard-000/shard.sqlite"))
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE docs SET c0 = 'altered' WHERE rowid = 1")
    connection.close()
    status, findings = run_json(capsys, "check", "--data", data)
    assert status == 1
    assert "IX-3" in {finding["invariant"] for finding in findings}


def test_every_command_has_help() -> None:
    done = _command("--help")
    commands = ("demo", "import", "build", "switch", "rollback", "cancel", "search", "status", "events", "check")
    assert [name for name in commands if name not in done.stdout] == []
    for name in commands:
        assert "Example" in _command(name, "--help").stdout


@pytest.mark.slow
def test_the_demo_tells_its_story_and_keeps_its_data(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module.Demo.run, "__defaults__", (0.3, 0.2))
    status, report = run_json(capsys, "demo", texts, "--keep", tmp_path / "kept")
    assert (status, report["ok"]) == (0, True)
    assert [build["tokenizer"] for build in report["builds"]] == ["unicode61", "porter", "ascii", "unicode61"]
    assert report["audited"] > 0
    assert report["audit"] == report["check"] == report["read_errors"] == report["back_in_time"] == []
    assert report["writes"] > 10
    assert report["searches"] > 10
    assert run("check", "--data", tmp_path / "kept") == 0
    assert run("demo", texts, "--keep", tmp_path / "kept") == 2  # not empty


def test_the_audit_of_the_demo_finds_what_is_lost_revived_or_old(data: Path) -> None:
    with Engine.open(data) as engine:
        engine.rebuild("main", KIND, ["file"])
        lsn = {record.id: record.lsn for record in engine.scan("main")}
        assert audit(engine, "main", {}) == []
        sound = {"file1.txt": Acked(lsn["file1.txt"], "n1"), "file99.txt": Acked(5, None)}
        assert audit(engine, "main", sound) == []
        planted = {
            "lost.txt": Acked(99, "marker"),
            "file1.txt": Acked(98, None),
            "file2.txt": Acked(lsn["file2.txt"] + 1, "n2"),
            "file3.txt": Acked(lsn["file3.txt"], "notthere"),
        }
        problems = audit(engine, "main", planted)
    assert [word for word in ("is lost", "is back", "the index has LSN", "finds []") if word not in str(problems)] == []


def test_the_longest_gap_counts_from_border_to_border() -> None:
    assert longest_gap_ms([1.0, 1.5, 1.6], 0.9, 2.0) == pytest.approx(500)
    assert longest_gap_ms([], 0.0, 2.0) == pytest.approx(2000)
