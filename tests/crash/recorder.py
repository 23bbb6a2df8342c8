"""A recording disk: one file in a FUSE mount. Every write and flush of it goes into a log. Run as a script:

    python -m tests.crash.recorder MOUNTPOINT IMAGE LOG

ext4 on a loop device uses MOUNTPOINT/disk. The log is a sequence of

    kind (1 byte: 0 write, 1 flush)   offset (8 bytes)   length (4 bytes)   data

and an entry is in the log before the write or flush is answered.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

HEADER = struct.Struct("<BQI")
WRITE, FLUSH = 0, 1
DISK = "disk"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log; `end` is the length of the log with it."""

    kind: int
    offset: int
    data: bytes
    end: int


def read_log(path: Path) -> Iterator[Entry]:
    """All entries of a log."""
    data = path.read_bytes()
    position = 0
    while position < len(data):
        kind, offset, length = HEADER.unpack_from(data, position)
        start = position + HEADER.size
        position = start + length
        yield Entry(kind, offset, data[start:position], position)


def serve(mountpoint: str, image: str, log: str) -> None:
    """Mount and serve until unmounted."""
    mfusepy: Any = import_module("mfusepy")

    class Disk(mfusepy.Operations):  # type: ignore[misc]
        """The file. One thread serves it, so the log has the order of the disk."""

        use_ns = True

        def __init__(self) -> None:
            self.image = os.open(image, os.O_RDWR)
            self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path != f"/{DISK}":
                raise FileNotFoundError(path)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(self.image).st_size}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", DISK]

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(self.image, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            os.write(self.log, HEADER.pack(WRITE, offset, len(data)) + data)
            return os.pwrite(self.image, data, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            os.write(self.log, HEADER.pack(FLUSH, 0, 0))
            return 0

    mfusepy.FUSE(Disk(), mountpoint, foreground=True, nothreads=True, allow_other=False)


if __name__ == "__main__":
    serve(*sys.argv[1:4])
