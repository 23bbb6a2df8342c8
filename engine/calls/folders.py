"""Folders: the call that watches one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from shadowswitch.actors.kit.actor import Address, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.maintenance.watcher import TICK_S, WatchesChanged
from shadowswitch.actors.maintenance.watches import Changed, Watch, Watches
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.clock import Clock

SCHEDULE_TIMEOUT_S = 60.0
"""The Watcher visits each folder of a tree when its watch begins."""


class FolderCalls:
    """Notices of the file system. Any thread."""

    def __init__(self, state: OpenState, clock: Clock, timers: Timers, watches: Watches, watcher: Address) -> None:
        self._state = state
        self._clock = clock
        self._timers = timers
        self._watches = watches
        self._watcher = watcher
        self._ticking = False
        self._lock = threading.Lock()

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

        Paths gather until no notice came for `quiet_s`, at the longest for `longest_s`. `changed(None)` means that
        everything may have changed. It comes at the start, every `rescan_s`, and when notices were lost. `changed` runs
        on the Watcher's thread, so it must hand over and return. When it raises, the error is logged and
        `changed(None)` follows. Raises InvalidConfig when there is no such folder.
        """
        self._state.check()
        path = Path(folder).absolute()
        if not path.is_dir():
            raise InvalidConfig(f"{path} is not a folder", hint="make it first")
        if min(quiet_s, longest_s, rescan_s) <= 0:
            raise InvalidConfig("quiet_s, longest_s and rescan_s must be above 0")
        changed = self._state.callback(changed)
        watch = Watch(
            self._clock, path, changed, recursive=recursive, quiet_s=quiet_s, longest_s=longest_s, rescan_s=rescan_s
        )
        self._watches.add(watch)
        self._begin_ticks()
        self._note_change()

        def end() -> None:
            self._watches.remove(watch)
            if not self._state.closed:
                self._note_change()

        return end

    def _note_change(self) -> None:
        """The Watcher takes up the present watches."""
        reply: Reply[None] = Reply()
        self._watcher.tell(WatchesChanged(reply))
        result_of(reply, SCHEDULE_TIMEOUT_S, "watching the folder")

    def _begin_ticks(self) -> None:
        """The Watcher ticks from the first watch on: an engine without watches pays for no tick."""
        with self._lock:
            begin, self._ticking = not self._ticking, True
        if begin:
            self._timers.every(TICK_S, self._tick)

    def _tick(self) -> None:
        if self._watcher.ref.actor_inbox.empty():
            self._watcher.tell(Tick())
