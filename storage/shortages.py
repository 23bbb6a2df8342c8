"""Shortages: a resource that cannot be had, as an error of this library. A shortage is never damage.

    no room                 ENOSPC, EDQUOT, EFBIG (RLIMIT_FSIZE)                             StorageFull
    everything else         EMFILE, ENFILE, ENOMEM, EAGAIN, EACCES, ...; MemoryError;        ResourceExhausted
                            "can't start new thread"; reader slots of LMDB

Libraries hide some of them. LMDB returns EIO for a write that was cut short, and SQLite says SQLITE_IOERR for a quota
and "unable to open database file" for EMFILE: `no_room` and `unopened` look for the cause.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb

from shadowswitch.model.errors import ResourceExhausted, ShadowSwitchError, StorageFull

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_THREAD = "can't start new thread"
"""The text of Python's RuntimeError."""
PROBE_BYTES = 64 << 20
"""As much as one write of LMDB may have: a file that can grow by that was not cut short for lack of room."""

_SLOTS = -1
_FREE_SPACE = "free disk space; the write that failed stored nothing"
_PERMISSION = ("permission of the user of this process", "give this user access to the files of the data directory")
_RESOURCES: dict[int, tuple[str, str]] = {
    errno.EMFILE: ("open files of this process (RLIMIT_NOFILE)", "close readers, or raise the limit (ulimit -n)"),
    errno.ENFILE: ("open files of this machine (fs.file-max)", "close files, or raise the limit (sysctl fs.file-max)"),
    errno.ENOMEM: (
        "memory or address space (RLIMIT_AS, a memory cgroup)",
        "free memory, raise the limit (ulimit -v), or choose a smaller Config.map_size_bytes or map_size_mib",
    ),
    errno.EAGAIN: (
        "threads and processes (RLIMIT_NPROC, a pids cgroup)",
        "end threads or processes of this user, or raise the limit (ulimit -u)",
    ),
    errno.ENOLCK: ("file locks of this machine", "end programs that lock files"),
    errno.EROFS: ("a writable file system", "mount the file system of the data directory writable"),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    _SLOTS: ("reader slots of LMDB (read transactions at one moment)", "use fewer threads that read at one moment"),
}
_NUMBERS = {errno.EMFILE: resource.RLIMIT_NOFILE, errno.ENOMEM: resource.RLIMIT_AS, errno.EAGAIN: resource.RLIMIT_NPROC}


def shortage(error: BaseException, operation: str = "", object: str = "") -> StorageFull | ResourceExhausted | None:
    """The error of this library for an error that says that a resource cannot be had; None for any other error."""
    if isinstance(error, ShadowSwitchError):
        return error if isinstance(error, StorageFull | ResourceExhausted) else None
    code = _code(error)
    if code in NO_ROOM:
        return full(error, operation, object)
    return exhausted(code, error, operation, object) if code in _RESOURCES else None


def is_permission(error: BaseException | None) -> bool:
    """Is a missing permission the lack that this error names? It says something of one file, not of the machine."""
    return isinstance(error, ResourceExhausted) and error.resource == _PERMISSION[0]


def raise_shortage(error: OSError) -> None:
    """For `os.walk`: a folder that is not listed for lack of a resource is not an empty one."""
    lack = shortage(error, "list a folder", str(error.filename or ""))
    if lack is not None:
        raise lack from error


def passing(error: OSError, operation: str, object: str = "") -> StorageFull | ResourceExhausted | None:
    """As `shortage`, for a file of another program: a permission that is missing is the affair of that file."""
    return None if error.errno in (errno.EACCES, errno.EPERM) else shortage(error, operation, object)


def full(error: BaseException, operation: str, object: str = "") -> StorageFull:
    """StorageFull, with the limit that the error names."""
    code = _code(error)
    what, hint = "the disk is full", _FREE_SPACE
    if code == errno.EDQUOT:
        what, hint = (
            "the disk quota is used up",
            "free disk space or raise the quota; the write that failed stored nothing",
        )
    elif code == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        what = f"the disk is full for this process, a file may have {limit} bytes (RLIMIT_FSIZE)"
        hint = "raise the limit (ulimit -f), and try again; what did not fit was not stored"
    return StorageFull(f"{what}: {error}", operation=operation, object=object, hint=hint, cause=error)


def exhausted(code: int, error: BaseException, operation: str, object: str = "") -> ResourceExhausted:
    """ResourceExhausted for an errno, with the limit and its present value."""
    name, hint = _RESOURCES[code]
    limit = resource.getrlimit(_NUMBERS[code])[0] if code in _NUMBERS else resource.RLIM_INFINITY
    number = f", now {limit}" if limit != resource.RLIM_INFINITY else ""
    return ResourceExhausted(
        f"a resource cannot be had, {name}{number}: {str(error) or type(error).__name__}",
        resource=name,
        operation=operation,
        object=object,
        hint=f"{hint}; nothing was changed, try again",
        cause=error,
    )


@contextlib.contextmanager
def shortages(operation: str, object: str = "") -> Iterator[None]:
    """Raise a shortage as the error of this library; every other error stays."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, lmdb.Error) as error:
        lack = shortage(error, operation, object)
        if lack is None or isinstance(error, ShadowSwitchError):
            raise
        raise lack from error


def no_room(folder: Path, free_bytes_min: int) -> OSError | None:
    """Why a write to a file in `folder` was cut short, if that was for lack of room: disk, quota or RLIMIT_FSIZE.

    An unnamed file tries to have room behind the end of the largest file.
    """
    try:
        found = os.statvfs(folder)
        if found.f_bavail * found.f_frsize < free_bytes_min:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with os.scandir(folder) as entries:
            end = max((entry.stat(follow_symlinks=False).st_size for entry in entries), default=0)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            os.posix_fallocate(probe.fileno(), end, PROBE_BYTES)
    except OSError as error:
        return error if error.errno in NO_ROOM else None
    return None


def refuse_without(threads: int, size_bytes: int, operation: str) -> None:
    """Raise ResourceExhausted unless so many threads more, and so much address space, can be had now.

    Before the import of a library that ends its process without them.
    """
    ended = threading.Event()
    with shortages(operation):
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
        started: list[threading.Thread] = []
        try:
            for _ in range(threads):
                thread = threading.Thread(target=ended.wait, daemon=True)
                thread.start()
                started.append(thread)
        finally:
            ended.set()
            for thread in started:
                thread.join()


def unopened(file: Path, *beside: Path) -> OSError | None:
    """Why a file that is there could not be opened, or one of the files beside it. None: it is not there, or no file.

    The descriptor that was missing may be free again, so a file without another cause counts as one too many.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode) or any(os.path.lexists(one) and not one.is_file() for one in beside):
            return None
        if not os.access(file, os.R_OK):
            return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error if error.errno in _RESOURCES else None
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(file))


def _code(error: BaseException) -> int:
    """The errno that an error of Python, LMDB or the operating system stands for; 0 for any other error."""
    if isinstance(error, MemoryError | lmdb.MemoryError):
        return errno.ENOMEM
    if isinstance(error, lmdb.ReadersFullError | lmdb.TlsFullError):
        return _SLOTS
    if isinstance(error, lmdb.DiskError):
        return errno.ENOSPC
    if isinstance(error, lmdb.Error):
        text = str(error)
        return next((code for code in (*NO_ROOM, *_RESOURCES) if code > 0 and os.strerror(code) in text), 0)
    if isinstance(error, OSError):
        return error.errno or 0
    return errno.EAGAIN if isinstance(error, RuntimeError) and NO_THREAD in str(error) else 0
