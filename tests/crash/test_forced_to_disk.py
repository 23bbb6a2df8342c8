"""The library forces a file to disk before it calls the file durable. The system calls of a run, in order, show it.

A power-cut test sees a missing fsync only where nothing else forces the same file soon after. These tests look for the
fsync of each file and of each folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

from tests.crash import tracing
from tests.crash.running import Scene

MISSING = tracing.missing()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

FORCING = {"fsync", "fdatasync"}
CHANGING = {
    "write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "sendfile", "copy_file_range", "openat",
    "mkdir", "mkdirat", "unlink", "unlinkat", "symlink", "symlinkat", "rename", "renameat", "renameat2",
}  # fmt: skip
_CALL = re.compile(r"\d+\s+(\w+)\((.*)")
_PATH = re.compile(r'[<"](/[^>"]+)[>"]')

PUBLISHING = """
import sys
from shadowswitch import Config, Engine, Put, SwitchRequest

with Engine.open(sys.argv[1], Config(janitor_interval_s=3600)) as engine:
    engine.create_branch("main")
    engine.write("main", [Put("object_type", str(n), {"text": "hello"}) for n in range(50)])
    for strategy in ("COPY_AND_REPLACE", "COPY_AND_REPLACE", "ATOMIC_RENAME", "ATOMIC_RENAME"):
        result = engine.rebuild(
            "main", "SEARCH_INDEX", ["object_type"], {"shards": 2, "parallel_workers": 1, "backend": sys.argv[2]},
            SwitchRequest(strategy=strategy),
        )
        assert result.success, result.message
"""

FLUSHING = """
import os, sqlite3, sys
from pathlib import Path
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends import registry

shard, marker = Path(sys.argv[1], "shard-000"), os.open(sys.argv[1] + "/marker", os.O_WRONLY | os.O_CREAT)
backend = registry.backend(sys.argv[2])
options = backend.configure({})

def items(first, count):
    return [
        Item(n, "object_type", str(n), key_hash("object_type", str(n)), {"text": "hello"})
        for n in range(first, first + count)
    ]

backend.create_shard(shard, options)
writer = backend.open_writer(shard, options)
writer.finish_load(0)
writer.flush()
if sys.argv[2] == "fts5":  # a reader of an old state keeps SQLite from a checkpoint, which would force the log as well
    reader = sqlite3.connect(shard / "shard.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM docs").fetchall()
for turn in range(3):
    writer.apply(items(turn * 10 + 1, 10), turn * 10 + 10)
    os.write(marker, b"flush")
    assert writer.flush() == turn * 10 + 10
    os.write(marker, b"flushed")
