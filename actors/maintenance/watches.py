"""Watches: the watched folders, and the paths that have gathered about each. They outlive the Watcher, so its successor
finds them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedNoWriteEvent,
    FileOpenedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from shadowswitch.storage.clock import Clock

logger = logging.getLogger("shadowswitch")

Changed = Callable[[frozenset[Path] | None], None]
"""Gets the paths that may have changed, or None: look at everything. It runs on the thread of the Watcher, so it hands
the paths over and returns."""

PATHS_MAX = 10_000
"""With more gathered paths a look at everything is cheaper."""


class Watch(FileSystemEventHandler):
    """One watched folder and the paths that have gathered about it. Any thread."""

    def __init__(
        self,
        clock: Clock,
        folder: Path,
        changed: Changed,
        *,
        recursive: bool,
        quiet_s: float,
        longest_s: float,
        rescan_s: float,
    ) -> None:
        self.folder = folder
        self.recursive = recursive
        self._clock = clock
        self._changed = changed
        self._quiet_s, self._longest_s, self._rescan_s = quiet_s, longest_s, rescan_s
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._everything = True
        self._first = self._last = self._scanned = clock.monotonic() - max(quiet_s, longest_s)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Gather the paths of a notice. On the thread of the Observer."""
        if isinstance(event, FileOpenedEvent | FileClosedNoWriteEvent):
            return
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        with self._lock:
            now = self._clock.monotonic()
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

    def hand_over(self, now: float) -> None:
        """Call `changed` with the gathered paths, if no notice came for `quiet_s` or the first is `longest_s` old."""
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
            logger.exception("the callback of the watch of %s failed", self.folder)
            self.look_at_everything()


class Watches:
    """All watches of an engine. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: list[Watch] = []

    def add(self, watch: Watch) -> None:
        """From now on the watch gets notices."""
        with self._lock:
            self._present.append(watch)

    def remove(self, watch: Watch) -> None:
        """The watch gets no more notices. Idempotent."""
        with self._lock:
            if watch in self._present:
                self._present.remove(watch)

    def present(self) -> list[Watch]:
        """The watches at this moment."""
        with self._lock:
            return list(self._present)
