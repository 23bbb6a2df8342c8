"""The mirror of a folder. Its oracle: the branch has the files of the folder."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.mirror import Mirror
from tests.support import inside
from tests.support.engine_helpers import wait_until

OpenEngine = Callable[..., Engine]
Start = Callable[..., Mirror]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one of them deep."""
    made = tmp_path / "docs"
    (made / "deep").mkdir(parents=True)
    (made / "a.txt").write_text("alpha")
    (made / "deep" / "b.txt").write_text("beta")
    return made


@pytest.fixture
def start(engine: Engine, folder: Path) -> Iterator[Start]:
    """Starts mirrors of the folder, waits for their first scan, and stops them at the end."""
    started: list[Mirror] = []

    def start_(**how: Any) -> Mirror:
        mirror = Mirror(engine, **{"branch": "main", "folder": folder, "quiet_s": 0.02, **how})
        mirror.start()
        started.append(mirror)
        wait_until(lambda: mirror.status().scans)
        return mirror

    yield start_
    for mirror in started:
        mirror.stop()


def held(engine: Engine, branch: str = "main") -> dict[str, str]:
    """The texts of the branch by id."""
    return {record.id: record.fields["text"] for record in engine.scan(branch, "file")}


def becomes(engine: Engine, wanted: dict[str, str], branch: str = "main") -> None:
    """Wait until the branch has exactly these texts."""
    try:
        wait_until(lambda: held(engine, branch) == wanted)
    finally:
        assert held(engine, branch) == wanted


def test_the_start_writes_existing_files_and_deletes_records_without_a_file(
    engine: Engine, start: Start, folder: Path
) -> None:
    first = start()
    assert held(engine) == {"a.txt": "alpha", "deep/b.txt": "beta"}
    assert engine.branch("main").head_lsn == 2
    first.stop()
    (folder / "a.txt").unlink()
    (folder / "c.txt").write_text("gamma")
    again = start()
    assert held(engine) == {"c.txt": "gamma", "deep/b.txt": "beta"}
    assert (again.status().writes, again.status().deletes) == (1, 1)


def test_creations_edits_moves_and_deletions_become_writes(engine: Engine, start: Start, folder: Path) -> None:
    start(rescan_s=600)
    (folder / "new.txt").write_text("new")
    becomes(engine, {"a.txt": "alpha", "deep/b.txt": "beta", "new.txt": "new"})
    (folder / "a.txt").write_text("edited")
    becomes(engine, {"a.txt": "edited", "deep/b.txt": "beta", "new.txt": "new"})
    (folder / "new.txt").rename(folder / "deep" / "moved.txt")
    becomes(engine, {"a.txt": "edited", "deep/b.txt": "beta", "deep/moved.txt": "new"})
    (folder / "deep").rename(folder / "deeper")
    becomes(engine, {"a.txt": "edited", "deeper/b.txt": "beta", "deeper/moved.txt": "new"})
    (folder / "a.txt").unlink()
    becomes(engine, {"deeper/b.txt": "beta", "deeper/moved.txt": "new"})


def test_a_dropped_branch_is_made_again_with_a_record_of_every_file(engine: Engine, start: Start, folder: Path) -> None:
    start(rescan_s=600)
    engine.drop_branch("main")
    (folder / "a.txt").write_text("edited")
    wait_until(lambda: "main" in [info.name for info in engine.branches()])
    becomes(engine, {"a.txt": "edited", "deep/b.txt": "beta"})
    engine.drop_branch("main")
    engine.create_branch("main")  # by another program, before the mirror has noticed
    (folder / "a.txt").write_text("again")
    becomes(engine, {"a.txt": "again", "deep/b.txt": "beta"})


def test_the_replacement_of_a_file_is_an_edit(engine: Engine, start: Start, folder: Path) -> None:
    start(rescan_s=600)
    (folder / ".a.txt.swp").write_text("saved")
    (folder / ".a.txt.swp").replace(folder / "a.txt")
    becomes(engine, {"a.txt": "saved", "deep/b.txt": "beta"})


