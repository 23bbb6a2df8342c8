"""What a disk does to us: its errors in words of ours, and whether it is full or broken."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import lmdb

from shadowswitch.model.errors import CorruptData, StorageFull

NEARLY_FULL_BYTES = 256 << 20
"""A disk with less room than this, or than a quarter of its size, may have been full a moment ago."""


@contextlib.contextmanager
def disk_errors(operation: str, fell_short: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn what LMDB and the operating system raise for the disk into StorageFull or CorruptData.

    `fell_short` is asked after an EIO: whether it stands for a full disk, see below.
    """
    try:
        yield
    except lmdb.MapFullError as error:
        raise StorageFull(
            "the catalog's memory map is full",
            operation=operation,
            hint="open the engine with a larger Config.map_size_bytes, or remove branches",
        ) from error
    except lmdb.DiskError as error:
        raise StorageFull(
            f"the disk refused the data: {error}", operation=operation, hint="free disk space; nothing was stored"
        ) from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
        raise CorruptData(
            f"the catalog is damaged: {error}", operation=operation, hint="restore the data directory from a backup"
        ) from error
    except (lmdb.Error, OSError) as error:
        code = getattr(error, "code", getattr(error, "errno", None))
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"the disk is full: {error}", operation=operation, hint="free disk space") from error
        if code == errno.EIO and fell_short():
            text = "the disk is full: a write of the catalog fell short"
            raise StorageFull(text, operation=operation, hint="free disk space; nothing was stored") from OSError(
                errno.ENOSPC, os.strerror(errno.ENOSPC)
            )
        if code == errno.EIO or isinstance(error, lmdb.PanicError):  # LMDB panics ever after a failed write of its head
            hint = "check the disk, then close and open the engine again"
            raise CorruptData(f"the disk failed: {error}", operation=operation, hint=hint) from error
        raise


def fell_short(witness: int) -> bool:
    """After an EIO from LMDB: whether a write merely did not fit on a full disk. `witness` is a descriptor of the file
    of the catalog that LMDB does not use, open since before.

    LMDB says EIO for a write that fell short as well (`mdb_page_flush`). Such a transaction is gone, and the next one
    is as good as ever. After a failed writeback it would not be: the kernel may have dropped dirty pages. The kernel
    keeps such errors and tells them once to every descriptor that was open (errseq_t, Linux 4.13 and later).
    """
    try:
        os.fsync(witness)
        room = os.fstatvfs(witness)
    except OSError:
        return False
    free = room.f_bavail * room.f_frsize
    return free < min(NEARLY_FULL_BYTES, room.f_blocks * room.f_frsize // 4)
