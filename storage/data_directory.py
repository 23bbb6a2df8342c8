"""The data directory: what lies where, its exclusive lock, and the file systems it may be on.

LOCK                                    held (flock) by the one engine that has the directory open; says who
catalog/data.mdb, lock.mdb              the LMDB environment
generations/<branch>/<TYPE>/<number>/   one generation: manifest.json, PINS, shard-000/, shard-001/, ...
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import EngineAlreadyOpen, UnsupportedFilesystem
from shadowswitch.model.names import directory_name

CATALOG = "catalog"
GENERATIONS = "generations"
LOCK = "LOCK"
PINS = "PINS"
MANIFEST = "manifest.json"

_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "ncpfs"}
)


def generation_path(branch: str, index_type: str, number: int) -> str:
    """Where a generation lies, relative to the data directory."""
    return f"{GENERATIONS}/{directory_name(branch)}/{index_type}/{number:08d}"


def shard_paths(generation: Path, shards: int) -> list[Path]:
    """The directories of a generation's shards, in order."""
    return [generation / f"shard-{shard:03d}" for shard in range(shards)]


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(root: Path, relative: str) -> Path:
    """Make the directories of `relative` below `root`, durably, without following a symlink out of it."""
    path = root
    for part in Path(relative).parts:
        parent, path = path, path / part
        if path.is_symlink():
            raise _is_link(path)
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(parent)
    return path


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` below `root`; raises UnsupportedFilesystem if a link on the way leads elsewhere."""
    path = root
    for part in Path(relative).parts:
        path = path / part
        if path.is_symlink():
            raise _is_link(path)
    return path


def refuse_links(path: Path) -> None:
    """Raise UnsupportedFilesystem if anything below a directory is a link: nothing outside is read or written."""
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            if os.path.islink(os.path.join(folder, name)):
                raise _is_link(Path(folder, name))


def _is_link(path: Path) -> UnsupportedFilesystem:
    return UnsupportedFilesystem(
        f"{path} is a symbolic link",
        object=str(path),
        hint="remove it and rebuild the index; the data directory owns its tree",
    )


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


LOG_SUFFIXES = ("-wal", "-shm", ".lock")
"""Files whose size says how busy an index is, not how large."""


def directory_size_bytes(path: Path, logs: bool = True) -> int:
    """The bytes that the files below a directory occupy on disk, with or without write-ahead logs.

    Files that vanish meanwhile count as nothing.
    """
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            if not logs and name.endswith(LOG_SUFFIXES):
                continue
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512
    return total


def boot_id() -> str:
    """Identifies this boot of the machine: when it changes, a power cut may lie between."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write to the file system that holds `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def filesystem_type(path: Path) -> str:
    """The type of the file system that holds `path`, by /proc/self/mountinfo; "" where that cannot be read."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""


def refuse_remote(path: Path) -> None:
    """Raise UnsupportedFilesystem if `path` is on a network or FUSE file system."""
    kind = filesystem_type(path)
    if kind in _REMOTE or kind.startswith("fuse."):
        raise UnsupportedFilesystem(
            f"{path} is on a {kind} file system, where memory maps and locks are not reliable",
            operation="open",
            object=str(path),
            hint="use a local disk, or set Config(allow_remote_filesystem=True) at your own risk",
        )


class DirectoryLock:
    """The exclusive hold on a data directory. The kernel drops it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock, or raise EngineAlreadyOpen naming the holder."""
        self._descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = read_holder(self._descriptor)
            os.close(self._descriptor)
            raise EngineAlreadyOpen(
                f"{path} is open in process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                f" ({holder.get('command', 'unknown command')}, since {holder.get('since', '?')})",
                holder=holder,
                operation="open",
                object=str(path),
                hint="close that engine first, or use the reading commands, which work beside it",
            ) from error
        except BaseException:
            os.close(self._descriptor)
            raise
        self._write_holder()

    def _write_holder(self) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:200], "since": since}
        data = json.dumps(holder).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def read_holder(descriptor: int) -> dict[str, Any]:
    """What the holder of a LOCK file wrote into it; empty when it cannot be read."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


@contextlib.contextmanager
def shared_pin(generation: Path) -> Iterator[None]:
    """Pin a generation from any process: a shared lock on its PINS file, which dies with the process.

    Raises FileNotFoundError when the generation is already gone. Whoever pins must look at the catalog again
    afterwards: a generation marked for removal before the lock was taken may be removed all the same (SW-5).
    """
    descriptor = os.open(generation / PINS, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def pinned_elsewhere(generation: Path) -> bool:
    """Does a reader in any process hold the PINS file? Only meaningful after the removal was marked in the catalog."""
    try:
        descriptor = os.open(generation / PINS, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
