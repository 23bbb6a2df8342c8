"""The path for programs outside: hundreds of exchanges, and of real switches, under a busy reader."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from shadowswitch import Engine, SwitchRequest, UnsupportedFilesystem
from shadowswitch.storage.backends.fts5 import store as fts5_store
from shadowswitch.storage.generations import published_path
from tests.support.engine_helpers import KIND, built, live, put, wait_until

ROWS = 20


def generation(root: Path, number: int) -> Path:
    """A directory of two files that must never be seen mixed."""
    path = root / "generations" / f"{number:08d}"
    (path / "shard-000").mkdir(parents=True)
    for name in ("one", "two"):
        (path / "shard-000" / name).write_text(str(number) * 100)
    return path


def publish(root: Path, branch: str, index_type: str, source: Path, mark: str, strategy: str) -> bool:
    """Publish plain files, by an ordinary copy."""

    def copy_to(target: Path) -> None:
        shutil.copytree(source, target)

    return published_path.publish(root, branch, index_type, source, mark, strategy, copy_to)


def read_inside(folder: int, name: str) -> str:
    """A file of an open directory, even when the path of the directory leads elsewhere by now."""
    with open(name, encoding="utf-8", opener=partial(os.open, dir_fd=folder)) as file:
        return file.read()


class Reader(threading.Thread):
    """Resolves the path once, as a program outside should, and reads both files; then opens one by the plain path."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.stop = threading.Event()
        self.reads = 0
        self.read = threading.Event()
        self.absent: list[str] = []
        self.torn: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                one, two = self._resolved()
                plain = (self.path / "shard-000" / "one").read_text()
                if one != two or any(len(set(text)) != 1 or len(text) != 100 for text in (one, two, plain)):
                    self.torn.append(repr((one, two, plain)))
            except OSError as error:
                self.absent.append(repr(error))
            self.reads += 1
            self.read.set()

    def _resolved(self) -> tuple[str, str]:
        """Both files of one directory, also if the path is exchanged meanwhile."""
        folder = os.open(self.path / "shard-000", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return read_inside(folder, "one"), read_inside(folder, "two")
        finally:
            os.close(folder)

    def wait_for_the_next_read(self) -> None:
        """A read must not last over two exchanges: only the previous copy is kept for a reader that has it open."""
        self.read.clear()
        assert self.read.wait(30)


@pytest.mark.parametrize("strategy", ["ATOMIC_RENAME", "COPY_AND_REPLACE"])
def test_five_hundred_switches_are_never_seen_half_done(tmp_path: Path, strategy: str) -> None:
    generations = [generation(tmp_path, number) for number in (1, 2)]
    root = tmp_path / "published"
    path = published_path.published_path(root, "feature/x", KIND)
    publish(root, "feature/x", KIND, generations[0], "c/1", strategy)
    reader = Reader(path)
    reader.start()
    try:
        number = 0
        while number < 500 or reader.reads <= 100:
            number += 1
            which = number % 2
            assert publish(root, "feature/x", KIND, generations[which], f"c/{which + 1}", strategy)
            assert not publish(root, "feature/x", KIND, generations[which], f"c/{which + 1}", strategy)
            if strategy == "COPY_AND_REPLACE":
                reader.wait_for_the_next_read()
    finally:
        reader.stop.set()
        reader.join(timeout=30)
    assert (reader.absent, reader.torn) == ([], [])
    assert reader.reads > 100
    assert len(list((root / published_path.STAGING).iterdir())) == (strategy == "COPY_AND_REPLACE")  # the previous copy


def test_a_reader_would_see_files_of_two_generations_mixed(tmp_path: Path) -> None:
    path = generation(tmp_path, 1)
    (path / "shard-000" / "two").write_text("2" * 100)
    reader = Reader(path)
    reader.start()
    reader.wait_for_the_next_read()
    reader.stop.set()
    reader.join(timeout=30)
    assert reader.torn


class Opener(threading.Thread):
    """Opens the live index by its path again and again, through SQLite, as a program in another language does."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.stop = threading.Event()
        self.seen: Counter[int] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._open(Path(os.readlink(f"/proc/self/fd/{folder}")), folder)
                finally:
                    os.close(folder)
                self._count(self.path)
            except (OSError, sqlite3.Error) as error:
                self.failures.append(repr(error))

    def _open(self, resolved: Path, folder: int) -> None:
        number = json.loads(read_inside(folder, "manifest.json"))["generation"]
        if int(resolved.name) != number:
            self.failures.append(f"{resolved} has the manifest of {number}")
        self._count(resolved)
        self.seen[number] += 1

    def _count(self, path: Path) -> None:
        with closing(sqlite3.connect(f"file:{path / 'shard-000' / fts5_store.FILE}?mode=ro", uri=True)) as db:
            (rows,) = db.execute("SELECT count(*) FROM docs").fetchone()
        if rows != ROWS:
            self.failures.append(f"{path} has {rows} rows")


def open_by_path_through(engine: Engine, switches: int) -> None:
    """Switch mostly there and back, now and then to a new generation, for its build takes the time."""
    engine.write("main", [put(str(n)) for n in range(ROWS)])
    live(engine)
    live(engine)
    opener = Opener(engine.path / "published" / "main" / KIND)
    opener.start()
    request = SwitchRequest(strategy="ATOMIC_RENAME", validation_checks=("DIGEST",))
    try:
        for number in range(switches):
            if number % 10 == 9:
                result = engine.switch(built(engine).shadow_index_id, request)
            else:
                result = engine.rollback("main", KIND, request)
            assert result.success, result.message
        wait_until(lambda: opener.seen[result.generation] > 0)
    finally:
        opener.stop.set()
        opener.join(timeout=30)
    assert opener.failures == []
    assert len(opener.seen) > switches // 20


@pytest.mark.slow
def test_an_index_is_opened_by_its_path_through_a_hundred_switches_without_a_failure(engine: Engine) -> None:
    open_by_path_through(engine, 100)


@pytest.mark.torture
def test_an_index_is_opened_by_its_path_through_five_hundred_switches_without_a_failure(engine: Engine) -> None:
    open_by_path_through(engine, 500)


def test_the_strategy_may_change_from_link_to_copy_and_back(tmp_path: Path) -> None:
    one, two = generation(tmp_path, 1), generation(tmp_path, 2)
    root = tmp_path / "published"
    path = published_path.published_path(root, "main", KIND)
    for number, (source, strategy) in enumerate(
        [(one, "ATOMIC_RENAME"), (two, "COPY_AND_REPLACE"), (one, "ATOMIC_RENAME")]
    ):
        publish(root, "main", KIND, source, f"c/{number}", strategy)
        assert path.is_symlink() == (strategy == "ATOMIC_RENAME")
        assert (path / "shard-000" / "one").read_text() == (source / "shard-000" / "one").read_text()
    assert one.is_dir()
    assert two.is_dir()


def test_copies_staged_by_a_killed_host_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "published"
    publish(root, "main", KIND, generation(tmp_path, 1), "c/1", "COPY_AND_REPLACE")
    (root / published_path.STAGING / "left over").mkdir()
    (root / published_path.STAGING / "left over" / "file").write_text("half")
    published_path.clean_staging(root)
    assert list((root / published_path.STAGING).iterdir()) == []
    assert published_path.published_path(root, "main", KIND).is_dir()


def test_a_link_planted_in_the_published_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "published"
    root.mkdir()
    (root / "main").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsupportedFilesystem):
        publish(root, "main", KIND, generation(tmp_path, 1), "c/1", "ATOMIC_RENAME")
    assert list((tmp_path / "outside").iterdir()) == []
