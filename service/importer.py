"""A folder of text files as records of resource type `file`, with the fields path, name, text and size_bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.names import check_id
from shadowswitch.model.records import Put

RESOURCE_TYPE = "file"
BATCH_CHANGES = 200
BATCH_BYTES = 4 << 20
OTHER_FIELDS_BYTES = 8192
"""Room in a record for path, name and sizes."""
LEFT_OUT = frozenset({".git", "__pycache__", "node_modules", "site-packages"})
"""Folders that hold no text of the user's own."""
SNIFFED_BYTES = 8192
"""A NUL byte in the first 8 KiB means binary, as git and grep have it."""


class Imported(msgspec.Struct):
    """What an import did: files and bytes written, files skipped by reason, the LSN of the last write."""

    files: int = 0
    bytes: int = 0
    lsn: int = 0
    not_utf8: int = 0
    skipped: dict[str, int] = {}

    def skip(self, reason: str) -> None:
        """Count a file that was not imported."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def text_files(folder: Path, imported: Imported, size_max_bytes: int, files_max: int | None = None) -> Iterator[Put]:
    """The text files below a folder, in order, as puts. Symbolic links are not followed; skipped files are counted."""
    found = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            path = Path(where, name)
            put = _read(path, folder, imported, size_max_bytes)
            if put is not None:
                yield put
                found += 1
                if found == files_max:
                    return


def _read(path: Path, folder: Path, imported: Imported, size_max_bytes: int) -> Put | None:
    id = path.relative_to(folder).as_posix()
    if path.is_symlink() or not path.is_file():
        imported.skip("not a regular file")
        return None
    try:
        check_id(id)
        if path.stat().st_size > size_max_bytes:
            imported.skip("too large")
            return None
        data = path.read_bytes()
    except ShadowSwitchError:
        imported.skip("name cannot be an id")
        return None
    except OSError:
        imported.skip("unreadable")
        return None
    if b"\0" in data[:SNIFFED_BYTES]:
        imported.skip("binary")
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
        imported.not_utf8 += 1
    if len(text.encode()) > size_max_bytes:
        imported.skip("too large")
        return None
    imported.bytes += len(data)
    return Put(RESOURCE_TYPE, id, {"path": id, "name": path.name, "text": text, "size_bytes": len(data)})


def import_folder(engine: Engine, branch: str, folder: Path, files_max: int | None = None) -> Imported:
    """Write a folder's text files to a branch, in batches; a file that is there already is replaced."""
    imported = Imported()
    limit = engine.config.record_size_max_bytes - OTHER_FIELDS_BYTES
    batch: list[Put] = []
    size = 0
    for put in text_files(folder, imported, limit, files_max):
        batch.append(put)
        size += len(put.fields["text"])
        if len(batch) >= BATCH_CHANGES or size >= BATCH_BYTES:
            imported.lsn = engine.write(branch, batch, timeout_s=60).lsn
            imported.files += len(batch)
            batch, size = [], 0
    if batch:
        imported.lsn = engine.write(branch, batch, timeout_s=60).lsn
        imported.files += len(batch)
    return imported
