"""The import of a folder: each text file becomes a record of type `file`, and its path below the folder the id.

An import writes new and changed files. It leaves unchanged records as they are, and deletes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import UnknownBranch
from shadowswitch.model.records import Put
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE, Skip, list_files, read_fields
from shadowswitch.service.remote import RemoteEngine

BATCH_CHANGES = 200
BATCH_BYTES = 4 << 20
"""A batch is one transaction. Other writers of the branch wait for it, so it stays small."""
WRITE_TIMEOUT_S = 60.0

Stored = Callable[[str, int], None]
"""Receives id and LSN of each file in the branch, after the commit."""
Progressed = Callable[[int, int], None]
"""Receives the bytes done and the bytes in total."""


class Imported(msgspec.Struct):
    """The result of an import. `skipped` counts by reason; `lsn` is the LSN of the last write, or 0."""

    files: int = 0
    unchanged: int = 0
    size_bytes: int = 0
    not_utf8: int = 0
    lsn: int = 0
    skipped: dict[str, int] = msgspec.field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Count a file or a folder that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def ensure_branch(engine: Engine | RemoteEngine, branch: str, by: str = "", reason: str = "") -> None:
    """Create the branch unless it exists."""
    try:
        engine.branch(branch)
    except UnknownBranch:
        engine.create_branch(branch, by=by, reason=reason)


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
    """Write a folder's text files to a branch, in batches with a limit of changes and of bytes."""
    return _Import(engine, branch, folder, stored).run(files_max, size_max_bytes, progressed)


class _Import:
    def __init__(self, engine: Engine | RemoteEngine, branch: str, folder: Path, stored: Stored) -> None:
        self.engine = engine
        self.branch = branch
        self.folder = folder
        self.stored = stored
        self.result = Imported()
        self.empty = engine.count(branch, RESOURCE_TYPE) == 0
        self.batch: list[Put] = []
        self.batch_bytes = 0

    def run(self, files_max: int | None, size_max_bytes: int | None, progressed: Progressed) -> Imported:
        files = list_files(self.folder, self.engine.path, self.result.skip)
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
        fields, _ = read_fields(self.folder, path, id, self.engine.config.record_size_max_bytes)
        size = fields["size_bytes"]
        self.result.size_bytes += size
        self.result.not_utf8 += "encoding" in fields
        present = None if self.empty else self.engine.get(self.branch, RESOURCE_TYPE, id)
        if present is not None and present.fields == fields:
            self.result.unchanged += 1
            self.stored(id, present.lsn)
            return
        if len(self.batch) >= BATCH_CHANGES or self.batch_bytes + size > BATCH_BYTES:
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
        for lsn, put in enumerate(batch, receipt.lsn - receipt.count + 1):  # the LSNs of a batch are consecutive
            self.stored(put.id, lsn)
