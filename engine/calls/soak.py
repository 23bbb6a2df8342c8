"""Soak: the calls that watch over a new generation, and the automatic rollback.

A new generation soaks for as long as its predecessor follows the journal. When the host's health check gives a reason
to go back, or a reader meets damage, the index goes back by an ordinary rollback, which loses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.host_answer import Reasons, reasons_of
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.engine.calls.switches import SwitchCalls
from shadowswitch.engine.groups.calls import GroupCalls
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import CorruptData, InvalidConfig, ResourceExhausted, ShadowSwitchError, UnknownIndex
from shadowswitch.model.views import CHECKS, IndexInfo, SwitchRequest
from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")

BACK_CHECKS = ("DIGEST", "INTEGRITY_CHECK", "SAMPLE_READ_BACK")
"""What the target of an automatic rollback must pass: that it is sound, not that it is like the generation it left."""

HealthCheck = Callable[[IndexInfo], Reasons]


class SoakCalls:
    """The health check, the host's validators, and the automatic rollback. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        generations: OpenGenerations,
        validator: ShadowValidator,
        switches: SwitchCalls,
        groups: GroupCalls,
        views: Views,
    ) -> None:
        self._config = context.config
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._changes = context.changes
        self._state = state
        self._generations = generations
        self._validator = validator
        self._switches = switches
        self._groups = groups
        self._views = views
        self._health_check: HealthCheck | None = None
        self._health_thread: threading.Thread | None = None
        self._distrusted: set[int] = set()
        """The numbers of generations that an automatic rollback leaves, so that each is left once."""

    def set_health_check(self, check: HealthCheck | None) -> None:
        """Ask the host about every soaking index each `Config.health_interval_s`.

        `check` gets the IndexInfo and returns None when all is well, or a reason to go back: a text, or several. It
        runs on a thread of its own. An exception of it, or any other answer (True, a number, an empty text), is no
        verdict: it is logged and counted as `health_checks_failed` in `stats`. Raises InvalidConfig, ResourceExhausted.
        """
        self._state.check()
        if check is not None and not callable(check):
            raise InvalidConfig(f"a health check is a function of an IndexInfo, or None, not {check!r:.80}")
        if check is not None and self._health_thread is None:
            thread = threading.Thread(target=self._watch_health, name="shadowswitch-health", daemon=True)
            with shortages("set_health_check"):
                thread.start()
            self._health_thread = thread
        self._health_check = self._state.callback(check) if check is not None else None
        self._changes.notify()

    def close(self, timeout_s: float) -> None:
        """The engine closes: wait for the end of the health check."""
        if self._health_thread is not None:
            self._health_thread.join(timeout=timeout_s)

    def _watch_health(self) -> None:
        while not self._state.wait_closed(self._config.health_interval_s):
            try:
                self._ask_health()
            except ShadowSwitchError as error:
                if not self._state.closed:
                    logger.warning("the health of indexes could not be watched: %s", error)

    def _ask_health(self) -> None:
        self._state.check()
        check = self._health_check
        for row in self._catalog.indexes():
            info = self._views.index(row) if check is not None and row.live and row.previous else None
            if info is None or check is None:
                continue
            try:
                reasons = reasons_of("the health check", check(info))
            except Exception as error:
                self._metrics.count("health_checks_failed")
                trace = None if isinstance(error, ShadowSwitchError) else error
                logger.error(
                    "no verdict on %s of %s: the health check failed: %s", row.index_type, info.branch_name, error,
                    exc_info=trace,
                )  # fmt: skip
                continue
            if reasons:
                self.go_back(info, f"health check: {'; '.join(reasons)}")

    def distrust(self, generation: int, error: CorruptData) -> None:
        """A reader met damage. If the index has a previous generation, it goes back, on a thread of its own."""
        opened = self._generations.get(generation)
        if opened is None or generation in self._distrusted:
            return
        row = self._catalog.index(opened.row.branch, opened.row.index_type)
        info = self._views.index(row) if row is not None and row.live == generation and row.previous else None
        if info is not None:
            self._distrusted.add(generation)
            reason = f"a reader found damage: {error.message}"
            thread = threading.Thread(target=self.go_back, args=(info, reason), name="shadowswitch-back", daemon=True)
            try:
                with shortages("go back"):
                    thread.start()
            except ResourceExhausted as lack:  # the next reader that meets the damage tries again
                logger.error("%s cannot go back now: %s", info.index_type, lack)
                self._distrusted.discard(generation)

    def go_back(self, info: IndexInfo, reason: str) -> None:
        """Leave a generation for that reason, if it is still live; it retires in the same commit.

        A member of a group goes back with all the others. Where one of them has nothing to go back to, the member goes
        back alone, and the group is broken up: an index that is served wrong is worse than two that do not match.
        """
        logger.error("%s of branch %r goes back: %s", info.index_type, info.branch_name, reason)
        request = SwitchRequest(performed_by="shadowswitch", reason=reason, validation_checks=BACK_CHECKS)
        try:
            success, message = self._went_back(info, request, reason)
        except ShadowSwitchError as error:
            logger.error("going back failed: %s", error)
            self._distrusted.discard(info.generation)
            return
        if success:
            self._metrics.count("automatic_rollbacks")
        else:
            logger.error("going back failed: %s", message)
            self._distrusted.discard(info.generation)

    def _went_back(self, info: IndexInfo, request: SwitchRequest, reason: str) -> tuple[bool, str]:
        row = self._catalog.branch(info.branch_name)
        group = self._groups.holder_of(row.number, info.index_type)
        if group is not None:
            try:
                together = self._groups.go_back(group, request, info.generation, reason)
                return together.success, together.message
            except UnknownIndex as error:
                logger.error("%s goes back alone: %s", info.index_type, error)
                request = msgspec.structs.replace(request, break_group=True)
        alone = self._switches.run_rollback(info.branch_name, info.index_type, request, info.generation, reason)
        return alone.success, alone.message

    def add_validator(self, name: str, validator: Callable[..., Reasons]) -> None:
        """Register a check that a SwitchRequest may name in `validation_checks`.

        `validator(reader)` gets an IndexReader of the shadow and returns its findings: a text, or several; None when
        all is well. Any other answer (True, a number, an object, an empty text) is itself a finding. It runs on a
        thread of its own, in this process; its findings are advisory. A switch whose time is over does not wait for it:
        it is given up, and the answer counts for nothing, so a second switch may call it beside the first call. Raises
        InvalidConfig for a name that is taken.
        """
        self._state.check()
        if not isinstance(name, str) or name in CHECKS or not name:
            raise InvalidConfig(f"{name!r} cannot be the name of a validator", hint="choose another")
        if not callable(validator):
            raise InvalidConfig(f"a validator is a function of a reader, not {validator!r:.80}")
        self._validator.host_checks[name] = self._state.callback(validator)
