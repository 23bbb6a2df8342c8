"""The Watcher: owns the Observer of the file system (watchdog). One for each engine.

A notice is a hint: the queue of the kernel overflows silently, some file systems send no notices, and a limit may
forbid a watch. So every watch also gets "look at everything": at the start, every `rescan_s`, after an overflow, and
when too many paths have gathered.

One Observer serves all watches, because the kernel allows a user only 128 of them. It starts with the first watch.
"""

from __future__ import annotations

import logging

import msgspec
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.maintenance.watches import Watch, Watches

logger = logging.getLogger("shadowswitch")

TICK_S = 0.05
STOP_TIMEOUT_S = 5.0
_OBSERVERS_LOG = "watchdog.observers"
_LOST = "overflow"


class WatchesChanged(msgspec.Struct, frozen=True):
    """To the Watcher: a watch was added or removed. Reply: None, once the Observer has it, or has it no more."""

    reply: Reply[None] | None


class _Overflow(logging.Handler):
    """Watchdog reports an overflow only as a line in its log."""

    def __init__(self, watches: Watches) -> None:
        super().__init__(logging.WARNING)
        self._watches = watches

    def emit(self, record: logging.LogRecord) -> None:
        if _LOST in record.getMessage():
            for watch in self._watches.present():
                watch.look_at_everything()


class Watcher(EngineActor):
    """Schedules the watches with the Observer, and lets each hand over its paths."""

    def __init__(self, context: EngineContext, watches: Watches) -> None:
        super().__init__("shadowswitch-watcher", context.crashed)
        self._clock = context.clock
        self._watches = watches
        self._observer: BaseObserver | None = None
        self._scheduled: dict[int, tuple[Watch, ObservedWatch | None]] = {}
        self._overflow = _Overflow(watches)
        self.handles(WatchesChanged, self._changed)
        self.handles(Tick, self._tick)

    def _changed(self, message: WatchesChanged) -> None:
        if message.reply is not None and not message.reply.set_running_or_notify_cancel():
            return
        present = {id(watch): watch for watch in self._watches.present()}
        for key in self._scheduled.keys() - present.keys():
            self._unschedule(*self._scheduled.pop(key))
        for key, watch in present.items():
            if key not in self._scheduled:
                self._schedule(key, watch)
        if message.reply is not None:
            message.reply.set_result(None)

    def _schedule(self, key: int, watch: Watch) -> None:
        """A watch that the kernel refuses (a limit is reached, the folder is gone) has only its rescans."""
        self._scheduled[key] = (watch, None)
        try:
            if self._observer is None:
                observer = Observer()
                observer.start()
                self._observer = observer
                logging.getLogger(_OBSERVERS_LOG).addHandler(self._overflow)
            ticket = self._observer.schedule(watch, str(watch.folder), recursive=watch.recursive)
            self._scheduled[key] = (watch, ticket)
        except (OSError, RuntimeError) as error:
            logger.warning("%s cannot be watched and is only looked at now and then: %s", watch.folder, error)
        watch.look_at_everything()

    def _unschedule(self, watch: Watch, ticket: ObservedWatch | None) -> None:
        """Several watches of one folder share one ticket of the Observer."""
        if self._observer is None or ticket is None:
            return
        try:
            if any(other == ticket for _, other in self._scheduled.values()):
                self._observer.remove_handler_for_watch(watch, ticket)
            else:
                self._observer.unschedule(ticket)
        except (KeyError, OSError) as error:
            logger.warning("the watch of %s could not be ended: %r", watch.folder, error)

    def _tick(self, _: Tick) -> None:
        present = self._watches.present()
        if len(present) != len(self._scheduled):  # this Watcher is the successor of a dead one
            self._changed(WatchesChanged(None))
        now = self._clock.monotonic()
        for watch in present:
            watch.hand_over(now)

    def on_stop(self) -> None:
        """Stop the Observer; on the actor's thread."""
        super().on_stop()
        observer, self._observer = self._observer, None
        if observer is not None:
            logging.getLogger(_OBSERVERS_LOG).removeHandler(self._overflow)
            observer.stop()
            observer.join(STOP_TIMEOUT_S)
