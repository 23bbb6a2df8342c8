"""A folder that a branch follows: creations, edits, moves and deletions of files become writes.

Every text file is a record of resource type `file` (see `importer`), its id `prefix` and the path below the folder. All
records of that type and prefix are the mirror's: what is not in the folder (any more) is deleted. Notices of the file
system make it fast; a look at everything at the start and every `rescan_s` makes it right.

A file that changes while it is read is read again. One that becomes binary or too large loses its record, one that
cannot be read keeps it. A folder that cannot be listed, or the whole folder gone, deletes nothing.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError, UnknownBranch
from shadowswitch.model.records import Delete, Put
from shadowswitch.service.daemon.ignore import GITIGNORE, IgnoreRules
from shadowswitch.service.daemon.importer import (
    BATCH_BYTES,
    BATCH_CHANGES,
    LEFT_OUT,
    OTHER_FIELDS_BYTES,
    RESOURCE_TYPE,
    WRITE_TIMEOUT_S,
    Imported,
    Skip,
    list_files,
    read_fields,
)

logger = logging.getLogger("shadowswitch")

RETRY_FIRST_S, RETRY_MAX_S = 0.2, 30.0
STOP_TIMEOUT_S = 90.0
"""Longer than a write that waits for its timeout."""

Signature = tuple[int, int, int]


class MirrorStatus(msgspec.Struct, frozen=True):
    """What a mirror has done since its start. `files` are in the branch, `skipped` are not, by reason."""

    folder: str
    branch: str
    prefix: str
    files: int
    writes: int
    deletes: int
    skipped: dict[str, int]
    scans: int
    lsn: int
    """Of the last write, 0 before the first."""
    pending: bool
    error: str | None


class Mirror:
    """Keeps one branch like one folder, on a thread of its own. Start it once; stop it before the engine closes."""

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
        self.branch = branch
        self.prefix = prefix
        self._engine = engine
        self._rules = IgnoreRules(self.folder, ignore)
        self._quiet_s, self._rescan_s = quiet_s, rescan_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pending: set[Path] | None = set()
        self._stopping = False
        self._busy = False
        self._leave: Callable[[], None] = lambda: None
        self._known: dict[str, Signature | None] = {}
        """What the branch has, by id; None: not compared with the file yet."""
        self._skipped: dict[str, tuple[str, Signature]] = {}
        self._left_out: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._unreadable: list[Path] = []
        self._identity: tuple[int, int] | None = None
        self._batch: dict[str, tuple[Put | Delete, Signature | None]] = {}
        self._batch_bytes = 0
        self._writes = self._deletes = self._scans = self._lsn = 0
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="shadowswitch-mirror", daemon=True)

    def start(self) -> None:
        """Make the branch if there is none, and begin to follow the folder. Raises InvalidConfig without a folder."""
        try:
            self._engine.branch(self.branch)
        except UnknownBranch:
            self._engine.create_branch(self.branch)
        self._leave = self._engine.watch_folder(
            self.folder, self._noticed, quiet_s=self._quiet_s, rescan_s=self._rescan_s
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand, and end. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._leave()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def status(self) -> MirrorStatus:
        """As of now. Any thread."""
        with self._lock:
            skipped = self._left_out_by_reason()
            pending = self._busy or self._pending is None or bool(self._pending)
            return MirrorStatus(
                str(self.folder), self.branch, self.prefix, len(self._known), self._writes, self._deletes, skipped,
                self._scans, self._lsn, pending, self._error,
            )  # fmt: skip

    def _left_out_by_reason(self) -> dict[str, int]:
        """How many files are not in the branch, and why."""
        skipped = dict(self._left_out)
        for reason, _ in list(self._skipped.values()):
            skipped[reason] = skipped.get(reason, 0) + 1
        return skipped

    # -- the thread ------------------------------------------------------------------------------------------------

    def _noticed(self, paths: frozenset[Path] | None) -> None:
        with self._lock:
            if paths is None or any(path.name == GITIGNORE for path in paths):
                self._pending = None
            elif self._pending is not None:
                self._pending |= paths
        self._wake.set()

    def _run(self) -> None:
        pause_s = RETRY_FIRST_S
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                pending, self._pending, self._busy = self._pending, set(), True
            try:
                self._follow(pending)
                self._error, pause_s = None, RETRY_FIRST_S
            except EngineClosed:
                return
            except (ShadowSwitchError, OSError) as error:
                logger.warning("%s is not followed for now: %s", self.folder, error)
                self._error = str(error)
                self._noticed(frozenset(pending) if pending is not None else None)
                self._batch.clear()
                self._batch_bytes = 0
                self._pause(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            finally:
                with self._lock:
                    self._busy = False

    def _pause(self, pause_s: float) -> None:
        ends = time.monotonic() + pause_s
        while not self._stopping and (left := ends - time.monotonic()) > 0:
            self._wake.wait(min(left, RETRY_FIRST_S))
            self._wake.clear()
        self._wake.set()

    def _follow(self, pending: set[Path] | None) -> None:
        self._check_folder()
        if pending is None:
            self._look_at_everything()
        else:
            for path in sorted(pending):
                if not self._stopping:
                    self._look_at(path)
        self._flush()
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        """Whoever misses a file in the answers of a search finds the reason in the log, each time that it changes."""
        skipped = self._left_out_by_reason()
        if skipped != self._told and not self._stopping:
            self._told = skipped
            logger.info(
                "%s: %d files in %s; left out: %s", self.folder, len(self._known), self.branch, in_words(skipped)
            )

    def _check_folder(self) -> None:
        """A folder that is gone, or that suddenly is another and empty one, says nothing about its files."""
        found = os.stat(self.folder)
        identity = (found.st_dev, found.st_ino)
        if self._identity is not None and identity != self._identity and not any(self.folder.iterdir()):
            raise OSError(f"{self.folder} is empty and another folder than before: is it mounted?")
        if self._identity is not None and identity != self._identity:
            leave, self._leave = self._leave, lambda: None
            leave()
            self._leave = self._engine.watch_folder(
                self.folder, self._noticed, quiet_s=self._quiet_s, rescan_s=self._rescan_s
            )
        self._identity = identity

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look_at_everything(self) -> None:
        if not self._scans:  # what an earlier mirror, or an import, left
            for record in self._engine.scan(self.branch, RESOURCE_TYPE):
                if record.id.startswith(self.prefix):
                    self._known.setdefault(record.id, None)
        self._rules.forget()
        counted = Imported()
        seen = self._look_below(self.folder, counted)
        self._skipped = {id: why for id, why in self._skipped.items() if id in seen}
        self._left_out = counted.skipped
        self._flush()
        self._scans += 1

    def _look_below(self, folder: Path, counted: Imported) -> set[str]:
        """Every file of a folder, and those of it that are gone; the ids of those that are there."""
        self._unreadable.clear()
        seen: set[str] = set()
        files = list_files(
            folder, self._engine.path, counted, self._rules.ignored,
            lambda error: self._unreadable.append(Path(os.fsdecode(error.filename))),
        )  # fmt: skip
        for path, found in files:
            if self._stopping:
                return seen
            seen.add(self._id(path))
            if self._known.get(self._id(path)) != _signature(found):
                self._compare(path, found)
        if not folder.is_dir():
            return seen  # it went while it was looked at; its own notice deletes what was in it
        kept = tuple(self._below(path) for path in self._unreadable)
        below = self._below(folder)
        for id in [id for id in self._known if id.startswith(below) and id not in seen]:
            if not (kept and id.startswith(kept)):
                self._remove(id)
        return seen

    def _look_at(self, path: Path) -> None:
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
        if self._linked(path) or self._rules.unwanted(path, is_folder):
            self._gone(path)
        elif is_folder:
            if self._id(path) in self._known:  # it was a file
                self._remove(self._id(path))
            self._look_below(path, Imported())
        elif stat.S_ISREG(found.st_mode):
            if self._id(path) not in self._known:  # it may have been a folder
                self._gone(path)
            self._compare(path, found)
        else:
            self._gone(path)

    def _linked(self, path: Path) -> bool:
        """Does a symbolic link lie on the way to it? Links are not followed."""
        return any(
            above.is_symlink() for above in path.parents if above.is_relative_to(self.folder) and above != self.folder
        )

    def _gone(self, path: Path) -> None:
        id, below = self._id(path), self._below(path)
        if self._skipped.pop(id, None) is not None and id not in self._known:
            return
        files = [id] if id in self._known else [known for known in self._known if known.startswith(below)]
        for known in files:
            self._remove(known)

    def _compare(self, path: Path, found: os.stat_result) -> None:
        """What a notice tells of is read even if its time and size are those of before: clocks are coarse."""
        id, signature = self._id(path), _signature(found)
        if self._skipped.get(id, ("unreadable", signature)) == ("binary", signature):
            return
        try:
            fields = read_fields(path, id, self._engine.config.record_size_max_bytes - OTHER_FIELDS_BYTES)
            after = _signature(path.lstat())
        except FileNotFoundError:
            return  # its notice is on the way
        except Skip as reason:
            self._skipped[id] = (str(reason), signature)
            if id in self._known and str(reason) != "unreadable":
                self._remove(id)
            return
        self._skipped.pop(id, None)
        if after != signature:
            self._noticed(frozenset({path}))  # it is being written: what was read may be half of it
        present = self._engine.get(self.branch, RESOURCE_TYPE, id)
        if present is not None and present.fields == fields:
            self._known[id] = after
        else:
            self._add(Put(RESOURCE_TYPE, id, fields), after, fields["size_bytes"])

    def _id(self, path: Path) -> str:
        return self.prefix + path.relative_to(self.folder).as_posix()

    def _below(self, path: Path) -> str:
        """What the ids of everything in a folder begin with."""
        return self.prefix if path == self.folder else f"{self._id(path)}/"

    # -- writing ---------------------------------------------------------------------------------------------------

    def _remove(self, id: str) -> None:
        self._add(Delete(RESOURCE_TYPE, id), None, 0)

    def _add(self, change: Put | Delete, signature: Signature | None, size_bytes: int) -> None:
        full = len(self._batch) >= BATCH_CHANGES or self._batch_bytes + size_bytes > BATCH_BYTES
        if self._batch and full and change.id not in self._batch:
            self._flush()
        self._batch[change.id] = (change, signature)
        self._batch_bytes += size_bytes

    def _flush(self) -> None:
        if not self._batch:
            return
        changes: list[Any] = [change for change, _ in self._batch.values()]
        receipt = self._engine.write(self.branch, changes, owner="mirror", timeout_s=WRITE_TIMEOUT_S)
        self._lsn = receipt.lsn
        for id, (change, signature) in self._batch.items():
            if isinstance(change, Put):
                self._known[id] = signature
                self._writes += 1
            else:
                self._known.pop(id, None)
                self._deletes += 1
        self._batch.clear()
        self._batch_bytes = 0


def in_words(skipped: Mapping[str, int]) -> str:
    """Counts by reason, for people."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"


def _signature(found: os.stat_result) -> Signature:
    return found.st_mtime_ns, found.st_size, found.st_ino
