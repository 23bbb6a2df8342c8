"""The file system: its errors as errors of this library, durable files and directories, sizes, types, the boot."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb

from shadowswitch.model.errors import CorruptData, DirectoryLost, ShadowSwitchError, StorageFull, UnsupportedFilesystem
from shadowswitch.storage.shortages import full, no_room, raise_shortage, shortage, shortages

NEARLY_FULL_BYTES = 256 << 20
"""With less room than this, or than a quarter of its size, a disk may have been full a moment ago."""
REMOTE_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "ncpfs"}
)
_AT_FDCWD, _STATX_INO = -100, 0x100
_INO = struct.Struct("@32xQ96xII")
"""Of `struct statx`, whose layout is that of the kernel on every architecture: inode, major and minor of the device."""
_STATX_BYTES = 256

Identity = tuple[int, int]
"""Device and inode: of two files that exist at a time, two pairs."""


@contextlib.contextmanager
def disk_errors(operation: str, fell_short: Callable[[], OSError | None] = lambda: None) -> Iterator[None]:
    """Turn the errors of LMDB and of the operating system into StorageFull, ResourceExhausted or CorruptData.

    After an EIO, `fell_short` answers whether the disk was merely full, see below.
    """
    try:
        yield
    except lmdb.MapFullError as error:
        raise StorageFull(
            "the catalog's memory map is full",
            operation=operation,
            hint="close the engine and open it with a larger Config.map_size_bytes: a removal needs room, too",
        ) from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
        raise CorruptData(
            f"the catalog is damaged: {error}", operation=operation, hint="restore the data directory from a backup"
        ) from error
    except (lmdb.Error, OSError, MemoryError, RuntimeError) as error:
        lack = None if isinstance(error, ShadowSwitchError) else shortage(error, operation)
        if lack is not None:
            raise lack from error
        code = getattr(error, "code", getattr(error, "errno", None))
        cause = fell_short() if code == errno.EIO else None
        if cause is not None:
            raise full(cause, operation) from cause
        if code == errno.EIO or isinstance(error, lmdb.PanicError):  # after a failed write of its head LMDB panics
            hint = "check the disk, then close and open the engine again"
            raise CorruptData(f"the disk failed: {error}", operation=operation, hint=hint) from error
        raise


def fell_short(witness: int, folder: Path) -> OSError | None:
    """After an EIO from LMDB: why the write merely did not fit in `folder`, or None for a disk that failed.

    `witness` is a descriptor of the catalog's file that LMDB does not use and that was open before the write. LMDB
    returns EIO for a write that fell short, too (`mdb_page_flush`): that transaction is lost, and the next one can
    commit. After a failed writeback no transaction can be trusted: the kernel may have dropped dirty pages. The kernel
    reports such an error once to every descriptor that was open (errseq_t, Linux 4.13 and later).
    """
    try:
        os.fsync(witness)
        room = os.fstatvfs(witness)
    except OSError:
        return None
    return no_room(folder, min(NEARLY_FULL_BYTES, room.f_blocks * room.f_frsize // 4))


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder with the missing ones above it, durably. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


NOT_READ = (errno.EACCES, errno.EPERM, errno.EIO)
"""Errors of a read that say nothing about the bytes that are stored: the next read may succeed."""
READ_BYTES = 1 << 20
CAUSES_MAX = 10


def failed_read(error: BaseException, path: Path) -> OSError | None:
    """The permission or the EIO behind an error of opening what is in a directory; None for any other cause.

    SQLite and LMDB hide the cause, so without one among those of the error the directory is read: see `unreadable`.
    """
    if isinstance(error, UnsupportedFilesystem):
        return None  # a link: nothing behind it is read
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if isinstance(cause, OSError) and cause.errno in NOT_READ:
            return cause
        cause = cause.__cause__ if cause is not None else None
    return unreadable(path)


def unreadable(path: Path) -> OSError | None:
    """Why a folder or a file below a directory cannot be read: a permission, or the disk (EIO). None where all can.

    Reads every byte. No part of the directory may be open in this process: the end of a read drops POSIX locks.
    """
    failed: list[OSError] = []
    for folder, _, names in os.walk(path, onerror=failed.append):
        for name in names:
            try:
                _read_through(os.path.join(folder, name))
            except OSError as error:
                failed.append(error)
    return next((error for error in failed if error.errno in NOT_READ), None)


def _read_through(file: str) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while stat.S_ISREG(os.fstat(descriptor).st_mode) and os.read(descriptor, READ_BYTES):
            pass
    finally:
        os.close(descriptor)


LOG_SUFFIXES = ("-wal", "-shm", ".lock")
"""Files whose size shows the recent work on an index, not the size of the index."""


def directory_size_bytes(path: Path, logs: bool = True) -> int:
    """The bytes that the files below a directory occupy on disk, with or without write-ahead logs.

    A file that is removed during the walk counts 0. Raises ResourceExhausted for a folder that cannot be listed.
    """
    total = 0
    for folder, _, names in os.walk(path, onerror=raise_shortage):
        for name in names:
            if not logs and name.endswith(LOG_SUFFIXES):
                continue
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512
    return total


@functools.cache
def boot_id() -> str:
    """The id of this boot of the machine: a power cut may lie between two different ones."""
    return _boot_id()


@functools.cache
def _boot_id() -> str:
    """Read once for each process. Raises ResourceExhausted: an empty id would say that no power cut can have been."""
    with contextlib.suppress(OSError), shortages("read the id of the boot"):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write to the file system that holds the data directory `path`.

    Raises DirectoryLost when it is gone.
    """
    try:
        found = os.statvfs(path)
    except FileNotFoundError as error:
        raise DirectoryLost(
            f"{path} was removed or renamed while the engine had it open",
            object=str(path),
            hint="close this engine, put back what was moved, and open it again",
        ) from error
    return found.f_bavail * found.f_frsize


