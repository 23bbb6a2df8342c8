"""The data directory: where its parts lie, and the exclusive hold of it.

    .                                       flock of the one engine that has the directory open
    LOCK                                    its second flock, which older versions know; names its process
    catalog/data.mdb, lock.mdb              the LMDB environment, see `storage.catalog.environment`
    generations/<branch>/<TYPE>/<number>/   one generation, see `storage.generations.directory`
    embeddings/<embedder>.sqlite            vectors of texts, which may be lost, see `storage.kept_vectors`

The engine owns this tree: no function of this module follows a symbolic link out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import CorruptData, DirectoryLost, EngineAlreadyOpen, UnsupportedFilesystem
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.cut_file import is_empty
from shadowswitch.storage.disk import Identity, identity, of_descriptor
from shadowswitch.storage.shortages import raise_shortage

CATALOG = "catalog"
DATA_FILE = "data.mdb"
"""Of the catalog: the file that holds every record."""
GENERATIONS = "generations"
EMBEDDINGS = "embeddings"
LOCK = "LOCK"
EXPOSED = "with that they can change every record and run code"
"""The consequence of a data directory that other users may write."""
NO_FLOCK = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)
"""From a file system that cannot lock a directory."""
CHECK_INTERVAL_S = 0.02
MADE_BY_MKFS = "lost+found"
"""No branch has a directory of this name: `+` is encoded."""
_NOTHING_STORED = "nothing more is stored; "
_IS_ANOTHER = "is another file than the one that was opened"


def make_directories(root: Path, relative: str, check: Callable[[], None] | None = None) -> Path:
    """Make the directories of `relative` below `root`, durably. Raises UnsupportedFilesystem for a symbolic link.

    `check` raises where `root` is not the engine's; the directory that was there before it is the one that is filled,
    by its descriptor, whatever takes its place meanwhile.
    """
    path = root
    above = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if check is not None:
            check()
        for part in Path(relative).parts:
            path = path / part
            below = _open_or_make(above, part, path)
            os.close(above)
            above = below
    finally:
        os.close(above)
    return path


def _open_or_make(above: int, name: str, path: Path) -> int:
    """A descriptor of the directory `name` in the one of descriptor `above`, which is made where it is missing."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
        os.fsync(above)
        return os.open(name, flags, dir_fd=above)
    except OSError:
        if path.is_symlink():
            raise _is_link(path) from None
        raise


