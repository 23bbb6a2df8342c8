"""An entry that becomes another one between its listing and its opening. No link is followed; nothing blocks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.service.daemon.importer import import_folder
from shadowswitch.service.daemon.mirror import Mirror
from shadowswitch.service.daemon.text_files import list_files
from tests.support import inside
from tests.support.engine_helpers import wait_until

SECRET = "the text of a file outside of the folder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a deep file, and a file that stays; beside it a folder with the same names."""
    for name, text in (("docs", "text"), ("outside", SECRET)):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "file.txt").write_text(text)
        (tmp_path / name / "deep" / "file.txt").write_text(text)
    (tmp_path / "docs" / "stays.txt").write_text("stays")
    return tmp_path / "docs"


def file_becomes_a_link(folder: Path) -> None:
    (folder / "file.txt").unlink()
    (folder / "file.txt").symlink_to(folder.parent / "outside" / "file.txt")


def folder_becomes_a_link(folder: Path) -> None:
    (folder / "deep").rename(folder.parent / "away")
    (folder / "deep").symlink_to(folder.parent / "outside" / "deep")


def file_becomes_a_fifo(folder: Path) -> None:
    (folder / "file.txt").unlink()
    os.mkfifo(folder / "file.txt")


SWAPS = {"file.txt": (file_becomes_a_link, "symbolic link"), "deep/file.txt": (folder_becomes_a_link, "symbolic link")}
CASES = [(id, *how) for id, how in SWAPS.items()] + [("file.txt", file_becomes_a_fifo, "not a file")]
Swap = Callable[[Path], None]


def texts(engine: Engine) -> dict[str, str]:
    return {record.id: record.fields["text"] for record in engine.scan("main", "file")}


@pytest.mark.parametrize(("id", "swap", "reason"), CASES)
def test_an_import_leaves_it_out(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, id: str, swap: Swap, reason: str
) -> None:
    listed = list(list_files(folder, engine.path, lambda _: None))
    swap(folder)
    inside.replace(monkeypatch, inside.Step.IMPORT_LIST_FILES, lambda *_: iter(listed))
    imported = import_folder(engine, "main", folder)
    assert id not in texts(engine)
    assert SECRET not in texts(engine).values()
    assert imported.skipped == {reason: 1}


@pytest.mark.parametrize(("id", "swap", "reason"), CASES)
def test_a_mirror_leaves_it_out_and_deletes_its_record(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, id: str, swap: Swap, reason: str
) -> None:
    del reason
    swapped: list[str] = []

    def first(ordinary: Callable[..., Any], *given: Any) -> Any:
        if id in map(str, given) and not swapped:
            swapped.append(id)
            swap(folder)
        return ordinary(*given)

    import_folder(engine, "main", folder)
    inside.wrap(monkeypatch, inside.Step.MIRROR_READ_FIELDS, first)
    mirror = Mirror(engine, "main", folder, quiet_s=0.02, rescan_s=600)
    mirror.start()
    wait_until(lambda: mirror.status().scans and not mirror.status().pending)
    mirror.stop()
    assert swapped
    assert id not in texts(engine)
    assert SECRET not in texts(engine).values()
    assert texts(engine)["stays.txt"] == "stays"


def test_a_gitignore_behind_a_link_or_in_a_fifo_is_not_read(engine: Engine, folder: Path) -> None:
    (folder.parent / "outside" / "rules").write_text("*.txt\n")
    (folder / ".gitignore").symlink_to(folder.parent / "outside" / "rules")
    os.mkfifo(folder / "deep" / ".gitignore")
    mirror = Mirror(engine, "main", folder)
    mirror.start()
    wait_until(lambda: mirror.status().scans)
    mirror.stop()
    assert set(texts(engine)) == {"file.txt", "deep/file.txt", "stays.txt"}
