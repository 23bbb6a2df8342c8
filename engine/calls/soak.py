"""Automatic rollback while an index soaks: the host's health check, and readers that meet damage.

A new generation is on trial for as long as its predecessor follows the journal. When the host says that it is not
well, or a reader finds it damaged, the index goes back by the ordinary switch, and loses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shadowswitch.engine.calls.switches import Switching
from shadowswitch.engine.views import index_info
from shadowswitch.model.errors import CorruptData, InvalidConfig, ShadowSwitchError
from shadowswitch.model.views import CHECKS, IndexInfo, SwitchRequest

logger = logging.getLogger("shadowswitch")

BACK_CHECKS = ("DIGEST", "INTEGRITY_CHECK", "SAMPLE_READ_BACK")
"""What a generation must pass to be gone back to by itself: that it is sound, not that it is like the other one."""

HealthCheck = Callable[[IndexInfo], str | None]


class Soaking(Switching):
    """Watching over what was switched to. Any thread."""

    _health: HealthCheck | None = None
    _health_thread: threading.Thread | None = None

    def set_health_check(self, check: HealthCheck | None) -> None:
        """Ask the host about every soaking index each `Config.health_interval_s`.

        `check` gets the IndexInfo and returns None when all is well, or a reason to go back. It runs on a
        thread of its own; what it raises is logged and is no verdict.
        """
        house = self._alive()
        if check is not None and not callable(check):
            raise InvalidConfig(f"a health check is a function of an IndexInfo, or None, not {check!r:.80}")
        self._health = check
        if check is not None and self._health_thread is None:
            self._health_thread = threading.Thread(target=self._watch_health, name="shadowswitch-health", daemon=True)
            self._helpers.append(self._health_thread)
            self._health_thread.start()
        house.changes.notify()

    def _watch_health(self) -> None:
        while not self._stopping.wait(self._house.config.health_interval_s):
            try:
                self._ask_health()
            except ShadowSwitchError as error:
                if not self._closed:
                    logger.warning("the health of indexes could not be watched: %s", error)

    def _ask_health(self) -> None:
        house, check = self._alive(), self._health
        for row in house.catalog.indexes():
            info = index_info(house, row) if check is not None and row.live and row.previous else None
            if info is None or check is None:
                continue
            try:
                reason = check(info)
            except Exception:
                logger.exception("the host's health check failed on %s of %s", row.index_type, info.branch_name)
                continue
            if reason:
                self._go_back(info, f"health check: {reason}")

    def _distrust(self, generation: int, error: CorruptData) -> None:
        """A reader met damage. If there is a generation to go back to, do so, on a thread of its own."""
        house = self._house
        opened = house.generations.get(generation)
        if opened is None or generation in self._distrusted:
            return
        row = house.catalog.index(opened.row.branch, opened.row.index_type)
        info = index_info(house, row) if row is not None and row.live == generation and row.previous else None
        if info is not None:
            self._distrusted.add(generation)
            reason = f"a reader found damage: {error.message}"
            threading.Thread(target=self._go_back, args=(info, reason), name="shadowswitch-back", daemon=True).start()

    def _go_back(self, info: IndexInfo, reason: str) -> None:
        """Leave a generation that somebody found fault with, if it is still live; it retires in the same commit."""
        logger.error("%s of branch %r goes back: %s", info.index_type, info.branch_name, reason)
        request = SwitchRequest(performed_by="shadowswitch", reason=reason, validation_checks=BACK_CHECKS)
        try:
            result = self._rollback(info.branch_name, info.index_type, request, info.generation, reason)
        except ShadowSwitchError as error:
            logger.error("going back failed: %s", error)
            self._distrusted.discard(info.generation)
            return
        if result.success:
            self._house.metrics.count("automatic_rollbacks")
        else:
            logger.error("going back failed: %s", result.message)
            self._distrusted.discard(info.generation)

    def add_validator(self, name: str, validator: Callable[..., list[str]]) -> None:
        """Register a check that a SwitchRequest may name in `validation_checks`.

        `validator(reader)` gets an IndexReader of the shadow and returns what is wrong, nothing when all is well.
        It runs on the switch's thread, in this process; its findings are advisory. Raises InvalidConfig for a name
        that is taken.
        """
        house = self._alive()
        if not isinstance(name, str) or name in CHECKS or not name:
            raise InvalidConfig(f"{name!r} cannot be the name of a validator", hint="choose another")
        if not callable(validator):
            raise InvalidConfig(f"a validator is a function of a reader, not {validator!r:.80}")
        house.validator.host_checks[name] = validator
