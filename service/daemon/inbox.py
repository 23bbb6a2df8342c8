"""The inbox: a folder for event files from other programs. Each file holds one CloudEvent as JSON.

    inbox/anything.json                      an event; the inbox takes a complete file, then removes it
    inbox/rejected/anything.json             a rejected event
    inbox/rejected/anything.json.reason.txt  the reason of the rejection

A file is complete when it is one JSON object (a part of an object is never valid JSON), or when its size and time did
not change for `settle_s`. A writer may rename a finished file into the inbox, but need not. The inbox skips names that
begin with a dot or end in .tmp, .part or ~. A temporary failure (a full disk) leaves the file; the inbox tries again.

The inbox removes a file after the outcome of its event is durable. After a kill in between, the inbox finds the event
again, and the event gets the same outcome.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from pathlib import Path

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, InvalidEvent, ShadowSwitchError
from shadowswitch.service.daemon.part import Part
from shadowswitch.service.daemon.text_files import FileStamp, stamp_of
from shadowswitch.storage.disk import sync_directory, write_durably
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
        self.taken = self.rejected = 0
        self._settle_s, self._rescan_s = settle_s, rescan_s
        self._waiting: dict[str, _Waiting] = {}

    def start(self) -> None:
        """Create the folder, watch it, and take the files that it holds."""
        (self.folder / REJECTED).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._unsubscribe = self._engine.watch_folder(
            self.folder, lambda _: self._wake.set(), recursive=False, quiet_s=0.02, rescan_s=self._rescan_s
        )
        super().start()

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
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name == REJECTED or entry.name.startswith(".") or entry.name.endswith(UNFINISHED):
                    continue
                try:
                    found.append((entry.name, stamp_of(entry.stat(follow_symlinks=False))))
                except FileNotFoundError:
                    continue
        return sorted(found, key=lambda item: (item[1][0], item[0]))

    def _take(self, name: str, waiting: _Waiting, now: float) -> None:
        try:
            event = self._read(name)
        except FileNotFoundError:
            self._waiting.pop(name, None)
            return
        except (InvalidEvent, OSError) as error:
            if isinstance(error, OSError) and passing(error, "read event file", name) is not None:
                self._again(name, waiting, error)
            elif isinstance(error, _Unfinished) and now - waiting.since < self._settle_s:
                waiting.not_before = waiting.since + self._settle_s
            else:
                self._reject(name, str(error))
            return
        try:
            outcome = self._engine.receive_event(event, by="inbox")
        except InvalidEvent as error:
            self._reject(name, str(error))
        except EngineClosed:
            raise
        except ShadowSwitchError as error:
            self._again(name, waiting, error)
        else:
            if outcome.accepted:
                self._done(name)
            else:
                self._reject(name, outcome.message)

    def _again(self, name: str, waiting: _Waiting, error: Exception) -> None:
        logger.warning("event file %s failed, and is tried again in %g s: %s", name, waiting.pause_s, error)
        waiting.not_before = time.monotonic() + waiting.pause_s
        waiting.pause_s = min(2 * waiting.pause_s, RETRY_MAX_S)

    def _read(self, name: str) -> dict[str, object]:
        descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InvalidEvent("it is not a regular file")
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise InvalidEvent(f"it has more than {FILE_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Unfinished(f"it is not one JSON object: {error}") from error

    def _done(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self._waiting.pop(name, None)
        self.taken += 1

    def _reject(self, name: str, reason: str) -> None:
        """Move a file to `rejected`. Its reason is written first, so a rejected file always has one."""
        rejected = self.folder / REJECTED
        target, number = rejected / name, 1
        while os.path.lexists(target) or os.path.lexists(_reason_file(target)):
            number += 1
            target = rejected / f"{number}-{name[-200:]}"
        logger.warning("event file %s is rejected: %s", name, reason)
        try:
            write_durably(_reason_file(target), f"{reason}\n".encode(errors="replace"))
            os.rename(self.folder / name, target)
            sync_directory(rejected)
        except FileNotFoundError:  # another program removed the file
            _reason_file(target).unlink(missing_ok=True)
        self._waiting.pop(name, None)
        self.rejected += 1


class _Unfinished(InvalidEvent):
    """The file is no JSON object; its writer may be at work."""


def _reason_file(file: Path) -> Path:
    return file.with_name(file.name[-200:] + REASON)
