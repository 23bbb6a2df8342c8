"""Watching folders: the call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.watcher import TICK_S
from shadowswitch.actors.maintenance.watches import Changed, Watch
from shadowswitch.actors.messages import Tick, WatchesChanged
from shadowswitch.engine.lifecycle import Running
from shadowswitch.model.errors import InvalidConfig

SCHEDULE_TIMEOUT_S = 60.0
"""Watching a large tree means to visit each of its folders."""


class Watching(Running):
    """Notices of the file system. Any thread."""

    _ticking = False

    def watch_folder(
        self,
        folder: str | os.PathLike[str],
        changed: Changed,
        *,
        recursive: bool = True,
        quiet_s: float = 0.2,
        longest_s: float = 2.0,
        rescan_s: float = 60.0,
    ) -> Callable[[], None]:
        """Call `changed` with the paths that may have changed below a folder; returns a function that ends it.

        Paths gather until nothing came for `quiet_s`, at the longest for `longest_s`. `changed(None)` means: look at
        everything. It comes at the start, every `rescan_s`, and when notices were lost. It is called on the Watcher's
        thread, so hand over and return; what it raises is logged, and everything is told again. Raises InvalidConfig
        when there is no such folder.
        """
        house = self._alive()
        path = Path(folder).absolute()
        if not path.is_dir():
            raise InvalidConfig(f"{path} is not a folder", hint="make it first")
        if min(quiet_s, longest_s, rescan_s) <= 0:
            raise InvalidConfig("quiet_s, longest_s and rescan_s must be above 0")
        watch = Watch(path, changed, recursive=recursive, quiet_s=quiet_s, longest_s=longest_s, rescan_s=rescan_s)
        house.watches.add(watch)
        with self._close_lock:
            if not self._ticking and not self._closed:
                self._ticking = True
                house.timers.every(TICK_S, self._tick_watcher)
        self._tell_watcher()

        def end() -> None:
            house.watches.remove(watch)
            if not self._closed:
                self._tell_watcher()

        return end

    def _tell_watcher(self) -> None:
        reply: Reply[None] = Reply()
        self._house.watcher.tell(WatchesChanged(reply))
        result_of(reply, SCHEDULE_TIMEOUT_S, "watching the folder")

    def _tick_watcher(self) -> None:
        watcher = self._house.watcher
        if watcher.ref.actor_inbox.empty():
            watcher.tell(Tick())
