"""A folder of text files as records of resource type `file`: id is the path below the folder, with `/`.

    {"path": "json/decoder.py", "name": "decoder.py", "text": "...", "size_bytes": 12473}
    {"path": "old.txt", "name": "old.txt", "text": "...", "size_bytes": 12, "encoding": "latin-1"}    not UTF-8

A file that is in the branch already with the same content is left as it is; one that is no longer in the folder stays
in the branch.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidName
from shadowswitch.model.names import check_id
from shadowswitch.model.records import Put
from shadowswitch.service.remote import RemoteEngine

RESOURCE_TYPE = "file"
BATCH_CHANGES = 200
BATCH_BYTES = 4 << 20
"""A batch is one transaction; a larger one would make the writers beside it wait for longer."""
WRITE_TIMEOUT_S = 60.0
OTHER_FIELDS_BYTES = 8192
"""Room in a record for everything but the text: the path twice (2,000 bytes at most), names of fields, sizes."""
LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages"})
"""Folders that hold no text of the user's own."""
SNIFFED_BYTES = 8192
"""A NUL byte in the first 8 KiB means binary, as git and grep have it."""

Stored = Callable[[str, int], None]
"""Is called with id and LSN of every file that is in the branch now, after its commit."""
Progressed = Callable[[int, int], None]
"""Is called with the bytes done and all bytes."""


class Imported(msgspec.Struct):
    """What an import did. `skipped` counts by reason; `lsn` is that of the last write, 0 when there was none."""

    files: int = 0
    unchanged: int = 0
    size_bytes: int = 0
    not_utf8: int = 0
    lsn: int = 0
    skipped: dict[str, int] = msgspec.field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count a file or folder that was not imported."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Skip(Exception):
    """Why a file does not become a record."""


def import_folder(
    engine: Engine | RemoteEngine,
    branch: str,
    folder: Path,
    *,
    files_max: int | None = None,
    size_max_bytes: int | None = None,
    stored: Stored = lambda id, lsn: None,
    progressed: Progressed = lambda done, total: None,
) -> Imported:
    """Write a folder's text files to a branch, in batches bounded by count and by bytes."""
    return _Import(engine, branch, folder, stored).run(files_max, size_max_bytes, progressed)


class _Import:
    def __init__(self, engine: Engine | RemoteEngine, branch: str, folder: Path, stored: Stored) -> None:
        self.engine = engine
        self.branch = branch
        self.folder = folder
        self.stored = stored
        self.result = Imported()
        self.text_max_bytes = engine.config.record_size_max_bytes - OTHER_FIELDS_BYTES
        self.empty = engine.count(branch, RESOURCE_TYPE) == 0
        self.batch: list[Put] = []
        self.batch_bytes = 0

    def run(self, files_max: int | None, size_max_bytes: int | None, progressed: Progressed) -> Imported:
        files = list_files(self.folder, self.engine.path, self.result)
        listed = [(path, found.st_size) for path, found in files]
        total, seen, taken = sum(size for _, size in listed), 0, 0
        for path, size in listed:
            if taken == files_max or (size_max_bytes is not None and self.result.size_bytes >= size_max_bytes):
                self.result.skip("beyond the limit")
                continue
            try:
                self._take(path)
                taken += 1
            except Skip as reason:
                self.result.skip(str(reason))
            seen += size
            progressed(seen, total)
        self._flush()
        return self.result

    def _take(self, path: Path) -> None:
        id = path.relative_to(self.folder).as_posix()
        fields = read_fields(path, id, self.text_max_bytes)
        self.result.size_bytes += fields["size_bytes"]
        self.result.not_utf8 += "encoding" in fields
        present = None if self.empty else self.engine.get(self.branch, RESOURCE_TYPE, id)
        if present is not None and present.fields == fields:
            self.result.unchanged += 1
            self.stored(id, present.lsn)
            return
        size = fields["size_bytes"]
        if self.batch and (len(self.batch) >= BATCH_CHANGES or self.batch_bytes + size > BATCH_BYTES):
            self._flush()
        self.batch.append(Put(RESOURCE_TYPE, id, fields))
        self.batch_bytes += size

    def _flush(self) -> None:
        if not self.batch:
            return
        batch, self.batch, self.batch_bytes = self.batch, [], 0
        receipt = self.engine.write(self.branch, batch, owner="import", timeout_s=WRITE_TIMEOUT_S)
        self.result.files += len(batch)
        self.result.lsn = receipt.lsn
        for lsn, put in enumerate(batch, receipt.lsn - receipt.count + 1):  # a batch has LSNs in a row
            self.stored(put.id, lsn)


def list_files(
    folder: Path,
    left_out: Path,
    imported: Imported,
    ignored: Callable[[Path, bool], bool] = lambda path, is_folder: False,
    unreadable: Callable[[OSError], None] = lambda error: None,
) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files below a folder with what `lstat` says of them, in order. Symbolic links are not followed: each is
    counted as skipped, as is everything else that is no file. `left_out` is the data directory itself, should it lie
    inside; `ignored` is asked about every file and folder; `unreadable` is told of folders that cannot be listed."""
    own = left_out.resolve()

    def not_listed(error: OSError) -> None:
        imported.skip("unreadable folder")
        unreadable(error)

    for where, folders, names in os.walk(folder, onerror=not_listed):
        for name in sorted(folders):
            if name in LEFT_OUT or Path(where, name).resolve() == own:
                imported.skip("folder left out")
                folders.remove(name)
            elif ignored(Path(where, name), True):
                imported.skip("ignored")
                folders.remove(name)
            elif Path(where, name).is_symlink():
                imported.skip("symbolic link")
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            try:
                found = path.lstat()
            except OSError:
                imported.skip("unreadable")
                continue
            if ignored(path, False):
                imported.skip("ignored")
            elif stat.S_ISREG(found.st_mode):
                yield path, found
            else:
                imported.skip("symbolic link" if stat.S_ISLNK(found.st_mode) else "not a file")


def read_fields(path: Path, id: str, text_max_bytes: int) -> dict[str, Any]:
    """The record of a file; raises Skip with the reason when it cannot be one."""
    try:
        check_id(id)
        with path.open("rb") as file:
            data = file.read(text_max_bytes + 1)
    except InvalidName:
        raise Skip("name cannot be an id") from None
    except OSError:
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
