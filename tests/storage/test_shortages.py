"""What runs out is named, and is never called damage."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import lmdb
import pytest

from shadowswitch import CorruptData, ResourceExhausted, StorageFull
from shadowswitch.storage import data_directory, disk, shortages
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.backend import Fts5Backend
from shadowswitch.storage.disk import disk_errors
from tests.support.engine_helpers import outside_environment
from tests.support.refusing import refuse

BACKEND = Fts5Backend()
OPTIONS = BACKEND.configure({})


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


LACKS: list[tuple[BaseException, str]] = [
    (os_error(errno.EMFILE), "RLIMIT_NOFILE"),
    (os_error(errno.ENFILE), "fs.file-max"),
    (os_error(errno.ENOMEM), "RLIMIT_AS"),
    (os_error(errno.EAGAIN), "RLIMIT_NPROC"),
    (os_error(errno.EACCES), "permission"),
    (MemoryError(), "RLIMIT_AS"),
    (RuntimeError("can't start new thread"), "RLIMIT_NPROC"),
    (lmdb.MemoryError("mdb_env_open: Cannot allocate memory"), "RLIMIT_AS"),
    (lmdb.Error("mdb_env_open: Too many open files"), "RLIMIT_NOFILE"),
    (lmdb.ReadersFullError("mdb_txn_begin"), "reader slots"),
]
FULL: list[BaseException] = [
    os_error(errno.ENOSPC),
    os_error(errno.EDQUOT),
    os_error(errno.EFBIG),
    lmdb.Error("mdb_txn_commit: File too large"),
    lmdb.Error("mdb_txn_commit: Disk quota exceeded"),
    lmdb.DiskError("mdb_txn_commit: No space left on device"),
]
OTHERS: list[BaseException] = [
    os_error(errno.EIO),
    FileNotFoundError(errno.ENOENT, "gone"),
    RuntimeError("dictionary changed size during iteration"),
    lmdb.CorruptedError("mdb_get"),
    CorruptData("damaged"),
    sqlite3.DatabaseError("malformed"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty shard."""
    BACKEND.create_shard(tmp_path / "shard", OPTIONS)
    return tmp_path / "shard"


@pytest.mark.parametrize(("error", "limit"), LACKS, ids=repr)
def test_a_resource_that_cannot_be_had_is_named(error: Exception, limit: str) -> None:
    with pytest.raises(ResourceExhausted) as caught, disk_errors("open"):
        raise error
    assert limit in caught.value.resource
    assert caught.value.recoverable
    assert caught.value.hint
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_a_quota_and_a_limit_of_the_file_size_are_a_full_disk(error: Exception) -> None:
    with pytest.raises(StorageFull, match=r"free disk space|raise the limit"), disk_errors("commit"):
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_another_error_is_no_shortage(error: BaseException) -> None:
    assert shortages.shortage(error) is None


def test_a_shard_that_is_there_and_cannot_be_opened_is_sound(path: Path) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert isinstance(store.translate(error, "open shard", path), ResourceExhausted)
    (path / store.FILE).unlink()
    assert isinstance(store.translate(error, "open shard", path), CorruptData)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_NOMEM, sqlite3.SQLITE_IOERR_SHMMAP])
def test_memory_that_sqlite_cannot_have_is_no_error_of_the_disk(path: Path, code: int) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    found = store.translate(error, "search", path)
    assert isinstance(found, ResourceExhausted)
    assert "RLIMIT_AS" in found.resource


def test_a_write_that_a_limit_cut_short_is_seen_and_one_that_failed_is_another(path: Path) -> None:
    assert shortages.no_room(path, 0) is None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((path / store.FILE).stat().st_size + 4096, before[1]))
    try:
        cause = shortages.no_room(path, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cause is not None
    assert cause.errno == errno.EFBIG
    assert "RLIMIT_FSIZE" in shortages.full(cause, "commit").message


@pytest.mark.parametrize("nth", [1, 2])
def test_a_check_without_a_connection_finds_nothing(path: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, "memory", nth)
        with pytest.raises(ResourceExhausted):
            BACKEND.check(path, OPTIONS)
    assert BACKEND.check(path, OPTIONS) == []
    with closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        assert reader.count() == 0


def test_what_is_not_read_for_lack_of_descriptors_is_not_taken_for_empty(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for look in (
        lambda: disk.directory_size_bytes(path),
        lambda: disk.filesystem_type(path),
        lambda: data_directory.refuse_links(path),
    ):
        with monkeypatch.context() as patch:
            refuse(patch, "descriptor", 1)
            with pytest.raises(ResourceExhausted):
                look()


LITTLE_ROOM = """
import resource
from shadowswitch import ResourceExhausted
from shadowswitch.storage.backends import registry
used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
limit = resource.getrlimit(resource.RLIMIT_AS)
for room in (1 << 20, 40 << 20, 80 << 20, 120 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + room, limit[1]))
    try:
        registry.backend("vector")
    except ResourceExhausted as error:
        print(error.resource)
resource.setrlimit(resource.RLIMIT_AS, limit)
print(registry.backend("vector").name)
"""


def test_a_library_that_would_end_its_process_is_not_loaded_without_room() -> None:
    pytest.importorskip("numpy")
    ran = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM], capture_output=True, text=True, timeout=60, env=outside_environment()
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["memory or address space (RLIMIT_AS, a memory cgroup)"] * 4 + ["vector"]


def test_threads_that_cannot_be_had_are_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    shortages.refuse_without(4, 1 << 20, "load numpy")
    with monkeypatch.context() as patch:
        refuse(patch, "thread", 2)
        with pytest.raises(ResourceExhausted, match="RLIMIT_NPROC"):
            shortages.refuse_without(4, 1 << 20, "load numpy")
    with pytest.raises(ResourceExhausted, match="RLIMIT_AS"):
        shortages.refuse_without(1, 1 << 60, "load numpy")
