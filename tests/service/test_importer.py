"""The import of a folder: records, files left out, and a second import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Config, Engine
from shadowswitch.service.daemon import importer
from shadowswitch.service.daemon.importer import import_folder
from shadowswitch.service.daemon.text_files import list_files
from tests.support import inside


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", Config(record_size_max_bytes=64 << 10)) as engine:
        engine.create_branch("main")
        yield engine
        assert engine.check() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    return tmp_path / "texts"


def ids(engine: Engine) -> set[str]:
    return {record.id for record in engine.scan("main")}


def test_a_file_becomes_a_record_with_its_path_name_text_and_size(engine: Engine, folder: Path) -> None:
    (folder / "deep" / "größe.txt").write_text("viel Text")
    imported = import_folder(engine, "main", folder)
    record = engine.get("main", "file", "deep/größe.txt")
    assert record is not None
    assert record.fields == {"path": "deep/größe.txt", "name": "größe.txt", "text": "viel Text", "size_bytes": 9}
    assert (imported.files, imported.size_bytes, imported.lsn, imported.skipped) == (1, 9, record.lsn, {})


def test_files_without_text_are_left_out_and_counted(engine: Engine, folder: Path, tmp_path: Path) -> None:
    (folder / "kept.txt").write_text("kept")
    (folder / "binary").write_bytes(b"text\0" + b"x" * 100)
    (folder / "large.txt").write_text("x" * (64 << 10))
    (folder / "doubled.txt").write_bytes(b"\xe9" * (40 << 10))  # too large only as UTF-8
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "hidden.txt").write_text("hidden")
    os.mkfifo(folder / "pipe")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "linked").symlink_to(tmp_path)
    imported = import_folder(engine, "main", folder)
    assert ids(engine) == {"kept.txt"}
    assert imported.skipped == {"binary": 1, "too large": 2, "folder left out": 1, "not a file": 1, "symbolic link": 2}


def test_a_nul_byte_after_the_first_8_kib_is_still_text(engine: Engine, folder: Path) -> None:
    (folder / "late.txt").write_bytes(b"a" * 8192 + b"\0 end")
    assert import_folder(engine, "main", folder).files == 1


def test_a_text_that_is_not_utf_8_is_read_as_latin_1(engine: Engine, folder: Path) -> None:
    (folder / "old.txt").write_bytes("café".encode("latin-1"))
    assert import_folder(engine, "main", folder).not_utf8 == 1
    record = engine.get("main", "file", "old.txt")
    assert record is not None
    assert (record.fields["text"], record.fields["encoding"]) == ("café", "latin-1")


def test_a_file_name_without_an_id_is_counted(engine: Engine, folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("no Unicode name")
    (folder / "fine.txt").write_text("fine")
    assert import_folder(engine, "main", folder).skipped == {"name cannot be an id": 1}
    assert ids(engine) == {"fine.txt"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_and_folders_are_counted(engine: Engine, folder: Path) -> None:
    (folder / "secret.txt").write_text("secret")
    (folder / "secret.txt").chmod(0)
    (folder / "deep").chmod(0)
    assert import_folder(engine, "main", folder).skipped == {"unreadable": 1, "unreadable folder": 1}


def test_a_file_that_vanishes_during_the_import_is_counted(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gone.txt").write_text("gone")
    listed = list(list_files(folder, engine.path, importer.Imported().skip))
    (folder / "gone.txt").unlink()
    inside.replace(monkeypatch, inside.Step.IMPORT_LIST_FILES, lambda *_: iter(listed))
    assert import_folder(engine, "main", folder).skipped == {"unreadable": 1}


def test_the_data_directory_itself_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("note")
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        imported = import_folder(engine, "main", tmp_path)
        assert ids(engine) == {"note.txt"}
        assert imported.skipped == {"folder left out": 1}


def test_a_second_import_writes_only_changed_files(engine: Engine, folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    import_folder(engine, "main", folder)
    head = engine.head("main")
    (folder / "b.txt").write_text("other")
    stored: dict[str, int] = {}
    again = import_folder(engine, "main", folder, stored=lambda id, lsn: stored.update({id: lsn}))
    assert (again.files, again.unchanged, engine.head("main")) == (1, 1, head + 1)
    assert stored == {record.id: record.lsn for record in engine.scan("main")}


def test_batches_have_limits_and_every_file_gets_its_lsn(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.IMPORT_BATCH_CHANGES, 3)
    inside.patch_limit(monkeypatch, inside.Limit.IMPORT_BATCH_BYTES, 100)
    for number in range(10):
        (folder / f"{number}.txt").write_text("x" * (10 if number < 5 else 60))
    sizes: list[int] = []
    write = engine.write

    def counted(branch: str, changes: list[object], **options: object) -> object:
        sizes.append(len(changes))
        return write(branch, changes, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "write", counted)
    stored: dict[str, int] = {}
    import_folder(engine, "main", folder, stored=lambda id, lsn: stored.update({id: lsn}))
    assert sizes == [3, 3, 1, 1, 1, 1]
    assert stored == {record.id: record.lsn for record in engine.scan("main")}


def test_limits_end_an_import_and_the_rest_is_counted(engine: Engine, folder: Path) -> None:
    for number in range(6):
        (folder / f"{number}.txt").write_text("x" * 10)
    assert import_folder(engine, "main", folder, files_max=2).skipped == {"beyond the limit": 4}
    assert import_folder(engine, "main", folder, size_max_bytes=35).skipped == {"beyond the limit": 2}
    assert len(ids(engine)) == 4


def test_progress_reaches_the_end(engine: Engine, folder: Path) -> None:
    for number in range(4):
        (folder / f"{number}.txt").write_text("x" * 10)
    seen: list[tuple[int, int]] = []
    import_folder(engine, "main", folder, progressed=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 40), (20, 40), (30, 40), (40, 40)]
