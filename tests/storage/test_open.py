"""Opening a data directory: one holder, after a kill, refused directories, access by other users."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import (
    Config,
    CorruptData,
    Engine,
    EngineAlreadyOpen,
    InvalidConfig,
    ShadowSwitchError,
    UnsupportedFilesystem,
    UnsupportedFormat,
)
from shadowswitch.storage import data_directory, disk
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, found, live, outside_environment, put, wait_until

HOLDER = """
import sys
from shadowswitch import Engine, Put
engine = Engine.open(sys.argv[1])
engine.create_branch("main")
engine.write("main", [Put("object_type", "a", {"text": "from the other process"})])
print("open", flush=True)
sys.stdin.read()
engine.close()
"""


class OtherProcess:
    """A process that has the directory open until its input ends."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=outside_environment(),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"

    def end(self) -> None:
        """Let the process close the engine and end."""
        assert self.process.communicate(timeout=60)[0] == ""
        assert self.process.returncode == 0

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def test_a_second_engine_of_the_same_process_is_refused_and_the_first_goes_on(engine: Engine, data_dir: Path) -> None:
    with pytest.raises(EngineAlreadyOpen) as caught:
        Engine.open(data_dir)
    assert caught.value.holder["pid"] == os.getpid()
    assert str(os.getpid()) in str(caught.value)
    assert engine.write("main", [put("a")]).lsn == 1


def test_a_second_process_is_refused_and_the_error_names_the_holder(open_engine: Any, data_dir: Path) -> None:
    other = OtherProcess(data_dir)
    with pytest.raises(EngineAlreadyOpen) as caught:
        Engine.open(data_dir)
    assert caught.value.holder["pid"] == other.process.pid
    assert caught.value.hint
    other.end()
    engine = open_engine()
    assert engine.get("main", "object_type", "a") is not None


def test_the_directory_of_a_killed_host_opens_at_once(open_engine: Any, data_dir: Path) -> None:
    other = OtherProcess(data_dir)
    other.kill()
    engine = open_engine()
    assert engine.get("main", "object_type", "a") is not None
    assert engine.write("main", [put("b")]).lsn == 2


def test_an_engine_may_be_opened_again_and_again(open_engine: Any) -> None:
    for number in range(4):
        engine = open_engine()
        if number == 0:
            engine.create_branch("main")
            fill(engine, 10)
            live(engine)
        engine.write("main", [put(f"n{number}", f"round{number}")])
        assert found(engine, f"round{number}", min_lsn=engine.head("main")) == {f"n{number}"}
        engine.close()
        engine.close()


def test_two_directories_are_open_side_by_side(open_engine: Any, tmp_path: Path) -> None:
    one, two = open_engine(tmp_path / "one"), open_engine(tmp_path / "two")
    for engine, text in ((one, "first"), (two, "second")):
        engine.create_branch("main")
        engine.write("main", [put("a", text)])
        live(engine)
    assert (found(one, "first"), found(two, "first")) == ({"a"}, set())


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_a_network_file_system_is_refused_unless_a_setting_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    inside.replace(monkeypatch, inside.Step.FILESYSTEM_TYPE, lambda path: kind)
    with pytest.raises(UnsupportedFilesystem, match=kind):
        Engine.open(tmp_path / "data")
    assert not (tmp_path / "data" / data_directory.CATALOG).exists()
    Engine.open(tmp_path / "data", Config(allow_remote_filesystem=True)).close()


def test_the_file_system_of_a_path_is_known() -> None:
    assert disk.filesystem_type(Path("/proc")) == "proc"


def test_no_other_user_can_read_the_files_of_the_directory(engine: Engine, data_dir: Path) -> None:
    fill(engine, 100)
    live(engine)
    live(engine, backend="kv")
    modes = {
        str(path.relative_to(data_dir)): stat.S_IMODE(path.lstat().st_mode)
        for path in data_dir.rglob("*")
        if not path.is_symlink() and "published" not in path.relative_to(data_dir).parts
    }
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    open_to_others = {name: oct(mode) for name, mode in modes.items() if mode & 0o077}
    assert not open_to_others, "other users are kept out by 0700 above, and each file must be closed to them as well"


def test_a_directory_of_another_format_is_refused_and_left_alone(open_engine: Any, data_dir: Path) -> None:
    engine = open_engine()
    engine.close()
    set_meta(data_dir, b":format", b"shadowswitch-9")
    with pytest.raises(UnsupportedFormat, match="shadowswitch-9"):
        Engine.open(data_dir)
    set_meta(data_dir, b":format", b"shadowswitch-2")
    open_engine().create_branch("main")


def set_meta(data: Path, name: bytes, value: bytes) -> None:
    with lmdb.open(str(data / data_directory.CATALOG), max_dbs=20, map_size=1 << 30) as environment:
        with environment.begin(write=True) as txn:
            txn.put(name, value)


def test_the_version_of_lmdb_does_not_depend_on_the_environment(data_dir: Path) -> None:
    environment = outside_environment(LMDB_DEFAULT_LIB_VERSION="1")
    script = (
        "import sys; from shadowswitch import Engine, Put\n"
        "with Engine.open(sys.argv[1]) as e:\n"
        "    e.create_branch('main'); e.write('main', [Put('t', 'a', {})])\n"
        "    assert e.rebuild('main', 'GRAPH_INDEX', ['t'], timeout_s=60).success; assert e.check() == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    with Engine.open(data_dir) as engine:
        assert engine.count("main") == 1


def test_a_garbled_lock_file_does_not_prevent_an_open(open_engine: Any, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / data_directory.LOCK).write_bytes(b"\xff not json")
    open_engine()
    assert json.loads((data_dir / data_directory.LOCK).read_text())["pid"] == os.getpid()


def test_a_symlink_in_the_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / data_directory.GENERATIONS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsupportedFilesystem, match="symbolic link"):
        Engine.open(tmp_path / "data")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_damaged_catalog_is_refused_with_a_clear_error(open_engine: Any, data_dir: Path) -> None:
    open_engine().close()
    path = data_dir / data_directory.CATALOG / "data.mdb"
    content = bytearray(path.read_bytes())
    content[:8192] = b"\xab" * 8192
    path.write_bytes(bytes(content))
    with pytest.raises((CorruptData, UnsupportedFormat)):
        Engine.open(data_dir)
    with pytest.raises((CorruptData, UnsupportedFormat)):  # the lock was released: no EngineAlreadyOpen
        Engine.open(data_dir)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises((ShadowSwitchError, OSError)):
        Engine.open(tmp_path / "data")


@pytest.mark.parametrize(
    "settings",
    [
        {"refresh_interval_ms": 0},
        {"soak_s": -1},
        {"followers": 1.5},
        {"followers": True},
        {"map_size_bytes": 1},
        {"seal_budget_ms": float("nan")},
        {"record_size_max_bytes": 1 << 30},
        {"build_share": 2},
        {"publish_strategy": "HOPE"},
        {"validation_samples": "many"},
    ],
    ids=str,
)
def test_a_senseless_setting_is_refused_before_anything_is_opened(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        Config(**settings)


def test_an_interrupted_build_goes_on_at_the_next_open(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_engine()
    first.create_branch("main")
    fill(first, 3000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.2")
    shadow = first.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    wait_until(lambda: first.shadow(shadow.shadow_index_id).build_progress_percent > 0)
    first.close()
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    second = open_engine()
    second.write("main", [put("0", "changed")])
    assert second.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).record_count == 3000
    assert second.switch(shadow.shadow_index_id).success
    assert found(second, "changed", min_lsn=second.head("main")) == {"0"}
