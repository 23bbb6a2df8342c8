"""The hold of a data directory: nothing that is removed beside a living engine lets a second one in.

An engine whose directory is not its own any more acknowledges nothing, and writes nothing into the one that took its
place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import BuildFailed, DirectoryLost, Engine, EngineAlreadyOpen, Reader, Timeout
from shadowswitch.storage.catalog.environment import Catalog
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, live, outside_environment, put, wait_until

Open = Callable[..., Engine]
READERS = 5
OPENER = """
import sys
from shadowswitch import Engine, EngineAlreadyOpen
try:
    Engine.open(sys.argv[1])
except EngineAlreadyOpen as error:
    print(error.holder.get("pid"))
"""


def opened_elsewhere(data: Path) -> str:
    """What another process prints when it opens a directory: the pid of the holder, or nothing when it got in."""
    command = [sys.executable, "-c", OPENER, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=outside_environment(), timeout=120, check=True)
    return done.stdout.strip()


def swap_for_copy(path: Path) -> None:
    """Move a directory, or a file, aside and put a copy of it in its place."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    if aside.is_dir():
        shutil.copytree(aside, path, symlinks=True)
    else:
        shutil.copy2(aside, path)


def is_retiring(engine: Engine, number: int) -> bool:
    row = inside.catalog(engine).generation(number)
    return row is not None and row.role == "retiring"


def refused(engine: Engine) -> DirectoryLost:
    with pytest.raises(DirectoryLost) as caught:
        engine.write("main", [put("late")])
    assert caught.value.hint
    assert "late" not in {change.id for change in engine.changes("main")}
    return caught.value


def wait_until_lost(engine: Engine) -> None:
    """Write until the engine has looked at all parts again: it does at some commits, and at each after a pause."""

    def is_lost() -> bool:
        try:
            engine.write("main", [put("early")])
        except DirectoryLost:
            return True
        return False

    wait_until(is_lost, 30.0)


@pytest.fixture
def host(open_engine: Open) -> Engine:
    """An open engine with a branch, ten records and an index, whose directory a test takes away."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    return engine


@pytest.mark.parametrize("names", [["LOCK"], ["LOCK", "HOST", "catalog/lock.mdb"], ["catalog/lock.mdb"]])
def test_no_second_engine_opens_what_a_living_one_holds_whatever_was_removed(
    host: Engine, data_dir: Path, names: list[str]
) -> None:
    for name in names:
        (data_dir / name).unlink(missing_ok=True)
    assert opened_elsewhere(data_dir) == str(os.getpid())
    with pytest.raises(EngineAlreadyOpen):
        Engine.open(data_dir)
    assert not (data_dir / "LOCK").exists() or "LOCK" not in names, "an engine that was refused leaves no file"


def test_the_directory_is_held_by_any_of_its_names(host: Engine, data_dir: Path) -> None:
    other = data_dir.with_name("alias")
    other.symlink_to(data_dir)
    (data_dir / "LOCK").unlink()
    assert opened_elsewhere(other) == str(os.getpid())


@pytest.mark.parametrize("name", ["LOCK", "catalog/data.mdb", "catalog/lock.mdb", "catalog", "."])
@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_an_engine_that_lost_a_part_of_its_directory_acknowledges_nothing_more(
    host: Engine, data_dir: Path, name: str, how: str
) -> None:
    part = data_dir / name
    if how == "replaced":
        swap_for_copy(part)
    elif how == "renamed":
        part.rename(part.with_name(part.name + ".aside"))
    else:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    if name in ("LOCK", "catalog/lock.mdb"):
        wait_until_lost(host)
    refused(host)
    with host.reader("main", KIND) as reader:
        assert reader.count() >= 10, "what is open is still read"


def test_an_ancestor_that_moves_takes_the_directory_away(open_engine: Open, tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "disk" / "data", sound=False)
    engine.create_branch("main")
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert str(tmp_path / "disk" / "data") in refused(engine).message


def test_a_part_that_comes_back_does_not_let_the_engine_go_on(host: Engine, data_dir: Path, open_engine: Open) -> None:
    lock, aside = data_dir / "LOCK", data_dir / "LOCK.aside"
    lock.rename(aside)
    wait_until_lost(host)
    aside.rename(lock)
    refused(host)
    host.close()
    again = open_engine()
    assert again.write("main", [put("late")]).lsn == again.head("main")


def test_every_write_of_a_group_is_refused(host: Engine, data_dir: Path) -> None:
    (data_dir / "catalog").rename(data_dir / "catalog.aside")
    for number in range(3):
        with pytest.raises(DirectoryLost):
            host.write("main", [put(str(number), "changed")])
    assert host.head("main") == 10
    with pytest.raises(DirectoryLost):
        host.create_branch("other")


def test_a_lost_directory_is_not_cleaned_up(open_engine: Open, data_dir: Path) -> None:
    """The Janitor goes by paths: generations of the copy that took the place are not the engine's to remove."""
    engine = open_engine(sound=False, soak_s=0.0)
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    with engine.reader("main", KIND) as pinned:
        live(engine)
        wait_until(lambda: is_retiring(engine, pinned.generation), 30.0)
        swap_for_copy(data_dir)
        copied = {path for path in data_dir.rglob("*") if path.is_file()}
    inside.sweep(engine)
    engine.close()
    assert {path for path in data_dir.rglob("*") if path.is_file()} >= copied


