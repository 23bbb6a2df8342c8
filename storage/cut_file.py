"""Is a file of LMDB shorter than it says, or without an entry? Asked before LMDB opens it.

A page behind the end of a mapped file would end the process. A file without an entry would be made anew.

The header names the last page. A file may end before it all the same: LMDB never writes a page that was taken and freed
in one transaction. So a file is cut off when a page behind its end is not listed as free. The list is read by plain
reads, in the format of LMDB 0.9.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shadowswitch.model.errors import CorruptData

_MAGIC = 0xBEEFC0DE
_HEADER = struct.Struct("=16xI20xI36xQ40xQQQ")
"""Of a page: magic, page size, root of the free list, root of the entries, last page, transaction."""
_PAGE = struct.Struct("=10xHH2x")
"""Flags, and the end of the offsets of its nodes."""
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_LEAF, _BIG = 2, 1
_NO_PAGE = (1 << 64) - 1
DEPTH_MAX = 32
TRIES = 100
"""A commit in between makes a look void. A file with so many has a busy host, which looked when it opened it."""


class _Header(NamedTuple):
    page_size: int
    free_root: int
    main_root: int
    last_page: int
    txn_id: int


class _CutOffError(Exception):
    """A page of the free list lies behind the end of the file, or is none."""


def refuse_cut(data: Path) -> None:
    """Raise CorruptData when an LMDB file ends before its last page in use. Beside a host, too. Raises OSError.

    A file without a header is left to LMDB, which refuses it, or makes a new one where there is none.
    """
    try:
        descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:  # LMDB's locks are on another file: closing this descriptor drops none of them
        for _ in range(TRIES):
            header, size_bytes = _newest(descriptor), os.fstat(descriptor).st_size
            if header is None or size_bytes >= (header.last_page + 1) * header.page_size:
                return
            present = size_bytes // header.page_size
            missing = header.last_page + 1 - present
            try:
                missing -= len({page for page in _free_pages(descriptor, header) if present <= page})
            except (_CutOffError, struct.error, OverflowError):
                pass  # the list itself is cut off
            if _newest(descriptor) == header:
                if missing:
                    break
                return
        else:
            return
    finally:
        os.close(descriptor)
    raise CorruptData(
        f"{data} is cut off: it has {size_bytes} bytes, and {missing} of its {header.last_page + 1} pages are missing",
        operation="open",
        object=str(data),
        hint="put the whole file back from a backup; an index is mended by a rebuild",
    )


def is_empty(data: Path) -> bool:
    """Is there no LMDB file, or one without an entry? LMDB makes a new one in its place. Raises OSError."""
    try:
        descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        header = _newest(descriptor)
        return not os.fstat(descriptor).st_size or (header is not None and header.main_root == _NO_PAGE)
    finally:
        os.close(descriptor)


def _newest(descriptor: int) -> _Header | None:
    """The header of the last transaction; None where there is none that LMDB would take."""
    first = _header(descriptor, 0)
    second = _header(descriptor, first.page_size) if first is not None else None
    if first is None or second is None:
        return None
    return max(first, second, key=lambda header: header.txn_id)


def _header(descriptor: int, offset: int) -> _Header | None:
    data = os.pread(descriptor, _HEADER.size, offset)
    if len(data) < _HEADER.size:
        return None
    magic, *found = _HEADER.unpack(data)
    header = _Header(*found)
    is_size = 512 <= header.page_size <= 1 << 16 and header.page_size & (header.page_size - 1) == 0
    return header if magic == _MAGIC and is_size else None


def _free_pages(descriptor: int, header: _Header) -> Iterator[int]:
    """Every page that the tree of free pages lists: its leaves have arrays of page numbers, each behind its length."""
    pages = [(header.free_root, 0)] if header.free_root != _NO_PAGE else []
    while pages:
        number, depth = pages.pop()
        page = _read(descriptor, number * header.page_size, header.page_size)
        flags, lower = _PAGE.unpack_from(page)
        if depth > DEPTH_MAX or not _PAGE.size <= lower <= header.page_size:
            raise _CutOffError
        for (offset,) in struct.iter_unpack("=H", page[_PAGE.size : lower]):
            low, high, more, key_bytes = _NODE.unpack_from(page, offset)
            if not flags & _LEAF:
                pages.append((low | high << 16 | more << 32, depth + 1))
                continue
            start, length = offset + _NODE.size + key_bytes, low | high << 16
            value = page[start : start + length]
            if more & _BIG:
                value = _read(descriptor, _NUMBER.unpack(page[start : start + 8])[0] * header.page_size + 16, length)
            yield from (number for (number,) in _NUMBER.iter_unpack(value[8 : 8 + 8 * _NUMBER.unpack(value[:8])[0]]))


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) < length:
        raise _CutOffError
    return data


def without_entries(data: Path) -> CorruptData:
    """The error for a data file that `is_empty`."""
    return CorruptData(
        f"{data} has no entry",
        operation="open",
        object=str(data),
        hint="put it back from a backup; where the first start of this directory was killed, start the host again",
    )
