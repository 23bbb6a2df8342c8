"""The commands for backups: those of docs/backup.md, refusals, and a bucket of a real S3 server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path

import pytest

from shadowswitch import Engine
from tests.repository.test_tidy import text_of
from tests.support.backup_helpers import shown
from tests.support.cli_helpers import Cli, spawn
from tests.support.damage import flip, record_key
from tests.support.engine_helpers import fill, live, put
from tests.support.moto_server import BUCKET, CREDENTIALS, moto

COMMAND = re.compile(r"(?m)^    shadowswitch (.*)$")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(engine: Engine, data_dir: Path) -> Path:
    """The directory of a closed engine with a live index."""
    fill(engine, 30)
    live(engine)
    engine.close()
    return data_dir


def test_the_commands_of_the_page_do_what_it_says(cli: Cli, data: Path, tmp_path: Path) -> None:
    places = {
        "/mnt/backups/search": str(tmp_path / "store"),
        "./data": str(data),
        "./restored": str(tmp_path / "again"),
    }
    ran = []
    for line in COMMAND.findall(text_of("docs/backup.md")):
        words = [places.get(word, word) for word in shlex.split(line)]
        cli(*words)
        ran.append(" ".join(words[:2]))
    assert ran == ["backup create", "backup list", "backup verify", "backup prune", f"restore {tmp_path / 'store'}"]
    assert cli.json("search", "main", "hello", "--data", tmp_path / "again")
    assert cli("check", "--data", tmp_path / "again").strip().endswith("sound")


def test_a_backup_beside_a_host_and_a_restore_for_the_next_one(
    cli: Cli, engine: Engine, data_dir: Path, tmp_path: Path
) -> None:
    fill(engine, 30)
    live(engine)
    out, err = spawn("backup", "create", tmp_path / "store", "--data", data_dir, "--json").communicate(timeout=120)
    assert err == ""
    made = json.loads(out)
    assert (made["records"], made["damaged"]) == (30, [])
    assert [one["id"] for one in cli.json("backup", "list", tmp_path / "store")] == [made["id"]]
    done = cli.json("restore", tmp_path / "store", "--data", tmp_path / "again", "--no-wait", "--backup", made["id"])
    assert (done["indexes"], done["unserved"]) == (["main SEARCH_INDEX"], [])
    assert not (tmp_path / "again" / "generations").exists()
    with Engine.open(tmp_path / "again") as again:
        assert shown(again) == shown(engine)


def test_a_bucket_holds_backups(cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/of/mine"
        cli("backup", "create", url, "--data", data)
        cli("backup", "create", url, "--data", data)
        assert cli.json("backup", "verify", url, "--deep")["findings"] == []
        assert len(cli.json("backup", "prune", url, "--keep", 1)["removed"]) == 1
        assert cli.json("restore", url, "--data", tmp_path / "again")["records"] == 30
        said = cli.error("backup", "list", "s3://nowhere/x", status=1)
        assert "NoSuchBucket" in said
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in said


def test_findings_are_exit_status_1(cli: Cli, data: Path, tmp_path: Path) -> None:
    flip(data, "records", record_key("3"), 17)
    cli("backup", "create", tmp_path / "store", "--data", data, status=1)
    assert "'3'" in cli("backup", "verify", tmp_path / "store", status=1)
    page = next((tmp_path / "store" / "pages").glob("*/" + "?" * 40))
    page.write_bytes(b"")
    assert f"{page.name} is damaged" in cli("backup", "verify", tmp_path / "store", status=1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("backup create STORE", "give the data directory"),
        ("backup create STORE --data DATA --keep 1", "--keep is for backup prune"),
        ("backup list STORE --deep", "--deep is for backup verify"),
        ("backup prune STORE", "say with --keep"),
        ("backup prune STORE --keep 0", "--keep"),
        ("backup create ftp://x --data DATA", "'ftp' is not known"),
        ("restore STORE --data NEW", "has no backup"),
        ("restore STORE --data NEW --at yesterday", "no moment in ISO 8601"),
        ("restore STORE --data DATA", "no backup"),
    ],
)
def test_a_wrong_call_is_exit_status_2(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str
) -> None:
    monkeypatch.delenv("SHADOWSWITCH_DATA", raising=False)
    places = {"STORE": tmp_path / "store", "DATA": data, "NEW": tmp_path / "new"}
    assert says in cli.error(*[places.get(word, word) for word in line.split()], status=2)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_restore_leaves_the_builds_to_the_next_host(cli: Cli, data: Path, tmp_path: Path) -> None:
    cli("backup", "create", tmp_path / "store", "--data", data)
    process = spawn("restore", tmp_path / "store", "--data", tmp_path / "again", points="copy.slice=sleep:60")
    assert process.stderr is not None
    assert any("build of the indexes" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, "the next host that opens the directory builds" in err) == (130, True)
    with Engine.open(tmp_path / "again") as again:
        assert again.write("main", [put("new")]).lsn == 31


def test_a_store_is_probed(cli: Cli, tmp_path: Path) -> None:
    assert "keeps conditions" in cli("replicate", tmp_path / "store", "--probe")
    assert "--probe" in cli.error("replicate", tmp_path / "store", status=2)


def test_a_catalog_that_ends_its_readers_is_one_line(data: Path, tmp_path: Path) -> None:
    file = data / "catalog" / "data.mdb"
    content = bytearray(file.read_bytes())
    page = os.sysconf("SC_PAGE_SIZE")
    for at in range(2 * page, len(content), page):
        if b"hello word" in content[at : at + page]:
            content[at : at + page] = b"\xff" * page
    file.write_bytes(content)
    process = spawn("backup", "create", tmp_path / "store", "--data", data)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().count("\n") <= 1
    assert "damaged" in err
    assert not list((tmp_path / "store").glob("backups/*"))
