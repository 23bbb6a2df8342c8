"""The inbox: a folder into which other programs drop events, one CloudEvent as JSON in each file.

    inbox/anything.json                     taken as soon as it is whole, then removed
    inbox/rejected/anything.json            what was refused, and beside it
    inbox/rejected/anything.json.reason.txt why

A file is whole when it is one JSON object (half of one is never valid), or when its size and time have not changed for
`settle_s`; so writing it under another name and renaming it is good style, and not needed. Names that begin with a dot
or end in .tmp, .part or ~ are left alone. What may go well later (a full disk) stays and is tried again.

The file goes only after its outcome is durable; killed in between, the event is found again and gets the same outcome.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed, InvalidEvent, ShadowSwitchError
from shadowswitch.storage.data_directory import sync_directory, write_durably

logger = logging.getLogger("shadowswitch")

INBOX = "inbox"
REJECTED = "rejected"
REASON = ".reason.txt"
FILE_BYTES_MAX = 1 << 20
UNFINISHED = (".tmp", ".part", "~")
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 60.0
STOP_TIMEOUT_S = 30.0

Signature = tuple[int, int, int]


class _Waiting:
    """A file that is not whole yet, or that is to be tried again."""

    def __init__(self, signature: Signature, now: float) -> None:
        self.signature = signature
        self.since = now
        self.not_before = now
        self.pause_s = RETRY_FIRST_S


class Inbox:
    """Takes the files of one folder, on a thread of its own. Start it once, and stop it before the engine closes."""

    def __init__(
        self, engine: Engine, folder: Path | None = None, *, settle_s: float = 1.0, rescan_s: float = 5.0
    ) -> None:
        self.folder = folder or engine.path / INBOX
        self.taken = self.rejected = 0
        self._engine = engine
        self._settle_s, self._rescan_s = settle_s, rescan_s
        self._wake = threading.Event()
        self._stopping = False
        self._waiting: dict[str, _Waiting] = {}
        self._leave: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="shadowswitch-inbox", daemon=True)

    def start(self) -> None:
        """Make the folder, look at what is there, and watch it."""
        (self.folder / REJECTED).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._leave = self._engine.watch_folder(
            self.folder, lambda _: self._wake.set(), recursive=False, quiet_s=0.02, rescan_s=self._rescan_s
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the file at hand, and end. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._leave()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                due_s = self.look()
            except EngineClosed:
                return
            except (ShadowSwitchError, OSError) as error:
                logger.error("the inbox %s could not be looked at: %s", self.folder, error)
                due_s = self._rescan_s
            if not self._stopping:
                self._wake.wait(due_s)

    def look(self) -> float:
        """Take what is whole; returns in how many seconds to look again. On the inbox's thread (or without one)."""
        now = time.monotonic()
        present = self._present()
        for name in self._waiting.keys() - {name for name, _ in present}:
            del self._waiting[name]
        due = now + self._rescan_s
        for name, signature in present:
            if self._stopping:
                break
            waiting = self._waiting.get(name)
            if waiting is None or waiting.signature != signature:
                waiting = self._waiting[name] = _Waiting(signature, now)
            if waiting.not_before <= now:
                self._take(name, waiting, now)
            if name in self._waiting:
                due = min(due, max(waiting.not_before, now + 0.05))
        return max(0.05, due - time.monotonic())

    def _present(self) -> list[tuple[str, Signature]]:
        """Names of files, the oldest first."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name == REJECTED or entry.name.startswith(".") or entry.name.endswith(UNFINISHED):
                    continue
                try:
                    seen = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append((entry.name, (seen.st_mtime_ns, seen.st_size, seen.st_ino)))
        return sorted(found, key=lambda item: (item[1][0], item[0]))

    def _take(self, name: str, waiting: _Waiting, now: float) -> None:
        try:
            event = self._read(name)
        except FileNotFoundError:
            self._waiting.pop(name, None)
            return
        except (InvalidEvent, OSError) as error:
            if isinstance(error, _Unfinished) and now - waiting.since < self._settle_s:
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
            logger.warning("event %s is tried again in %g s: %s", name, waiting.pause_s, error)
            waiting.not_before = time.monotonic() + waiting.pause_s
            waiting.pause_s = min(2 * waiting.pause_s, RETRY_MAX_S)
        else:
            if outcome.accepted:
                self._done(name)
            else:
                self._reject(name, outcome.message)

    def _read(self, name: str) -> dict[str, object]:
        descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InvalidEvent("it is not a plain file")
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
        """The reason first, then the file: whoever finds the file finds the reason."""
        rejected = self.folder / REJECTED
        target, number = rejected / name, 1
        while os.path.lexists(target) or os.path.lexists(_beside(target)):
            number += 1
            target = rejected / f"{number}-{name[-200:]}"
        logger.warning("event file %s is rejected: %s", name, reason)
        try:
            write_durably(_beside(target), f"{reason}\n".encode(errors="replace"))
            os.rename(self.folder / name, target)
            sync_directory(rejected)
        except FileNotFoundError:  # somebody took it away
            _beside(target).unlink(missing_ok=True)
        self._waiting.pop(name, None)
        self.rejected += 1


class _Unfinished(InvalidEvent):
    """Perhaps it is still being written."""


def _beside(file: Path) -> Path:
    return file.with_name(file.name[-200:] + REASON)
