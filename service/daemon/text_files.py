"""Text files below a folder, and the record of each.

{"path": "json/decoder.py", "name": "decoder.py", "text": "...", "size_bytes": 12473}
{"path": "old.txt", "name": "old.txt", "text": "...", "size_bytes": 12, "encoding": "latin-1"}    not UTF-8
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import InvalidName
from shadowswitch.model.names import check_id
from shadowswitch.storage import no_links
from shadowswitch.storage.shortages import passing

RESOURCE_TYPE = "file"
OTHER_FIELDS_BYTES = 8192
"""The part of a record that is not text: the path twice (2,000 bytes at most), field names, sizes."""
LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages"})
"""Folders without text of the user's own."""
SNIFFED_BYTES = 8192
"""A NUL byte in the first 8 KiB marks a binary file; git and grep use the same rule."""

FileStamp = tuple[int, int, int]
"""Modification time, size and inode: equal stamps mean an unchanged file."""
Count = Callable[[str], None]
"""Takes the reason why a file or a folder is left out."""


class Skip(Exception):
    """A file cannot become a record; the message is the reason."""


def stamp_of(found: os.stat_result) -> FileStamp:
    """The stamp of a file."""
    return found.st_mtime_ns, found.st_size, found.st_ino


def list_files(
    folder: Path,
    data: Path,
    skip: Count,
    ignored: Callable[[Path, bool], bool] = lambda path, is_folder: False,
    unreadable: Callable[[Path], None] = lambda folder: None,
    start: Path | None = None,
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files below `start` in order, each with its `lstat`; `start` is `folder`, or a folder below it.

    `skip` counts everything else by reason. Symbolic links are not followed. The data directory `data` is left out.
    `ignored` decides about each file and folder. `unreadable` receives each folder that cannot be listed, and each file
    that is there and cannot be looked at.
    """
    own = data.stat() if data.is_dir() else None
    waiting = [start or folder]
    while waiting:
        where = waiting.pop()
        try:
            entries = _entries(folder, where)
        except OSError:
            skip("unreadable folder")
            unreadable(where)
            continue
        folders: list[Path] = []
        for name, found in entries:
            path = where / name
            if found is None:
                skip("unreadable")
                unreadable(path)
            elif stat.S_ISDIR(found.st_mode):
                if name in LEFT_OUT or (own is not None and os.path.samestat(found, own)):
                    skip("folder left out")
                elif ignored(path, True):
                    skip("ignored")
                else:
                    folders.append(path)
            elif ignored(path, False):
                skip("ignored")
            elif stat.S_ISREG(found.st_mode):
                yield path, found
            else:
                skip("symbolic link" if stat.S_ISLNK(found.st_mode) else "not a file")
        waiting += reversed(folders)


def _entries(folder: Path, where: Path) -> list[tuple[str, os.stat_result | None]]:
    """The entries of a folder in order, each with its `lstat`; None where that fails."""
    entries: list[tuple[str, os.stat_result | None]] = []
    with no_links.opened_folder(folder, where.relative_to(folder)) as descriptor, os.scandir(descriptor) as listed:
        for entry in listed:
            try:
                entries.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
            except OSError:
                entries.append((entry.name, None))
    return sorted(entries, key=lambda entry: entry[0])


def read_fields(folder: Path, path: Path, id: str, record_size_max_bytes: int) -> tuple[dict[str, Any], FileStamp]:
    """The fields of the record of a file below `folder`, and the stamp of what was read.

    Raises ResourceExhausted, and Skip for a file that cannot become a record. No link is followed, and nothing but a
    regular file is read: the entry may be another one than the one that was listed.
    """
    text_max_bytes = record_size_max_bytes - OTHER_FIELDS_BYTES
    try:
        check_id(id)
        with no_links.opened_below(folder, path.relative_to(folder)) as descriptor:
            data = no_links.read(descriptor, text_max_bytes + 1)
            stamp = stamp_of(os.fstat(descriptor))
    except InvalidName:
        raise Skip("name cannot be an id") from None
    except no_links.NotRegular:
        raise Skip("not a file") from None
    except OSError as error:
        lack = passing(error, "read file", str(path))
        if lack is not None:
            raise lack from error
        raise Skip("symbolic link" if error.errno in no_links.LINK_ERRORS else "unreadable") from None
    if b"\0" in data[:SNIFFED_BYTES]:
        raise Skip("binary")
    if len(data) > text_max_bytes:
        raise Skip("too large")
    fields: dict[str, Any] = {"path": id, "name": path.name, "text": "", "size_bytes": len(data)}
    try:
        fields["text"] = data.decode()
    except UnicodeDecodeError:
        fields |= {"text": data.decode("latin-1"), "encoding": "latin-1"}
        if len(fields["text"].encode()) > text_max_bytes:  # a byte above 127 takes two in UTF-8
            raise Skip("too large") from None
    return fields, stamp


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts by reason as text: `3 binary, 1 too large`."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