def test_a_worker_process_writes_nothing_into_the_directory_that_took_the_place(
    host: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is swapped between the start of a build and the task of its worker."""
    copied: dict[Path, bytes] = {}
    submitted = threading.Event()

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (data_dir / "generations").rglob("*") if path.is_file()}

    def swap(ordinary: Callable[..., int], *given: Any) -> int:
        if not copied:
            swap_for_copy(data_dir)
            copied.update(files())
        number = ordinary(*given)
        submitted.set()
        return number

    inside.wrap(monkeypatch, inside.Step.WORKER_SUBMIT, swap)
    host.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    assert submitted.wait(30.0)
    wait_until(lambda: inside.idle_workers(host) > 0, 30.0)
    assert files() == copied


@pytest.mark.parametrize("how", ["renamed", "replaced"])
def test_a_check_reads_no_directory_that_took_the_place(host: Engine, data_dir: Path, how: str) -> None:
    if how == "replaced":
        swap_for_copy(data_dir)
    else:
        data_dir.rename(data_dir.with_name("away"))
    with pytest.raises(DirectoryLost, match=r"data\.mdb"):
        host.check()


@pytest.mark.parametrize("step", [(lmdb, "open"), (Catalog, "__init__")], ids=["mapped", "opened"])
def test_a_part_that_is_removed_while_the_engine_starts_is_named(
    open_engine: Open, data_dir: Path, step: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the random run: the file goes between two looks of the start at the catalog."""
    owner, name = step
    ordinary = getattr(owner, name)

    def remove_behind(*given: Any, **how: Any) -> Any:
        result = ordinary(*given, **how)
        (data_dir / "catalog" / "lock.mdb").unlink()
        return result

    monkeypatch.setattr(owner, name, remove_behind)
    with pytest.raises(DirectoryLost, match=r"lock\.mdb was removed or renamed"):
        open_engine()
    monkeypatch.undo()
    assert open_engine().branches() == []


def test_a_build_in_a_directory_that_is_gone_is_refused(open_engine: Open, data_dir: Path) -> None:
    """Before its first write the engine looks at the free space there."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    data_dir.rename(data_dir.with_name("away"))
    with pytest.raises(DirectoryLost, match="was removed or renamed"):
        engine.start_build("main", KIND, ["link_type"])
    data_dir.with_name("away").rename(data_dir)


def test_a_build_ends_in_no_directory_that_took_the_place_during_its_validation(
    host: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the random run: the manifest of the finished build was written into the other directory."""
    swapped: list[dict[Path, bytes]] = []

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (data_dir / "generations").rglob("manifest.json")}

    def swap(ordinary: Callable[..., Any], *given: Any) -> Any:
        found = ordinary(*given)
        swap_for_copy(data_dir)
        swapped.append(files())
        return found

    inside.wrap(monkeypatch, inside.Step.VALIDATE_SHADOW, swap)
    shadow = host.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    wait_until(lambda: bool(swapped), 60.0)
    with pytest.raises((DirectoryLost, Timeout, BuildFailed)):
        host.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=3.0)
    assert files() == swapped[0]


