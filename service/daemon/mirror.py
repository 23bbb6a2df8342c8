"""The mirror of a folder in a branch: the creation, edit, move or deletion of a file becomes a write.

Each text file is a record of type `file` (see `text_files`); its id is `prefix` and the path below the folder. The
mirror owns every record of this type and prefix, and deletes records without a file. Notices of the file system start
a round for the changed paths. At the start and every `rescan_s` a scan compares the whole folder with the branch.

The mirror reads a file again that changes during the read. A file that becomes binary or too large loses its record; an
unreadable file keeps its record. An unreadable or missing folder deletes nothing.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed
from shadowswitch.model.names import escaped
from shadowswitch.model.records import Delete, Put
from shadowswitch.service.daemon.ignore import GITIGNORE, IgnoreRules
from shadowswitch.service.daemon.importer import BATCH_BYTES, BATCH_CHANGES, WRITE_TIMEOUT_S, ensure_branch
from shadowswitch.service.daemon.part import AUTHOR, Part
from shadowswitch.service.daemon.text_files import (
    LEFT_OUT,
    RESOURCE_TYPE,
    FileStamp,
    Skip,
    counts_text,
    list_files,
    read_fields,
    stamp_of,
)

logger = logging.getLogger("shadowswitch")

RETRY_FIRST_S, RETRY_MAX_S = 0.2, 30.0


class MirrorStatus(msgspec.Struct, frozen=True):
    """The work of a mirror since its start. The branch has `files`; `skipped` counts the other files by reason."""

    folder: str
    branch: str
    prefix: str
    files: int
    writes: int
    deletes: int
    skipped: dict[str, int]
    scans: int
    lsn: int
    """The LSN of the last write; 0 before the first write."""
    pending: bool
    error: str | None


class Mirror(Part):
    """Writes the files of one folder to one branch, on its own thread."""

    first_wait_s = None
    stop_timeout_s = 90.0
    """A write at hand ends within its own timeout, which is shorter."""

    def __init__(
        self,
        engine: Engine,
        branch: str,
        folder: Path,
        *,
        prefix: str = "",
        ignore: Iterable[str] = (),
        quiet_s: float = 0.2,
        rescan_s: float = 60.0,
    ) -> None:
        self.folder = folder.absolute()
        super().__init__(engine, "mirror", str(self.folder))
        self.branch = branch
        self.prefix = prefix
        self._rules = IgnoreRules(self.folder, ignore)
        self._quiet_s, self._rescan_s = quiet_s, rescan_s
        self._lock = threading.Lock()
        self._pending: set[Path] | None = set()
        """Paths with notices since the last round; None: scan the whole folder."""
        self._busy = False
        self._retry_s = RETRY_FIRST_S
        self._known: dict[str, FileStamp | None] = {}
        """The records of the branch by id, each with the stamp of its file; None: not compared with the file yet."""
        self._skipped: dict[str, tuple[str, FileStamp]] = {}
        """Files without a record by id, each with the reason."""
        self._left_out: Counter[str] = Counter()
        """Entries that the last scan left out, by reason."""
        self._logged: Counter[str] = Counter()
        self._unreadable: list[Path] = []
        self._identity: tuple[int, int] | None = None
        self._batch: dict[str, tuple[Put | Delete, FileStamp | None]] = {}
        self._batch_bytes = 0
        self._writes = self._deletes = self._scans = self._lsn = 0
        self._error: str | None = None
        self._number = 0
        """The number of the branch, see `BranchInfo`; 0 before the first round."""

    def start(self) -> None:
        """Create the branch unless it exists, and watch the folder. Raises InvalidConfig for a missing folder."""
        ensure_branch(self._engine, self.branch, AUTHOR, f"it mirrors {escaped(str(self.folder))[:1000]}")
        self._watch()
        super().start()

    def _watch(self) -> None:
        self._unsubscribe = self._engine.watch_folder(
            self.folder, self._noticed, quiet_s=self._quiet_s, rescan_s=self._rescan_s
        )

    def status(self) -> MirrorStatus:
        """The status now. Any thread."""
        with self._lock:
            skipped = dict(self._files_left_out())
            pending = self._busy or self._pending is None or bool(self._pending)
            return MirrorStatus(
                str(self.folder), self.branch, self.prefix, len(self._known), self._writes, self._deletes, skipped,
                self._scans, self._lsn, pending, self._error,
            )  # fmt: skip

    def _files_left_out(self) -> Counter[str]:
        """Count the files without a record, by reason."""
        return self._left_out + Counter(reason for reason, _ in list(self._skipped.values()))

    # -- rounds ----------------------------------------------------------------------------------------------------

    def _noticed(self, paths: frozenset[Path] | None) -> None:
        with self._lock:
            if paths is None or any(path.name == GITIGNORE for path in paths):
                self._pending = None
            elif self._pending is not None:
                self._pending |= paths
        self._wake.set()

    def _round(self) -> None:
        """Write the changes since the last round. After a failure the same paths are pending again."""
        with self._lock:
            pending, self._pending, self._busy = self._pending, set(), True
        try:
            self._follow(pending)
            self._error, self._retry_s = None, RETRY_FIRST_S
        except EngineClosed:
            raise
        except Exception as error:
            self._failed(error)
            self._error = str(error)
            self._noticed(frozenset(pending) if pending is not None else None)
            self._batch.clear()
            self._batch_bytes = 0
            self._stopping.wait(self._retry_s)
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
        finally:
            with self._lock:
                self._busy = False

    def _follow(self, pending: set[Path] | None) -> None:
        self._check_folder()
        if self._find_branch() or pending is None:
            self._scan()
        else:
            for path in sorted(pending):
                if not self._stopping.is_set():
                    self._visit(path)
        self._flush()
        self._log_left_out()

    def _find_branch(self) -> bool:
        """Make the branch if it was dropped. True if it is another one than before: nothing is known of its records."""
        ensure_branch(self._engine, self.branch, AUTHOR, f"it mirrors {escaped(str(self.folder))[:1000]}")
        before, self._number = self._number, self._engine.branch(self.branch).number
        if before in (0, self._number):
            return False
        self._known.clear()
        self._skipped.clear()
        self._scans = 0
        return True

    def _log_left_out(self) -> None:
        """Log the reasons for missing files when they change."""
        skipped = self._files_left_out()
        if skipped != self._logged and not self._stopping.is_set():
            self._logged = skipped
            reasons = counts_text(skipped) or "none"
            logger.info("%s: %d files in %s; left out: %s", self.folder, len(self._known), self.branch, reasons)

    def _check_folder(self) -> None:
        """Raise OSError for a missing folder, and for an empty folder in its place: neither deletes records."""
        found = os.stat(self.folder)
        identity = (found.st_dev, found.st_ino)
        if self._identity is not None and identity != self._identity and not any(self.folder.iterdir()):
            raise OSError(f"{self.folder} is empty and another folder than before: is it mounted?")
        if self._identity is not None and identity != self._identity:
            self._unsubscribe()
            self._unsubscribe = lambda: None
            self._watch()
        self._identity = identity

    # -- comparison of files and records ---------------------------------------------------------------------------

    def _scan(self) -> None:
        """Compare the whole folder with the branch."""
        if not self._scans:  # the records of an earlier mirror or import
            for record in self._engine.scan(self.branch, RESOURCE_TYPE):
                if record.id.startswith(self.prefix):
                    self._known.setdefault(record.id, None)
        self._rules.forget()
        left_out: Counter[str] = Counter()
        seen = self._scan_below(self.folder, left_out)
        self._skipped = {id: why for id, why in self._skipped.items() if id in seen}
        self._left_out = left_out
        self._flush()
        self._scans += 1

    def _scan_below(self, folder: Path, left_out: Counter[str]) -> set[str]:
        """Compare the files below a folder, and delete the records of missing files. Returns the ids of the files."""
        self._unreadable.clear()
        seen: set[str] = set()
        files = list_files(
            self.folder, self._engine.path, lambda reason: left_out.update([reason]), self._rules.ignored,
            self._unreadable.append, folder,
        )  # fmt: skip
        for path, found in files:
            if self._stopping.is_set():
                return seen
            seen.add(self._id(path))
            if self._known.get(self._id(path)) != stamp_of(found):
                self._compare(path, found)
        if not folder.is_dir():
            return seen  # the folder vanished during the scan; its own notice deletes its records
        kept = tuple(self._below(path) for path in self._unreadable)
        seen.update(self._id(path) for path in self._unreadable)
        below = self._below(folder)
        for id in [id for id in self._known if id.startswith(below) and id not in seen]:
            if not (kept and id.startswith(kept)):
                self._remove(id)
        return seen

    def _visit(self, path: Path) -> None:
        """Compare one path of a notice."""
        if not path.is_relative_to(self.folder) or path == self.folder:
            return
        below = path.relative_to(self.folder)
        if LEFT_OUT.intersection(below.parts) or path.is_relative_to(self._engine.path):
            return
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self._gone(path)
            return
        is_folder = stat.S_ISDIR(found.st_mode)
        if self._linked(path) or self._rules.ignored_with_parents(path, is_folder):
            self._gone(path)
        elif is_folder:
            if self._id(path) in self._known:  # a file became a folder
                self._remove(self._id(path))
            self._scan_below(path, Counter())
        elif stat.S_ISREG(found.st_mode):
            if self._id(path) not in self._known:  # a folder may have become a file
                self._gone(path)
            self._compare(path, found)
        else:
            self._gone(path)

    def _linked(self, path: Path) -> bool:
        """Is a folder above this path a symbolic link? The mirror follows no links."""
        return any(
            above.is_symlink() for above in path.parents if above.is_relative_to(self.folder) and above != self.folder
        )

    def _gone(self, path: Path) -> None:
        """Delete the record of a path, or the records below it."""
        id, below = self._id(path), self._below(path)
        if self._skipped.pop(id, None) is not None and id not in self._known:
            return
        files = [id] if id in self._known else [known for known in self._known if known.startswith(below)]
        for known in files:
            self._remove(known)

    def _compare(self, path: Path, found: os.stat_result) -> None:
        """Write the record of a file unless the branch has the same fields.

        A file with a notice is read even with an unchanged stamp: the clock of a file system is coarse.
        """
        id, stamp = self._id(path), stamp_of(found)
        if self._skipped.get(id) == ("binary", stamp):
            return
        try:
            fields, read = read_fields(self.folder, path, id, self._engine.config.record_size_max_bytes)
        except Skip as reason:
            self._skipped[id] = (str(reason), stamp)
            if id in self._known and str(reason) != "unreadable":
                self._remove(id)
            return
        self._skipped.pop(id, None)
        if read != stamp:
            self._noticed(frozenset({path}))  # the file changed before or during the read
        present = self._engine.get(self.branch, RESOURCE_TYPE, id)
        if present is not None and present.fields == fields:
            self._known[id] = read
        else:
            self._add(Put(RESOURCE_TYPE, id, fields), read, fields["size_bytes"])

    def _id(self, path: Path) -> str:
        return self.prefix + path.relative_to(self.folder).as_posix()

    def _below(self, path: Path) -> str:
        """The common prefix of the ids below a folder."""
        return self.prefix if path == self.folder else f"{self._id(path)}/"

    # -- writes ----------------------------------------------------------------------------------------------------

    def _remove(self, id: str) -> None:
        self._add(Delete(RESOURCE_TYPE, id), None, 0)

    def _add(self, change: Put | Delete, stamp: FileStamp | None, size_bytes: int) -> None:
        full = len(self._batch) >= BATCH_CHANGES or self._batch_bytes + size_bytes > BATCH_BYTES
        if self._batch and full and change.id not in self._batch:
            self._flush()
        self._batch[change.id] = (change, stamp)
        self._batch_bytes += size_bytes

    def _flush(self) -> None:
        if not self._batch:
            return
        changes: list[Any] = [change for change, _ in self._batch.values()]
        receipt = self._engine.write(self.branch, changes, owner="mirror", timeout_s=WRITE_TIMEOUT_S)
        self._lsn = receipt.lsn
        for id, (change, stamp) in self._batch.items():
            if isinstance(change, Put):
                self._known[id] = stamp
                self._writes += 1
            else:
                self._known.pop(id, None)
                self._deletes += 1
        self._batch.clear()
        self._batch_bytes = 0