def filesystem_type(path: Path) -> str:
    """The type of the file system that holds `path`, from /proc/self/mountinfo; "" where that cannot be read."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with shortages("read the mounts", str(path)):
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
    if kind in REMOTE_FILE_SYSTEMS or kind.startswith("fuse."):
        raise UnsupportedFilesystem(
            f"{path} is on a {kind} file system, where memory maps and locks are not reliable",
            operation="open",
            object=str(path),
            hint="use a local disk, or set Config(allow_remote_filesystem=True) at your own risk",
        )


def identity(path: str | os.PathLike[str]) -> Identity:
    """The identity of a file, or of the file that a link leads to, without letting go of the interpreter. Any thread.

    `os.stat` releases the GIL. A thread that asks between two steps of a commit, beside busy writers, gets it back
    late: that takes a tenth of the time of a small commit. A path in use is in the kernel's cache, so the call itself
    takes some microseconds; for any other path every thread of the process may wait for the disk. Raises OSError.
    """
    return _identity(path)


def of_descriptor(descriptor: int) -> Identity:
    """The identity of an open file."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _by_stat(path: str | os.PathLike[str]) -> Identity:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _by_statx() -> Callable[[str | os.PathLike[str]], Identity]:
    statx = ctypes.PyDLL(None, use_errno=True).statx  # a PyDLL keeps the GIL
    statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)

    def found(path: str | os.PathLike[str]) -> Identity:
        buffer = ctypes.create_string_buffer(_STATX_BYTES)
        if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, buffer):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(path))
        inode, major, minor = _INO.unpack_from(buffer)
        return os.makedev(major, minor), inode

    return found


try:
    _identity = _by_statx()
except (AttributeError, OSError):
    _identity = _by_stat


def reserve(lock_file: Path) -> int:
    """Give LMDB's lock file its blocks. It is sparse and mapped: on a full disk the first reader in a new page of it
    would end the process with SIGBUS. The descriptor stays open as long as the environment, because closing any
    descriptor of a file drops all POSIX locks that the process has on it, LMDB's too."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