@pytest.mark.parametrize("after", [False, True], ids=["before the look", "after the look"])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_generation_is_made_in_no_directory_that_took_the_place_between_its_steps(
    host: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """Found by the random run: each step takes a commit's time, and the next file went into the other directory."""
    kept: list[set[Path]] = []

    def files() -> set[Path]:
        return set((data_dir / "generations").rglob("*"))

    def make(ordinary: Callable[..., Any], *given: Any) -> Any:
        looks: list[int] = []
        earlier = data_dir.with_name("earlier")
        shutil.copytree(data_dir, earlier)

        def check() -> None:
            looks.append(1)
            if after:
                given[-1]()
            if len(looks) == step:
                data_dir.rename(data_dir.with_name("aside"))
                earlier.rename(data_dir)
                kept.append(files())
            if not after:
                given[-1]()

        return ordinary(*given[:-1], check)

    inside.wrap(monkeypatch, inside.Step.MAKE_GENERATION, make)
    with contextlib.suppress(DirectoryLost, Timeout):
        host.start_build("main", KIND, ["object_type"], {"shards": 2})
    wait_until(lambda: bool(kept), 60.0)
    with pytest.raises(DirectoryLost):
        host.write("main", [put("late")])
    assert files() == kept[0]


@pytest.mark.parametrize("index", [KIND, "GRAPH_INDEX"])
def test_what_took_the_place_of_a_directory_is_not_read(open_engine: Open, data_dir: Path, index: str) -> None:
    """It is an earlier copy: a reader of it would go back in time, and say that it did not (SW-2)."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    assert engine.rebuild("main", index, TYPES, {"parallel_workers": 1}, timeout_s=60).success
    engine.close()
    earlier = data_dir.with_name("earlier")
    shutil.copytree(data_dir, earlier)
    engine = open_engine(sound=False)
    lsn = fill(engine, 20)
    with contextlib.ExitStack() as opened:
        reader = opened.enter_context(engine.reader("main", index, min_lsn=lsn, timeout_s=60))
        data_dir.rename(data_dir.with_name("aside"))
        earlier.rename(data_dir)
        assert reader.count() == 20, "what is open is still read"
        assert scanned(reader) in (20, "DirectoryLost")
        with pytest.raises(DirectoryLost, match="is another file"):
            readers(engine, index, opened)
    refused(engine)


def readers(engine: Engine, index: str, opened: contextlib.ExitStack) -> None:
    """Open more readers at one moment than the engine keeps idle."""
    for _ in range(READERS):
        opened.enter_context(engine.reader("main", index))


def scanned(reader: Reader) -> int | str:
    """How many records a scan finds, or the name of its error."""
    try:
        return sum(1 for _ in reader.scan())
    except DirectoryLost as error:
        return type(error).__name__


def test_another_process_that_wrote_to_the_catalog_ends_the_writing(host: Engine, data_dir: Path) -> None:
    """As an older version would, which knows no lock but a file that was removed and made again."""
    script = """
import sys, lmdb
env = lmdb.open(sys.argv[1], max_dbs=20, map_size=64 << 30, lib_version=0)
with env.begin(write=True) as txn:
    txn.put(b":last_lsn", (99).to_bytes(8, "big"))
"""
    catalog = str(data_dir / "catalog")
    subprocess.run([sys.executable, "-c", script, catalog], env=outside_environment(), timeout=120, check=True)
    assert "another process has written" in refused(host).message


def test_a_directory_that_an_older_version_holds_is_refused(open_engine: Open, data_dir: Path) -> None:
    open_engine().close()
    held = os.open(data_dir / "LOCK", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(EngineAlreadyOpen):
        Engine.open(data_dir)
    os.close(held)
    wait_until(lambda: open_engine() is not None, 10.0)
