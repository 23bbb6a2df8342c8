"""Files opened by descriptor: no symbolic link below a folder is followed, and nothing but a regular file is read.

A path may lead elsewhere between a look at it and its opening. So each name is opened relative to the descriptor of its
folder, and what was opened is looked at by its own descriptor. A FIFO or a device never holds the caller.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LINK_ERRORS = frozenset({errno.ELOOP, errno.ENOTDIR})
"""The kernel's answers to an opening that met a symbolic link, or a file in the place of a folder."""


class NotRegular(OSError):
    """What was opened is a FIFO, a device, a socket or a folder."""


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Yields a descriptor, and closes it."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_folder(folder: Path, below: PurePath = PurePath(), follow: bool = True) -> Iterator[int]:  # noqa: B008
    """Yields the descriptor of a folder, or of one `below` it. `follow`: the first folder itself may be a link."""
    descriptor = os.open(folder, _FOLDER | (0 if follow else os.O_NOFOLLOW))
    try:
        for name in below.parts:
            above, descriptor = descriptor, -1
            with closing(above):
                descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def opened_below(folder: Path, relative: PurePath) -> Iterator[int]:
    """Yields the descriptor of a regular file below a folder. Raises OSError; NotRegular."""
    with opened_folder(folder, relative.parent) as above, opened(relative.name, above) as descriptor:
        yield descriptor


@contextlib.contextmanager
def opened(path: str | Path, folder: int | None = None, follow: bool = False) -> Iterator[int]:
    """Yields the descriptor of a regular file, to read. Raises OSError; NotRegular."""
    flags = _FILE | (0 if follow else os.O_NOFOLLOW)
    with closing(os.open(path, flags, dir_fd=folder)) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
        yield descriptor


def read(descriptor: int, size_max_bytes: int) -> bytes:
    """The first bytes of an open file."""
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(size_max_bytes)


def write_new(name: str, data: bytes, folder: int) -> None:
    """Make a file in an open folder, with mode 0600, and force it to disk. Raises FileExistsError."""
    descriptor = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def is_there(name: str, folder: int) -> bool:
    """Has an open folder an entry of this name, of any kind?"""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