def catalog_file(root: Path) -> Path:
    """The file of the catalog."""
    return root / CATALOG / DATA_FILE


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` below `root`. Raises UnsupportedFilesystem if a part of it is a symbolic link."""
    path = root
    for part in Path(relative).parts:
        path = path / part
        if path.is_symlink():
            raise _is_link(path)
    return path


def refuse_lost_catalog(root: Path) -> None:
    """Raise CorruptData where directories of generations lie beside a catalog that is missing or has no entry.

    A catalog is not made anew there: the new one would serve no record and know no generation. A first start that was
    killed left no such directory, because a generation is in the catalog first. Raises OSError, UnsupportedFilesystem.
    """
    data = inside(root, CATALOG) / DATA_FILE
    if not is_empty(data):
        return
    generations = inside(root, GENERATIONS)
    try:
        with os.scandir(generations) as entries:
            held = any(entry.is_dir(follow_symlinks=False) and entry.name != MADE_BY_MKFS for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    if held:
        raise CorruptData(
            f"the catalog is lost: {data} {'is empty' if data.exists() else 'is missing'}, and {generations} holds"
            " the indexes of a catalog with records",
            operation="open",
            object=str(data),
            hint=f"nothing was removed; put {DATA_FILE} back from a backup, or move {generations} away to begin with"
            " an empty catalog",
        )


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
    """The exclusive hold of a data directory. The kernel releases it when the process ends, however it ends.

    The flock on the directory itself cannot be removed beside a living engine, as a file can. The flock on `LOCK` keeps
    an older version out, which knows no other. `check` finds that a part was removed, renamed or replaced all the same.
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM) -> None:
        """Take the directory, or raise EngineAlreadyOpen naming the holder."""
        self._path = path
        self._clock = clock
        self._descriptors: list[int] = []
        self._parts: dict[str, Identity] = {}
        self._checked_at = clock.monotonic()
        try:
            self._take(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = self._take(os.open(path / LOCK, flags, 0o600))
            _write_holder(file, clock)
            self._parts[str(path / LOCK)] = of_descriptor(file)
            self.check()
        except BaseException:
            self.release()
            raise

    def _take(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._already_open(descriptor) from error
        except OSError as error:
            if error.errno not in NO_FLOCK or len(self._descriptors) > 1:
                raise  # a network file system that locks no directory locks files
        return descriptor

    def _already_open(self, descriptor: int) -> EngineAlreadyOpen:
        holder: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            file = os.open(self._path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._descriptors.append(file)
            holder = read_holder(file)
        pids = flock_pids(descriptor)
        holder = holder or ({"pid": pids[0]} if pids else {})
        return EngineAlreadyOpen(
            f"{self._path} is open in process {holder.get('pid', '?')} on {holder.get('host', '?')}"
            f" ({holder.get('command', 'unknown command')}, since {holder.get('since', '?')})",
            holder=holder,
            operation="open",
            object=str(self._path),
            hint="close that engine first, or use the reading commands, which work beside it",
        )

    def watch(self, *files: Path) -> None:
        """From now on `check` compares these files, too; the last one is that which holds the writes.

        Raises DirectoryLost for a file that is not there any more.
        """
        for file in files:
            self._parts[str(file)] = self._found(str(file))

    def check_commit(self) -> None:
        """As `check`, before each commit: between two whole checks only of the file that holds the writes.

        A second engine of this version cannot enter whatever was removed, so the other parts may wait for some commits.
        """
        if self._clock.monotonic() - self._checked_at >= CHECK_INTERVAL_S:
            self.check()
        else:
            self._compare(next(reversed(self._parts)))

    def check(self) -> None:
        """Raise DirectoryLost unless every path still leads to the file that was opened. Any thread.

        A path leads through the directory and its ancestors, so whichever of them is replaced is found.
        """
        self._checked_at = self._clock.monotonic()
        for path in self._parts:
            self._compare(path)

    def _compare(self, path: str) -> None:
        if self._found(path) != self._parts[path]:
            raise _lost(path, _IS_ANOTHER, "commit", self._path, _NOTHING_STORED)

    def _found(self, path: str) -> Identity:
        try:
            return identity(path)
        except (FileNotFoundError, NotADirectoryError):
            raise _lost(path, "was removed or renamed", "commit", self._path, _NOTHING_STORED) from None

    def release(self) -> None:
        """Release the directory. Idempotent."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def refuse_another(
    path: Path, opened: Identity, operation: str, *, first: str = "rebuild the index, or ", missing: bool = False
) -> None:
    """Raise DirectoryLost if a path leads to another file or directory than the one that was opened there.

    What took its place may be older, so a reader of it would go back in time (SW-2). A path that leads to nothing is
    left to the caller, which cannot open it either, unless `missing`. `first` is what the hint begins with.
    """
    try:
        problem = "" if identity(path) == opened else _IS_ANOTHER
    except (FileNotFoundError, NotADirectoryError):
        problem = "was removed or renamed" if missing else ""
    if problem:
        raise _lost(path, problem, operation, path, first)


def _lost(path: str | Path, problem: str, operation: str, object: Path, first: str) -> DirectoryLost:
    return DirectoryLost(
        f"{path} {problem} while the engine had it open",
        operation=operation,
        object=str(object),
        hint=f"{first}close this engine, put back what was moved, and open it again",
    )


def _write_holder(descriptor: int, clock: Clock) -> None:
    since = datetime.fromtimestamp(clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:200], "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def flock_pids(descriptor: int) -> list[int]:
    """The processes that hold an exclusive flock on the file of a descriptor, from /proc/locks."""
    inode = os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        # 1: FLOCK  ADVISORY  WRITE 4242 08:01:1311 0 EOF
        return [int(w[4]) for w in lines if w[1] == "FLOCK" and w[3] == "WRITE" and w[5].endswith(f":{inode}")]
    return []


def read_holder(descriptor: int) -> dict[str, Any]:
    """The entry of the holder in a LOCK file; empty when it cannot be read."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