def test_a_file_may_become_a_folder_and_a_file_again(
    engine: Engine, start: Start, folder: Path, tmp_path: Path
) -> None:
    start(rescan_s=600)
    (folder / "a.txt").unlink()
    (folder / "a.txt").mkdir()
    (folder / "a.txt" / "inside").write_text("inside")
    becomes(engine, {"a.txt/inside": "inside", "deep/b.txt": "beta"})
    (folder / "a.txt").rename(tmp_path / "away")
    (folder / "a.txt").write_text("a file again")
    becomes(engine, {"a.txt": "a file again", "deep/b.txt": "beta"})


def test_a_tree_may_move_in_and_out(engine: Engine, start: Start, folder: Path, tmp_path: Path) -> None:
    start(rescan_s=600)
    tree = tmp_path / "tree"
    (tree / "x" / "y").mkdir(parents=True)
    (tree / "x" / "y" / "z.txt").write_text("z")
    tree.rename(folder / "tree")
    becomes(engine, {"a.txt": "alpha", "deep/b.txt": "beta", "tree/x/y/z.txt": "z"})
    (folder / "tree").rename(tree)
    becomes(engine, {"a.txt": "alpha", "deep/b.txt": "beta"})


def test_a_scan_finds_changes_without_a_notice(
    engine: Engine, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", lambda *_, **__: None)
    start(rescan_s=0.1)
    (folder / "deep" / "b.txt").unlink()
    (folder / "c.txt").write_text("gamma")
    becomes(engine, {"a.txt": "alpha", "c.txt": "gamma"})


def test_gitignore_has_the_rules_of_git_and_its_changes_take_effect(engine: Engine, start: Start, folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\n!keep.log\n/top.txt\nbuild/\n")
    (folder / "deep" / ".gitignore").write_text("!special.log\nb.txt\n")
    for name in ("x.log", "keep.log", "top.txt", "deep/top.txt", "deep/special.log", "build/out.txt", "build/keep.log"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    mirror = start(rescan_s=600)
    wanted = {"keep.log", "deep/top.txt", "deep/special.log", "a.txt", ".gitignore", "deep/.gitignore"}
    assert set(held(engine)) == wanted
    assert mirror.status().skipped == {"ignored": 4}
    (folder / "y.log").write_text("ignored as well")
    (folder / "build" / "late.txt").write_text("ignored as well")
    (folder / ".gitignore").write_text("keep.log\n")
    wait_until(lambda: {"x.log", "build/out.txt", "y.log"} <= set(held(engine)) and "keep.log" not in held(engine))
    (folder / "deep" / ".gitignore").unlink()
    wait_until(lambda: "deep/b.txt" in held(engine))


def test_the_patterns_of_the_settings_are_ignored(engine: Engine, start: Start, folder: Path) -> None:
    (folder / "a.md").write_text("md")
    (folder / ".gitignore").write_text("!a.md\n")
    start(ignore=["*.txt", "*.md"])
    assert set(held(engine)) == {"a.md", ".gitignore"}


def test_binary_and_large_files_and_links_are_skipped_and_counted(engine: Engine, start: Start, folder: Path) -> None:
    (folder / "binary").write_bytes(b"\0\1")
    (folder / "large.txt").write_bytes(b"x" * (engine.config.record_size_max_bytes + 1))
    (folder / "latin.txt").write_bytes("é".encode("latin-1"))
    (folder / "link.txt").symlink_to(folder / "a.txt")
    (folder / "linked").symlink_to(folder / "deep")
    mirror = start(rescan_s=600)
    assert held(engine) == {"a.txt": "alpha", "deep/b.txt": "beta", "latin.txt": "é"}
    assert mirror.status().skipped == {"binary": 1, "too large": 1, "symbolic link": 2}
    (folder / "a.txt").write_bytes(b"\0 binary now")
    becomes(engine, {"deep/b.txt": "beta", "latin.txt": "é"})
    (folder / "binary").write_text("text now")
    becomes(engine, {"deep/b.txt": "beta", "latin.txt": "é", "binary": "text now"})
    wait_until(lambda: mirror.status().skipped["binary"] == 1)


def test_records_of_other_prefixes_and_types_stay(engine: Engine, start: Start) -> None:
    from shadowswitch import Put

    others = [Put("file", "other/x", {"text": "x"}), Put("object_type", "docs/y", {"text": "y"})]
    engine.write("main", [*others, Put("file", "docs/old", {"text": "old"})])
    start(prefix="docs/")
    assert set(held(engine)) == {"other/x", "docs/a.txt", "docs/deep/b.txt"}
    assert engine.get("main", "object_type", "docs/y") is not None


def test_a_mirror_waits_for_a_locked_branch(engine: Engine, start: Start, folder: Path) -> None:
    mirror = start(rescan_s=600)
    lock = engine.acquire_lock("main", "MAINTENANCE", "alice")
    (folder / "late.txt").write_text("late")
    wait_until(lambda: mirror.status().error)
    assert "late.txt" not in held(engine)
    engine.release_lock(lock.lock_id, lock.token)
    wait_until(lambda: "late.txt" in held(engine))
    wait_until(lambda: mirror.status().error is None)


def test_a_missing_folder_deletes_nothing(engine: Engine, start: Start, folder: Path, tmp_path: Path) -> None:
    mirror = start(rescan_s=0.1)
    folder.rename(tmp_path / "away")
    wait_until(lambda: mirror.status().error)
    folder.mkdir()  # a mount point without its mount
    wait_until(lambda: "is it mounted" in (mirror.status().error or ""))
    assert held(engine) == {"a.txt": "alpha", "deep/b.txt": "beta"}
    folder.rmdir()
    (tmp_path / "away").rename(folder)
    (folder / "back.txt").write_text("back")
    wait_until(lambda: "back.txt" in held(engine))
    wait_until(lambda: mirror.status().error is None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can list every folder")
def test_an_unreadable_folder_keeps_its_records(engine: Engine, start: Start, folder: Path) -> None:
    mirror = start(rescan_s=0.1)
    (folder / "deep").chmod(0)
    scans = mirror.status().scans
    wait_until(lambda: mirror.status().scans > scans + 1)
    (folder / "deep").chmod(0o700)
    assert "deep/b.txt" in held(engine)


def test_an_unforeseen_error_is_in_the_status_and_the_same_paths_are_tried_again(
    engine: Engine, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(rescan_s=600)

    def broken(*_: object) -> Any:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.MIRROR_READ_FIELDS, broken)
        (folder / "new.txt").write_text("new")
        wait_until(lambda: running.status().error == "a bug")
    wait_until(lambda: "new.txt" in held(engine))
    wait_until(lambda: running.status().error is None)


def test_a_missing_branch_is_created(engine: Engine, start: Start) -> None:
    start(branch="texts")
    assert len(held(engine, "texts")) == 2


def test_a_path_without_a_folder_is_refused(engine: Engine, folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="is not a folder"):
        Mirror(engine, "main", folder / "a.txt").start()


def test_the_data_directory_inside_the_folder_is_not_mirrored(open_engine: OpenEngine, folder: Path) -> None:
    engine = open_engine(folder / "data")
    mirror = Mirror(engine, "main", folder, quiet_s=0.02)
    mirror.start()
    wait_until(lambda: mirror.status().scans)
    (folder / "c.txt").write_text("gamma")
    becomes(engine, {"a.txt": "alpha", "deep/b.txt": "beta", "c.txt": "gamma"})
    mirror.stop()


def test_random_work_on_a_tree_ends_with_branch_and_folder_identical(
    engine: Engine, start: Start, folder: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    start(rescan_s=600)
    for step in range(300):
        _work(folder, chance, step)
    becomes(engine, {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()})


def _work(folder: Path, chance: random.Random, step: int) -> None:
    """One random change of the folder."""
    entries = sorted(folder.rglob("*"))
    files = [path for path in entries if path.is_file()]
    folders = [folder, *(path for path in entries if path.is_dir())]
    kind = chance.random()
    if kind < 0.5 or not files:
        (chance.choice(folders) / f"f{step}.txt").write_text(f"step {step}")
    elif kind < 0.65:
        chance.choice(files).write_text(f"edited {step}")
    elif kind < 0.75:
        chance.choice(files).unlink()
    elif kind < 0.85:
        chance.choice(files).rename(chance.choice(folders) / f"m{step}.txt")
    elif kind < 0.95:
        (chance.choice(folders) / f"d{step}").mkdir()
    elif len(folders) > 1:
        moved = chance.choice(folders[1:])
        moved.rename(folder / f"r{step}")
