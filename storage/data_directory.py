"""The data directory: where its parts lie, and its exclusive lock.

    LOCK                                    flock of the one engine that has the directory open; names its process
    catalog/data.mdb, lock.mdb              the LMDB environment, see `storage.catalog.environment`
    generations/<branch>/<TYPE>/<number>/   one generation, see `storage.generations.directory`

The engine owns this tree: no function of this module follows a symbolic link out of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import EngineAlreadyOpen, UnsupportedFilesystem
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.shortages import raise_shortage

CATALOG = "catalog"
GENERATIONS = "generations"
LOCK = "LOCK"
EXPOSED = "with that they can change every record and run code"
"""The consequence of a data directory that other users may write."""


def make_directories(root: Path, relative: str) -> Path:
    """Make the directories of `relative` below `root`, durably. Raises UnsupportedFilesystem for a symbolic link."""
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
    """The path of `relative` below `root`. Raises UnsupportedFilesystem if a part of it is a symbolic link."""
    path = root
    for part in Path(relative).parts:
        path = path / part
        if path.is_symlink():
            raise _is_link(path)
    return path


def refuse_links(path: Path) -> None:
    """Raise UnsupportedFilesystem if anything below a directory is a symbolic link."""
    for folder, folders, names in os.walk(path, onerror=raise_shortage):
        for name in (*folders, *names):
            if os.path.islink(os.path.join(folder, name)):
                raise _is_link(Path(folder, name))


def written_by_others(path: Path, consequence: str) -> str:
    """What to do about a folder or a file that other users may write; "" where they may not."""
    mode = path.stat().st_mode & 0o7777
    if not mode & 0o022:
        return ""
    users = "every user of this machine" if mode & 0o002 else "the group"
    return f"{users} may write {path} (mode {mode:04o}): {consequence}; run chmod go-w {path}"


def _is_link(path: Path) -> UnsupportedFilesystem:
    return UnsupportedFilesystem(
        f"{path} is a symbolic link",
        object=str(path),
        hint="remove it and rebuild the index; the data directory owns its tree",
    )


class DirectoryLock:
    """The exclusive lock on a data directory. The kernel releases it when the process ends, however it ends."""

    def __init__(self, path: Path, clock: Clock = SYSTEM) -> None:
        """Take the lock, or raise EngineAlreadyOpen naming the holder."""
        self._descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write_holder(clock)
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

    def _write_holder(self, clock: Clock) -> None:
        since = datetime.fromtimestamp(clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:200], "since": since}
        data = json.dumps(holder).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def read_holder(descriptor: int) -> dict[str, Any]:
    """The entry of the holder in a LOCK file; empty when it cannot be read."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
