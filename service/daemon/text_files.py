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
    unreadable: Callable[[OSError], None] = lambda error: None,
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files below a folder in order, each with its `lstat`.

    `skip` counts everything else by reason. Symbolic links are not followed. The data directory `data` is left out.
    `ignored` decides about each file and folder. `unreadable` receives the error of each folder that cannot be listed,
    and of each file that is there and cannot be looked at.
    """
    data = data.resolve()

    def not_listed(error: OSError) -> None:
        skip("unreadable folder")
        unreadable(error)

    for where, folders, names in os.walk(folder, onerror=not_listed):
        for name in sorted(folders):
            path = Path(where, name)
            if name in LEFT_OUT or path.resolve() == data:
                skip("folder left out")
                folders.remove(name)
            elif ignored(path, True):
                skip("ignored")
                folders.remove(name)
            elif path.is_symlink():
                skip("symbolic link")
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            try:
                found = path.lstat()
            except OSError as error:
                skip("unreadable")
                if not isinstance(error, FileNotFoundError):
                    unreadable(error)
                continue
            if ignored(path, False):
                skip("ignored")
            elif stat.S_ISREG(found.st_mode):
                yield path, found
            else:
                skip("symbolic link" if stat.S_ISLNK(found.st_mode) else "not a file")


def read_fields(path: Path, id: str, record_size_max_bytes: int) -> dict[str, Any]:
    """The fields of a file's record. Raises Skip for a file that cannot become a record, ResourceExhausted."""
    text_max_bytes = record_size_max_bytes - OTHER_FIELDS_BYTES
    try:
        check_id(id)
        with path.open("rb") as file:
            data = file.read(text_max_bytes + 1)
    except InvalidName:
        raise Skip("name cannot be an id") from None
    except OSError as error:
        lack = passing(error, "read file", str(path))
        if lack is not None:
            raise lack from error
        raise Skip("unreadable") from None
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
    return fields


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts by reason as text: `3 binary, 1 too large`."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
