"""Copies for programs outside: whole, as of one LSN. Making one leaves the locks of SQLite and LMDB in place."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Engine, SwitchRequest
from shadowswitch.model.digest import Digest
from shadowswitch.storage import failpoints
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.fts5 import store as fts5_store
from shadowswitch.storage.generations import published_path
from shadowswitch.storage.generations.directory import shard_paths
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, crew, fill, found, live, put, wait_until

COPY = SwitchRequest(strategy="COPY_AND_REPLACE")
TAKE_OVER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    print(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0])
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def _no_points_left() -> Iterator[None]:
    yield
    failpoints.plan_points("")


def locks_of(path: Path) -> list[list[str]]:
    """The POSIX locks that this process has on the files below a folder, by the kernel's list."""
    inodes = {str(file.stat().st_ino) for file in path.rglob("*") if file.is_file()}
    lines = [line.split()[1:] for line in Path("/proc/locks").read_text().splitlines()]
    own = [line for line in lines if line[0] == "POSIX" and line[3] == str(os.getpid())]
    return sorted(line for line in own if line[4].split(":")[2] in inodes)


def index_path(engine: Engine) -> Path:
    return Path(engine.index("main", KIND).path)


def copy_again(engine: Engine) -> Path:
    """Publish the live generation as a copy, although it is published already; returns the path of the copy."""
    path = inside.published_path(engine)
    (path / published_path.MARK).unlink(missing_ok=True)
    assert inside.publish(engine, inside.live(engine), "COPY_AND_REPLACE")
    return path


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list its locks")
@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_a_copy_leaves_the_locks_of_the_index_in_place(engine: Engine, backend: str) -> None:
    fill(engine, 200)
    engine.rebuild("main", KIND, TYPES, {"backend": backend}, COPY)
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 200
        before = locks_of(index_path(engine))
        assert before, "no file is locked, so this test proves nothing"
        copy_again(engine)
        assert locks_of(index_path(engine)) == before


def test_no_other_process_can_take_an_index_over_after_it_was_copied(engine: Engine) -> None:
    """Without the locks of SQLite, another process could leave WAL mode under the writer and damage the file."""
    fill(engine, 50)
    engine.rebuild("main", KIND, TYPES, {"shards": 1}, COPY)
    copy_again(engine)
    shard = index_path(engine) / "shard-000" / fts5_store.FILE
    done = subprocess.run([sys.executable, "-c", TAKE_OVER, str(shard)], capture_output=True, text=True, timeout=60)
    assert "locked" in done.stdout, done.stdout + done.stderr
    engine.write("main", [put("after")])
    assert found(engine, "wordafter", min_lsn=engine.head("main")) == {"after"}


OPENED: list[str] = []
LISTENING = threading.Event()


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and LISTENING.is_set() and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED.append(os.fsdecode(arguments[0]))


@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_only_sqlite_and_lmdb_open_their_files_in_the_host(open_engine: Callable[..., Engine], backend: str) -> None:
    """Closing any descriptor of a file drops all POSIX locks of the process on it. The hook notes every open.

    LMDB holds its locks on `lock.mdb`, so `cut_file` may look into `data.mdb`.
    """
    if not OPENED:
        sys.addaudithook(_listen)  # a hook cannot be removed, so it listens only while LISTENING is set
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 200)
    LISTENING.set()
    try:
        for _ in range(2):
            assert engine.rebuild("main", KIND, TYPES, {"backend": backend}, COPY).success
        fill(engine, 50, text="again")
        assert engine.rollback("main", KIND, COPY).success
        assert engine.check() == []
        engine.clean_up()
        engine.close()
        engine = open_engine()
        assert engine.check() == []
    finally:
        LISTENING.clear()
    assert any(name.endswith("manifest.json") for name in OPENED), "the listener noted no open"
    own = [name for name in OPENED if f"{engine.path}/generations/" in name]
    locked = [name for name in own if Path(name).name in (fts5_store.FILE, "lock.mdb")]
    created = inside.catalog(engine).generations()
    assert len(locked) <= (sum(row.shards for row in created) if backend == "fts5" else 0), locked  # made by `create`


def whole(path: Path, shards: int) -> int:
    """Demand that a published copy is sound and of one LSN; returns the count of its records."""
    states = []
    for shard in shard_paths(path, shards):
        assert sorted(file.name for file in shard.iterdir()) == [fts5_store.FILE]
        connection = sqlite3.connect(f"file:{shard / fts5_store.FILE}?mode=ro&immutable=1", uri=True)
        states.append(fts5_store.read_state(connection, shard))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        count = connection.execute("SELECT count(*) FROM docs").fetchone()[0]
        assert count == states[-1].digest.count
        connection.close()
    assert len({state.applied_lsn for state in states}) == 1
    total = Digest()
    for state in states:
        total.merge(state.digest)
    return total.count


def test_a_copy_is_whole_and_of_one_moment_while_writers_write(engine: Engine) -> None:
    fill(engine, 300)
    engine.rebuild("main", KIND, TYPES, {"shards": 3, "parallel_workers": 1}, COPY)
    written = iter(range(1_000_000))

    def write() -> None:
        n = next(written)
        engine.write("main", [put(f"new{n}"), Delete("object_type", str(n % 300))])

    with crew() as hands:
        hands.start(write, 2)
        for _ in range(10):
            assert whole(copy_again(engine), 3) > 0
    assert next(written) > 10
    options = inside.generation(engine, engine.index("main", KIND).generation).row.options
    for shard in shard_paths(copy_again(engine), 3):
        assert registry.backend("fts5").check(shard, options) == []


def test_a_copy_of_a_kv_index_can_be_opened_by_others(engine: Engine) -> None:
    fill(engine, 100)
    engine.rebuild("main", KIND, TYPES, {"backend": "kv", "shards": 2}, COPY)
    path = inside.published_path(engine)
    row = inside.catalog(engine).generations()[-1]
    reader = registry.backend("kv").open_reader(shard_paths(path, row.shards), row.options)
    assert (reader.count(), reader.applied_lsn()) == (100, 100)
    reader.close()
    assert json.loads((path / "manifest.json").read_text())["generation"] == row.number


def test_a_slow_copy_is_never_put_in_the_place_of_a_newer_one(engine: Engine) -> None:
    fill(engine, 50)
    live(engine)
    failpoints.plan_points("publish.copied=sleep:0.7@1")
    slow = threading.Thread(target=lambda: engine.rebuild("main", KIND, TYPES, request=COPY))
    slow.start()
    wait_until(lambda: inside.publish_lock(engine).locked() or not slow.is_alive())
    last = engine.rebuild("main", KIND, TYPES, request=COPY)
    slow.join(60)
    path = inside.published_path(engine)
    assert json.loads((path / "manifest.json").read_text())["generation"] == last.generation


def test_a_path_that_could_not_be_brought_up_to_date_is_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.PUBLISH_AGAIN_S, 0.1)
    fill(engine, 10)
    live(engine)
    failpoints.plan_points("publish.staged=raise:ENOSPC")
    result = engine.rebuild("main", KIND, TYPES)
    assert result.success
    assert "could not be brought up to date" in result.message
    wait_until(lambda: [finding.invariant for finding in engine.check()] == ["IX-7"])  # not while it is tried again
    failpoints.plan_points("")
    link = inside.published_path(engine)
    wait_until(lambda: os.path.realpath(link) == result.new_index_path)
