"""The path for outsiders, without an engine: hundreds of exchanges under a reader that never rests."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from shadowswitch import UnsupportedFilesystem
from shadowswitch.storage import publishing

KIND = "SEARCH_INDEX"


def generation(root: Path, number: int) -> Path:
    """A directory of two files that must never be seen mixed."""
    path = root / "generations" / f"{number:08d}"
    (path / "shard-000").mkdir(parents=True)
    for name in ("one", "two"):
        (path / "shard-000" / name).write_text(str(number) * 100)
    return path


def publish(root: Path, branch: str, index_type: str, source: Path, mark: str, strategy: str) -> bool:
    """Publish plain files, for which any copy will do."""

    def copy_to(target: Path) -> None:
        shutil.copytree(source, target)

    return publishing.publish(root, branch, index_type, source, mark, strategy, copy_to)


class Reader(threading.Thread):
    """Resolves the path once, as an outsider should, and reads both files; or opens one of them by the plain path."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.stop = threading.Event()
        self.reads = 0
        self.absent: list[str] = []
        self.torn: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            self.reads += 1
            try:
                content = (self.path / "shard-000" / "one").read_text()
            except OSError as error:
                self.absent.append(repr(error))
                continue
            if len(set(content)) != 1 or len(content) != 100:
                self.torn.append(content)


@pytest.mark.parametrize("strategy", ["ATOMIC_RENAME", "COPY_AND_REPLACE"])
def test_five_hundred_switches_are_never_seen_half_done(tmp_path: Path, strategy: str) -> None:
    generations = [generation(tmp_path, number) for number in (1, 2)]
    root = tmp_path / "published"
    path = publishing.published_path(root, "feature/x", KIND)
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
    finally:
        reader.stop.set()
        reader.join(timeout=30)
    assert (reader.absent, reader.torn) == ([], [])
    assert reader.reads > 100
    assert len(list((root / publishing.STAGING).iterdir())) == (strategy == "COPY_AND_REPLACE")  # the one before


def test_the_strategy_may_change_from_link_to_copy_and_back(tmp_path: Path) -> None:
    one, two = generation(tmp_path, 1), generation(tmp_path, 2)
    root = tmp_path / "published"
    path = publishing.published_path(root, "main", KIND)
    for number, (source, strategy) in enumerate(
        [(one, "ATOMIC_RENAME"), (two, "COPY_AND_REPLACE"), (one, "ATOMIC_RENAME")]
    ):
        publish(root, "main", KIND, source, f"c/{number}", strategy)
        assert path.is_symlink() == (strategy == "ATOMIC_RENAME")
        assert (path / "shard-000" / "one").read_text() == (source / "shard-000" / "one").read_text()
    assert one.is_dir()
    assert two.is_dir()


def test_what_a_killed_host_had_staged_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "published"
    publish(root, "main", KIND, generation(tmp_path, 1), "c/1", "COPY_AND_REPLACE")
    (root / publishing.STAGING / "left over").mkdir()
    (root / publishing.STAGING / "left over" / "file").write_text("half")
    publishing.clean_staging(root)
    assert list((root / publishing.STAGING).iterdir()) == []
    assert publishing.published_path(root, "main", KIND).is_dir()


def test_a_link_planted_in_the_published_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "published"
    root.mkdir()
    (root / "main").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsupportedFilesystem):
        publish(root, "main", KIND, generation(tmp_path, 1), "c/1", "ATOMIC_RENAME")
    assert list((tmp_path / "outside").iterdir()) == []
