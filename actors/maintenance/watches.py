"""Who watches which folder, and what has gathered about it. Kept apart from the Watcher, so that one that is replaced
finds them again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedNoWriteEvent,
    FileOpenedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

logger = logging.getLogger("shadowswitch")

Changed = Callable[[frozenset[Path] | None], None]
"""Gets the paths that may have changed, or None: look at everything. On the Watcher's thread: hand over and return."""

PATHS_MAX = 10_000
"""More than so many gathered paths are looked at more cheaply as "everything"."""


class Watch(FileSystemEventHandler):
    """One watched folder and what has gathered about it. Any thread."""

    def __init__(
        self, folder: Path, changed: Changed, *, recursive: bool, quiet_s: float, longest_s: float, rescan_s: float
    ) -> None:
        self.folder = folder
        self.recursive = recursive
        self._changed = changed
        self._quiet_s, self._longest_s, self._rescan_s = quiet_s, longest_s, rescan_s
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._everything = True
        self._first = self._last = self._scanned = time.monotonic() - max(quiet_s, longest_s)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """On the Observer's thread: remember the paths."""
        if isinstance(event, FileOpenedEvent | FileClosedNoWriteEvent):
            return
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        with self._lock:
            now = time.monotonic()
            if not self._paths and not self._everything:
                self._first = now
            self._last = now
            self._paths.update(paths)
            if len(self._paths) > PATHS_MAX:
                self._everything, self._paths = True, set()

    def look_at_everything(self) -> None:
        """Notices were lost."""
        with self._lock:
            self._everything = True

    def tell(self, now: float) -> None:
        """Hand over what has gathered, if it has been quiet for a while or has gathered for long."""
        with self._lock:
            if now - self._scanned >= self._rescan_s:
                self._everything = True
            waited = now - self._last >= self._quiet_s or now - self._first >= self._longest_s
            if not waited or not (self._paths or self._everything):
                return
            paths = None if self._everything else frozenset(self._paths)
            self._paths, self._everything = set(), False
            if paths is None:
                self._scanned = now
        try:
            self._changed(paths)
        except Exception:
            logger.exception("somebody who watches %s failed", self.folder)
            self.look_at_everything()


class Watches:
    """All watches of an engine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: list[Watch] = []

    def add(self, watch: Watch) -> None:
        """From now on it is told."""
        with self._lock:
            self._present.append(watch)

    def remove(self, watch: Watch) -> None:
        """It is told no more. Idempotent."""
        with self._lock:
            if watch in self._present:
                self._present.remove(watch)

    def present(self) -> list[Watch]:
        """Those of this moment."""
        with self._lock:
            return list(self._present)
