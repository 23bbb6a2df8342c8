"""A settings file in a followed folder is content: it says what is indexed and how, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.daemon import Daemon
from shadowswitch.service.daemon.settings import load_settings
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import serving

Start = Callable[..., Daemon]
MODULE = "imported_by_content"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A followed folder; beside it a folder with a secret, and one with a module."""
    for name, file, text in (
        ("docs", "a.txt", "a person is running"),
        ("home", "secret.txt", "password"),
        ("modules", f"{MODULE}.py", "raise RuntimeError('this code ran')\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    return tmp_path / "docs"


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    started: list[Daemon] = []

    def start_(*folders: Path, settings_file: Path | None = None) -> Daemon:
        daemon = Daemon(engine, folders, settings_file)
        started.append(daemon)
        daemon.start()
        return daemon

    yield start_
    for daemon in started:
        daemon.stop()


EVERYTHING = f"""
[[mirror]]
folder = "../home"
branch = "stolen"
[[webhook]]
url = "http://127.0.0.1:1/"
allow_private = true
[inbox]
folder = "drop"
[incoming]
auto_switch = false
[[index]]
force_switch = true
[index.build_config]
tokenizer = "porter"
[[index]]
branch = "other"
[[index]]
index_type = "GRAPH_INDEX"
[index.build_config]
backend = "{MODULE}:Backend"
"""
LEFT_OUT = ["2 [[index]]", "[[mirror]]", "[[webhook]]", "[inbox]", "[incoming]", "force_switch of [[index]]"]


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_only_indexes_of_the_branch_count(
    engine: Engine, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.syspath_prepend(folder.parent / "modules")
    file = folder / "shadowswitch.toml"
    if when == "at the start":
        file.write_text(EVERYTHING)
    daemon = start(folder)
    file.write_text(EVERYTHING)
    wait_until(lambda: daemon.status().not_started)
    status = daemon.status()
    assert sorted(status.not_started) == [f"{table} of {file}" for table in LEFT_OUT]
    assert all("name the file with --settings" in why for why in status.not_started.values())
    assert status.error is None
    assert [mirror.folder for mirror in status.mirrors] == [str(folder)]
    assert (status.webhooks, status.restart_needed) == ([], False)
    assert status.inbox is not None
    assert status.inbox.folder == str(engine.path / "inbox")
    assert not (folder / "drop").exists()
    assert [(one.branch, one.index_type) for one in status.indexes] == [("main", "SEARCH_INDEX")]
    wait_until(lambda: all(one.as_described for one in daemon.status().indexes))
    assert engine.index("main", "SEARCH_INDEX").build_config["tokenizer"] == "porter"
    assert [branch.name for branch in engine.branches()] == ["main"]
    assert MODULE not in sys.modules


def test_a_file_that_the_operator_names_counts_whole(engine: Engine, start: Start, folder: Path) -> None:
    file = folder / "shadowswitch.toml"
    file.write_text('[[mirror]]\nfolder = "../home"\nbranch = "wanted"\n[inbox]\nenabled = false\n')
    daemon = start(folder, settings_file=file)
    assert daemon.status().not_started == {}
    assert daemon.status().inbox is None
    wait_until(lambda: any(one.branch == "wanted" and one.files for one in daemon.status().mirrors))
    assert engine.get("wanted", "file", "secret.txt") is not None


def test_a_file_in_the_data_directory_counts_whole(engine: Engine, start: Start) -> None:
    (engine.path / "shadowswitch.toml").write_text("[inbox]\nenabled = false\n")
    assert start().status().inbox is None


def link(file: Path) -> None:
    (file.parent.parent / "elsewhere.toml").write_text("[[index]]\n")
    file.symlink_to(file.parent.parent / "elsewhere.toml")


def fifo(file: Path) -> None:
    os.mkfifo(file)


def deep(file: Path) -> None:
    file.write_text(f"a = {'[' * 100_000}\n")


def many(file: Path) -> None:
    file.write_text("".join(f'[[index]]\nindex_type = "A{n}"\n' for n in range(17)))


@pytest.mark.parametrize(
    ("make", "why"), [(link, "cannot be read"), (fifo, "not a regular file"), (deep, "is not TOML")]
)
def test_what_is_no_settings_file_is_refused_and_blocks_nothing(
    start: Start, folder: Path, make: Callable[[Path], None], why: str
) -> None:
    make(folder / "shadowswitch.toml")
    with pytest.raises(InvalidConfig, match=why):
        start(folder)


def test_the_number_of_indexes_is_bounded(start: Start, folder: Path) -> None:
    many(folder / "shadowswitch.toml")
    daemon = start(folder)
    assert len(daemon.status().indexes) == 16
    assert list(daemon.status().not_started) == [f"1 [[index]] of {folder / 'shadowswitch.toml'}"]


def test_a_named_file_that_others_may_write_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = folder / "shadowswitch.toml"
    file.write_text("")
    file.chmod(0o666)
    load_settings(file)
    assert f"every user of this machine may write {file} (mode 0666)" in caplog.text


def test_a_server_of_a_folder_serves_no_other_folder(tmp_path: Path, folder: Path) -> None:
    (folder / "shadowswitch.toml").write_text(EVERYTHING)
    with serving(tmp_path / "data", str(folder)) as server:
        client = server.client()
        wait_until(lambda: [one["files"] for one in client.get("upkeep")["mirrors"]] == [2])
        assert [branch["name"] for branch in client.get("branches")["branches"]] == ["main"]
        assert len(client.get("upkeep")["not_started"]) == len(LEFT_OUT)
        assert server.stop() == 0
    assert "has no effect" in server.log
