"""The Watcher: notices of the file system (watchdog), gathered until they are quiet. One for each engine.

Notices are hints and nothing more: the kernel's queue overflows silently, a folder may be on a file system without any,
and a limit may forbid to watch. So whoever watches is also told to look at everything: at the start, every `rescan_s`,
after an overflow, and when too many paths have gathered.

One Observer serves all watches, because the kernel allows a user only 128 of them. It starts with the first watch.
"""

from __future__ import annotations

import logging
import time

from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.maintenance.watches import Watch, Watches
from shadowswitch.actors.messages import Tick, WatchesChanged

logger = logging.getLogger("shadowswitch")

TICK_S = 0.05
STOP_TIMEOUT_S = 5.0
_OBSERVERS_LOG = "watchdog.observers"
_LOST = "overflow"


class _Overflow(logging.Handler):
    """The only way in which an overflow is told is a line in watchdog's log."""

    def __init__(self, watches: Watches) -> None:
        super().__init__(logging.WARNING)
        self._watches = watches

    def emit(self, record: logging.LogRecord) -> None:
        if _LOST in record.getMessage():
            for watch in self._watches.present():
                watch.look_at_everything()


class Watcher(EngineActor):
    """Owns the Observer; tells who watches."""

    def __init__(self, house: House) -> None:
        super().__init__("shadowswitch-watcher", house.crashed)
        self._house = house
        self._observer: BaseObserver | None = None
        self._scheduled: dict[int, tuple[Watch, ObservedWatch | None]] = {}
        self._overflow = _Overflow(house.watches)
        self.handles(WatchesChanged, self._changed)
        self.handles(Tick, self._tick)

    def _changed(self, message: WatchesChanged) -> None:
        if message.reply is not None and not message.reply.set_running_or_notify_cancel():
            return
        present = {id(watch): watch for watch in self._house.watches.present()}
        for key in self._scheduled.keys() - present.keys():
            self._unschedule(*self._scheduled.pop(key))
        for key, watch in present.items():
            if key not in self._scheduled:
                self._schedule(key, watch)
        if message.reply is not None:
            message.reply.set_result(None)

    def _schedule(self, key: int, watch: Watch) -> None:
        """Without the kernel's help (a limit is reached, the folder is gone) the rescans are all there is."""
        self._scheduled[key] = (watch, None)
        try:
            if self._observer is None:
                self._observer = Observer()
                logging.getLogger(_OBSERVERS_LOG).addHandler(self._overflow)
                self._observer.start()
            ticket = self._observer.schedule(watch, str(watch.folder), recursive=watch.recursive)
            self._scheduled[key] = (watch, ticket)
        except (OSError, RuntimeError) as error:
            logger.warning("%s cannot be watched and is only looked at now and then: %s", watch.folder, error)
        watch.look_at_everything()

    def _unschedule(self, watch: Watch, ticket: ObservedWatch | None) -> None:
        """Several watches of one folder share what the Observer has of it."""
        if self._observer is None or ticket is None:
            return
        try:
            if any(other == ticket for _, other in self._scheduled.values()):
                self._observer.remove_handler_for_watch(watch, ticket)
            else:
                self._observer.unschedule(ticket)
        except (KeyError, OSError) as error:
            logger.warning("%s could not be left: %r", watch.folder, error)

    def _tick(self, _: Tick) -> None:
        present = self._house.watches.present()
        if len(present) != len(self._scheduled):  # this Watcher took the place of another
            self._changed(WatchesChanged(None))
        now = time.monotonic()
        for watch in present:
            watch.tell(now)

    def on_stop(self) -> None:
        """Stop the Observer; on the actor's thread."""
        super().on_stop()
        observer, self._observer = self._observer, None
        if observer is not None:
            logging.getLogger(_OBSERVERS_LOG).removeHandler(self._overflow)
            observer.stop()
            observer.join(STOP_TIMEOUT_S)
