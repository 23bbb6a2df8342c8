"""The inbox: a folder for event files from other programs. Each file holds one CloudEvent as JSON.

    inbox/anything.json                      an event; the inbox takes a complete file, then removes it
    inbox/rejected/anything.json             a rejected event
    inbox/rejected/anything.json.reason.txt  the reason of the rejection

A file is complete when it is one JSON object (a part of an object is never valid JSON), or when its size and time did
not change for `settle_s`. A writer may rename a finished file into the inbox, but need not. The inbox skips names that
begin with a dot or end in .tmp, .part or ~. A temporary failure (a full disk) leaves the file; the inbox tries again.

The inbox removes a file after the outcome of its event is durable. After a kill in between, the inbox finds the event
again, and the event gets the same outcome.

An event acts on every branch, so only the user of the server may write the folder: its mode is 0700. The inbox follows
no link, neither in the place of an event, nor of `rejected`, nor of the folder itself. A folder that the settings name
may be a link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, InvalidEvent, ShadowSwitchError
from shadowswitch.model.records import JSON_DEPTH_MAX, nests_too_deep
from shadowswitch.service.daemon.part import Part
from shadowswitch.service.daemon.text_files import FileStamp, stamp_of
from shadowswitch.storage import data_directory, no_links
from shadowswitch.storage.shortages import passing

logger = logging.getLogger("shadowswitch")

INBOX = "inbox"
REJECTED = "rejected"
REASON = ".reason.txt"
FILE_BYTES_MAX = 1 << 20
UNFINISHED = (".tmp", ".part", "~")
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 60.0
ROUND_MIN_S = 0.05
"""The shortest time between two rounds."""


class _Waiting:
    """A file that is incomplete, or that failed for now."""

    def __init__(self, stamp: FileStamp, now: float) -> None:
        self.stamp = stamp
        self.since = now
        self.not_before = now
        self.pause_s = RETRY_FIRST_S


class Inbox(Part):
    """Takes the event files of one folder, on its own thread."""

    def __init__(
        self, engine: Engine, folder: Path | None = None, *, settle_s: float = 1.0, rescan_s: float = 5.0
    ) -> None:
        super().__init__(engine, "inbox", str(folder or ""))
        self.folder = folder or engine.path / INBOX
        self._named = folder is not None
        self.taken = self.rejected = 0
        self._settle_s, self._rescan_s = settle_s, rescan_s
        self._waiting: dict[str, _Waiting] = {}

    def start(self) -> None:
        """Create the folder, watch it, and take the files that it holds. Raises UnsupportedFilesystem for a link."""
        if self._named:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            data_directory.make_directories(self.folder, REJECTED)
            exposed = data_directory.written_by_others(self.folder, "an event in this inbox can act on every branch")
            if exposed:
                logger.warning("%s", exposed)
        else:
            data_directory.make_directories(self._engine.path, f"{INBOX}/{REJECTED}")
            for folder in (self._opened(), self._opened(REJECTED)):  # an older version made them by the umask
                with folder as descriptor:
                    os.fchmod(descriptor, 0o700)
        self._unsubscribe = self._engine.watch_folder(
            self.folder, lambda _: self._wake.set(), recursive=False, quiet_s=0.02, rescan_s=self._rescan_s
        )
        super().start()

    def _opened(self, below: str = "") -> AbstractContextManager[int]:
        """The descriptor of the folder, or of a folder in it."""
        return no_links.opened_folder(self.folder, PurePath(below), follow=self._named)

    def _round(self) -> float:
        """Take every complete file. Returns the seconds until a waiting file is due."""
        now = time.monotonic()
        present = self._list()
        for name in self._waiting.keys() - {name for name, _ in present}:
            del self._waiting[name]
        due = now + self._rescan_s
        for name, stamp in present:
            if self._stopping.is_set():
                break
            waiting = self._waiting.get(name)
            if waiting is None or waiting.stamp != stamp:
                waiting = self._waiting[name] = _Waiting(stamp, now)
            if waiting.not_before <= now:
                self._take(name, waiting, now)
            if name in self._waiting:
                due = min(due, max(waiting.not_before, now + ROUND_MIN_S))
        return max(ROUND_MIN_S, due - time.monotonic())

    def _list(self) -> list[tuple[str, FileStamp]]:
        """The event files, the oldest first."""
        found = []
        with self._opened() as folder, os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == REJECTED or entry.name.startswith(".") or entry.name.endswith(UNFINISHED):
                    continue
                try:
                    found.append((entry.name, stamp_of(entry.stat(follow_symlinks=False))))
                except FileNotFoundError:
                    continue
        return sorted(found, key=lambda item: (item[1][0], item[0]))

    def _take(self, name: str, waiting: _Waiting, now: float) -> None:
        """Take one file. After a failure the inbox tries this file again later, and goes on with the others."""
        try:
            self._receive(name, waiting, now)
        except EngineClosed:
            raise
        except (ShadowSwitchError, OSError) as error:
            logger.warning("event file %s failed, and is tried again in %g s: %s", name, waiting.pause_s, error)
            waiting.not_before = time.monotonic() + waiting.pause_s
            waiting.pause_s = min(2 * waiting.pause_s, RETRY_MAX_S)

    def _receive(self, name: str, waiting: _Waiting, now: float) -> None:
        try:
            event = self._read(name)
        except FileNotFoundError:
            self._waiting.pop(name, None)
            return
        except (InvalidEvent, OSError) as error:
            if isinstance(error, OSError) and passing(error, "read event file", name) is not None:
                raise
            if isinstance(error, _Unfinished) and now - waiting.since < self._settle_s:
                waiting.not_before = waiting.since + self._settle_s
            else:
                self._reject(name, str(error))
            return
        try:
            outcome = self._engine.receive_event(event, by="inbox")
        except InvalidEvent as error:
            self._reject(name, str(error))
            return
        if outcome.accepted:
            self._done(name)
        else:
            self._reject(name, outcome.message)

    def _read(self, name: str) -> dict[str, object]:
        with self._opened() as folder, no_links.opened(name, folder) as descriptor:
            data = no_links.read(descriptor, FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise InvalidEvent(f"it has more than {FILE_BYTES_MAX} bytes")
        if nests_too_deep(data):
            raise InvalidEvent(f"it is nested deeper than {JSON_DEPTH_MAX} levels")
        try:
            return msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Unfinished(f"it is not one JSON object: {error}") from error

    def _done(self, name: str) -> None:
        with self._opened() as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        self._waiting.pop(name, None)
        self.taken += 1

    def _reject(self, name: str, reason: str) -> None:
        """Move a file to `rejected`. Its reason is written first, so a rejected file always has one."""
        logger.warning("event file %s is rejected: %s", name, reason)
        with self._opened() as folder, self._opened(REJECTED) as rejected:
            target, number = _end_of(name), 1
            while no_links.is_there(target, rejected) or no_links.is_there(target + REASON, rejected):
                number += 1
                target = f"{number}-{_end_of(name)}"
            no_links.write_new(target + REASON, f"{reason}\n".encode(errors="replace"), rejected)
            try:
                os.rename(name, target, src_dir_fd=folder, dst_dir_fd=rejected)
            except FileNotFoundError:  # another program removed the file
                os.unlink(target + REASON, dir_fd=rejected)
            os.fsync(rejected)
        self._waiting.pop(name, None)
        self.rejected += 1


NAME_BYTES_KEPT = 200


class _Unfinished(InvalidEvent):
    """The file is no JSON object; its writer may be at work."""


def _end_of(name: str) -> str:
    """So much of a name that another one made of it is short enough: file systems count bytes."""
    return os.fsdecode(os.fsencode(name)[-NAME_BYTES_KEPT:])