"""


class Call(msgspec.Struct, frozen=True):
    """One system call: its name, its paths (also those of descriptors), its arguments as strace prints them."""

    name: str
    paths: list[str]
    text: str

    @property
    def creates(self) -> bool:
        return self.name != "openat" or "O_CREAT" in self.text or "O_TRUNC" in self.text


def calls_of(folder: Path, script: str, *arguments: str) -> list[Call]:
    """Run a script on `folder/data` under strace; the calls on that folder, in order."""
    scene = Scene(folder)
    scene.data.mkdir()
    command = [sys.executable, "-c", script, str(scene.data), *arguments]
    trace = folder / "trace"
    ended = scene.run(tracing.traced(command, trace, ",".join(sorted(FORCING | CHANGING)), "-y", "-s", "200"), {})
    assert ended.status == 0, f"{ended.status}: {ended.output}{ended.errors}"
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is not None and " = -1 " not in line:
            found.append(Call(call[1], _PATH.findall(call[2]), call[2]))
    return [call for call in found if any(path.startswith(str(scene.data)) for path in call.paths)]


def is_forced(calls: list[Call], path: str) -> bool:
    """Was the last change of a file, or of the names in a folder, followed by an fsync of it?"""
    forced = False
    for call in calls:
        if call.name in FORCING and path in call.paths[:1]:
            forced = True
        elif call.name in CHANGING and call.creates:
            own = path in call.paths and call.name not in ("rename", "renameat", "renameat2")
            named = any(str(Path(other).parent) == path for other in call.paths) and call.name not in WRITES
            forced = forced and not (own or named)
    return forced


WRITES = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "sendfile", "copy_file_range"}
"""Calls that change the content of a file, and no name."""


def files_below(calls: list[Call], folder: str) -> set[str]:
    """The files and folders below a folder that a run made."""
    made = {path for call in calls if call.name in CHANGING and call.creates for path in call.paths}
    gone = {path for call in calls if call.name in ("unlink", "unlinkat", "rename") for path in call.paths[:1]}
    return {path for path in made - gone if path.startswith(f"{folder}/")}


@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_a_published_copy_is_on_disk_with_its_folders_before_it_is_put_in_place(tmp_path: Path, backend: str) -> None:
    calls = calls_of(tmp_path, PUBLISHING, backend)
    path = str(tmp_path / "data" / "published" / "main" / "SEARCH_INDEX")
    staging = str(tmp_path / "data" / "published" / ".staging")
    puts = [n for n, call in enumerate(calls) if call.name.startswith("rename") and call.paths[-1] == path]
    assert len(puts) == 4, "each switch puts a copy in place"
    for nth, at in enumerate(puts):
        staged = next(one for one in calls[at].paths if one.startswith(staging))
        begun = puts[nth - 1] if nth else 0
        before, made = calls[begun:at], files_below(calls[begun:at], staged)
        if nth < 2:
            names = {Path(one).name for one in made}
            assert {"GENERATION", "manifest.json", "shard-000", "shard-001"} <= names, "no copy was seen"
            unforced = sorted(one for one in {staged, *made} if not is_forced(before, one))
            assert not unforced, f"put in place before it was on disk: {unforced}"
        assert is_forced(before, staging), "the name of the staged copy is not on disk"
        rest = calls[at : puts[nth + 1]] if nth + 1 < len(puts) else calls[at:]
        forced = [call for call in rest if call.name in FORCING and call.paths[0] == str(Path(path).parent)]
        assert forced, "the name of the copy in place is not on disk"


def test_the_folder_of_the_published_paths_is_on_disk_before_a_path_is_put_in_place(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, PUBLISHING, "fts5")
    folder = tmp_path / "data" / "published"
    path = str(folder / "main" / "SEARCH_INDEX")
    made = next(n for n, call in enumerate(calls) if call.name.startswith("mkdir") and call.paths[-1] == str(folder))
    put = next(n for n, call in enumerate(calls) if call.name.startswith("rename") and call.paths[-1] == path)
    forced = [call for call in calls[made:put] if call.name in FORCING and call.paths[0] == str(folder.parent)]
    assert forced, "the name of the folder is not on disk"


@pytest.mark.parametrize(("backend", "log"), [("fts5", "shard-000/shard.sqlite-wal"), ("kv", "shard-000/kv/data.mdb")])
def test_a_flush_forces_applied_changes_to_disk_before_it_returns(tmp_path: Path, backend: str, log: str) -> None:
    calls = calls_of(tmp_path, FLUSHING, backend)
    marks = [n for n, call in enumerate(calls) if call.name == "write" and call.paths[0].endswith("/marker")]
    assert len(marks) == 6
    written = str(tmp_path / "data" / log)
    begin = 0
    for flush, flushed in zip(marks[::2], marks[1::2], strict=True):
        applied = [n for n in range(begin, flush) if calls[n].name in WRITES and written in calls[n].paths]
        assert applied or backend == "kv", "no call wrote, so this test proves nothing"
        forced = [n for n in range(flush, flushed) if calls[n].name in FORCING and written in calls[n].paths]
        assert forced, f"a flush returned, and {log} was not forced to disk"
        begin = flushed


OPENING = """
import sys
from shadowswitch import Engine

with Engine.open(sys.argv[1] + "/new/host") as engine:
    engine.create_branch("main")
"""


def test_a_new_data_directory_is_on_disk_with_each_folder_above_it(tmp_path: Path) -> None:
    calls, made = calls_of(tmp_path, OPENING), tmp_path / "data" / "new"
    for folder in (made, made / "host"):
        at = next(n for n, call in enumerate(calls) if call.name == "mkdir" and str(folder) in call.paths)
        forced = [call for call in calls[at:] if call.name in FORCING and call.paths[0] == str(folder.parent)]
        assert forced, f"the name of {folder} is not on disk"
