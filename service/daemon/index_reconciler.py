"""The index reconciler: it rebuilds an index in the shadow, and switches to it, when its description changes.

Readers use the old index during the rebuild. A further change of the description cancels the build at hand. A rollback
holds until the description changes. An index that was dropped is built again while it is described. A failed build is
tried again after `RETRY_S`, or when the settings change. A description that was refused for what its index would lack
is not built again before the settings file is saved again, or the counts of the records say something else: another
build of the same records would be refused as well.
"""

from __future__ import annotations

import difflib
import logging
import sys
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from shadowswitch.actors.build.gate import of_drop
from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import (
    DuplicateBuild,
    EngineClosed,
    ShadowSwitchError,
    Timeout,
    UnknownBranch,
    UnknownIndex,
)
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import ScheduledSwitch, ShadowIndex, SwitchRequest
from shadowswitch.service.daemon.part import AUTHOR, CHANGED, Part
from shadowswitch.service.daemon.settings import IndexSettings
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

RETRY_S = 60.0
LOOK_S = 0.5
LASTING = ("RECORD_COUNT_VALIDATION: ", "SIZE_COMPARISON: ")
"""Another build of the same records has these findings again. The others may be damage, which a build leaves behind."""

Key = tuple[str, str]


class IndexStatus(msgspec.Struct, frozen=True):
    """An index and its description. `shadow_index_id` is the build under way; `error` is the last failure."""

    branch: str
    index_type: str
    as_described: bool
    shadow_index_id: str | None
    error: str | None


NAMES_MAX = 1000
"""Branches among which a mistyped name is looked for."""


class Counted(NamedTuple):
    """What the counts of the records say against an index: its types without records, a large drop; and its records."""

    against: frozenset[str]
    records: int

    def lasts(self, now: Counted) -> bool:
        """Would the same be refused now? Not surely, once there are twice the records: one may have the field."""
        return self.against <= now.against and now.records < 2 * max(1, self.records)


class IndexReconciler(Part):
    """Builds and switches on its own thread, one index after the other. `stop` leaves a build at hand to the engine."""

    stop_timeout_s = 60.0

    def __init__(self, engine: Engine, retry_s: float = RETRY_S, look_s: float = LOOK_S) -> None:
        super().__init__(engine, "indexes")
        self._retry_s, self._look_s = retry_s, look_s
        self._lock = threading.Lock()
        self._wanted: dict[Key, IndexSettings] = {}
        self._errors: dict[Key, tuple[str, float]] = {}
        self._without_branch: dict[Key, str] = {}
        """Why an index waits for its branch."""
        self._under_way: dict[Key, str] = {}
        self._refused: dict[Key, Counted] = {}
        """Indexes with a refused description, and what was counted then."""
        self._reached: dict[Key, str] = {}
        """The fingerprint that each index had, once it was as described."""
        self._edited: set[Key] = set()
        """Indexes with a description that changed since the start, and so is newer than any rollback."""

    def want(self, indexes: Iterable[IndexSettings]) -> None:
        """Take these descriptions. An index without a description stays as it is. Any thread."""
        described = {index.key: index for index in indexes}
        with self._lock:
            for key, index in described.items():
                if key in self._wanted and self._wanted[key] != index:
                    self._edited.add(key)
                    self._reached.pop(key, None)
            self._wanted = described
            self._errors.clear()
            self._without_branch.clear()
            self._refused.clear()
        self._wake.set()

    def status(self) -> list[IndexStatus]:
        """The status of each described index. Any thread."""
        with self._lock:
            wanted = list(self._wanted.values())
        plans = [self._plan(index) for index in wanted]
        as_described = [self._is_as_described(index) for index in wanted]
        with self._lock:  # read last: an index as described without a build under way has ended its switch
            errors = self._without_branch | {key: error for key, (error, _) in self._errors.items()}
            under_way = dict(self._under_way)
        return [
            IndexStatus(
                *index.key, described, under_way.get(index.key), errors.get(index.key) or (plan.error if plan else None)
            )
            for index, described, plan in zip(wanted, as_described, plans, strict=True)
        ]

    def _round(self) -> float:
        """Build and switch each index that is not as described."""
        with self._lock:
            wanted = list(self._wanted.items())
        for key, index in wanted:
            _, since = self._errors.get(key, ("", -self._retry_s))
            refused = self._refused.get(key)
            if refused is not None:
                if refused.lasts(self._count(index)) and not self._is_as_described(index):
                    continue
                self._refused.pop(key, None)  # no wait after the first record of an index
                since = -self._retry_s
            if self._stopping.is_set() or time.monotonic() - since < self._retry_s:
                continue
            if self._plan(index) is not None or self._is_settled(key, index):  # in the order of the states
                self._without_branch.pop(key, None)
                continue
            try:
                self._build(key, index)
                self._errors.pop(key, None)
                self._without_branch.pop(key, None)
            except EngineClosed:
                raise
            except UnknownBranch:
                self._wait_for_branch(key, index)  # a mirror may create it
            except ShadowSwitchError as error:
                if self._errors.get(key, ("",))[0] != str(error):
                    logger.error("%s of branch %r is not as described: %s", index.index_type, index.branch, error)
                if self._wanted.get(key) == index:
                    self._errors[key] = (str(error), time.monotonic())
            finally:
                self._under_way.pop(key, None)
        return self._look_s

    def _wait_for_branch(self, key: Key, index: IndexSettings) -> None:
        """Say once that there is no such branch, and which one may be meant."""
        if key in self._without_branch:
            return
        names = [one.name for one in self._engine.branches(NAMES_MAX)]
        close = difflib.get_close_matches(index.branch, names, n=1)
        text = f"there is no branch {index.branch!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
        logger.warning("%s waits: %s", index.index_type, text)
        with self._lock:
            if self._wanted.get(key) == index:
                self._without_branch[key] = text

    def _count(self, index: IndexSettings) -> Counted:
        try:
            counts = {name: self._engine.count(index.branch, name) for name in index.resource_types}
            live = self._engine.index(index.branch, index.index_type).resource_types if self._is_live(index) else []
            held = sum(self._engine.count(index.branch, name) for name in live)
        except (UnknownIndex, UnknownBranch):
            return Counted(frozenset(), sys.maxsize)
        records = sum(counts.values())
        drop = of_drop(records, held, self._engine.config.records_kept_min)
        empty = frozenset(name for name, count in counts.items() if not count)
        return Counted(empty | {"a large drop"} if drop else empty, records)

    def _is_as_described(self, index: IndexSettings) -> bool:
        try:
            live = self._engine.index(index.branch, index.index_type)
        except (UnknownIndex, UnknownBranch):
            return False
        built = make_spec(index.index_type, live.resource_types, live.build_config, live.external)
        return built.fingerprint == index.fingerprint

    def _is_live(self, index: IndexSettings) -> bool:
        try:
            return bool(self._engine.index(index.branch, index.index_type))
        except (UnknownIndex, UnknownBranch):
            return False

    def _is_settled(self, key: Key, index: IndexSettings) -> bool:
        """Is there nothing to build: is the index as described, or rolled back from its description?"""
        if self._is_as_described(index):
            self._reached[key] = index.fingerprint
            self._errors.pop(key, None)
            return True
        before = self._reached.get(key) == index.fingerprint and self._is_live(index)
        if not before and (key in self._edited or not self._is_rolled_back(index)):
            return False
        self._errors[key] = ("the index was rolled back; another description starts a build", time.monotonic())
        return True

    def _is_rolled_back(self, index: IndexSettings) -> bool:
        """Was a generation as described live, and is an older one live now? The answer survives a restart, and the end
        of the soak."""
        try:
            live = self._engine.index(index.branch, index.index_type)
        except (UnknownIndex, UnknownBranch):
            return False
        for shadow in self._engine.shadows(index.branch):
            newer = shadow.index_type == index.index_type and shadow.generation > live.generation
            if newer and shadow.switched_at is not None:
                spec = make_spec(shadow.index_type, shadow.resource_types, shadow.build_config, shadow.external)
                if spec.fingerprint == index.fingerprint:
                    return True
        return False

    def _build(self, key: Key, index: IndexSettings) -> None:
        id = self._start(index)
        self._under_way[key] = id
        while True:
            try:
                self._engine.wait_for(id, "BUILT", timeout_s=self._look_s)
                break
            except Timeout:
                if self._stopping.is_set():
                    return
                if self._wanted.get(key) != index:
                    self._engine.cancel_build(id, CHANGED, AUTHOR)
                    return
        request = SwitchRequest(
            performed_by=AUTHOR, reason=CHANGED, allow_empty=index.allow_empty, force_switch=index.force_switch
        )
        if index.switch == "quiet":
            self._engine.schedule_switch(id, index.quiet_for_s, index.within_s, request)
            return
        before = self._count(index)
        result = self._engine.switch(id, request)
        if not result.success:
            self._engine.cancel_build(id, result.message, AUTHOR)
            found = result.validation_errors
            if found and all(one.startswith(LASTING) for one in found):
                with self._lock:
                    if self._wanted.get(key) == index:  # a record that was written meanwhile is behind the refusal
                        self._refused[key] = Counted(before.against | self._count(index).against, before.records)
            raise ShadowSwitchError(result.message)
        self._reached[key] = index.fingerprint  # now, for a rollback may come before the next round

    def _plan(self, index: IndexSettings) -> ScheduledSwitch | None:
        """The switch that an equal shadow waits for, or is in, if it was scheduled as the settings say."""
        wanted = (index.quiet_for_s, index.within_s, index.force_switch, index.allow_empty)
        for shadow in self._waiting(index) if index.switch == "quiet" else ():
            plan = shadow.scheduled_switch
            if plan is None or shadow.index_type != index.index_type:
                continue
            if (plan.quiet_for_s, plan.within_s, plan.force_switch, plan.allow_empty) != wanted:
                continue
            spec = make_spec(shadow.index_type, shadow.resource_types, shadow.build_config, shadow.external)
            if spec.fingerprint == index.fingerprint:
                return plan
        return None

    def _waiting(self, index: IndexSettings) -> list[ShadowIndex]:
        states = (ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.BUILT)  # one that moves meanwhile is not missed
        try:
            return [shadow for state in states for shadow in self._engine.shadows(index.branch, state)]
        except UnknownBranch:
            return []

    def _start(self, index: IndexSettings) -> str:
        """Start the build, or return an equal build under way. A build for an older description is cancelled first."""
        try:
            shadow = self._engine.start_build(
                index.branch, index.index_type, index.resource_types, index.build_config, service_name="settings",
                by=AUTHOR, reason=CHANGED,
            )  # fmt: skip
        except DuplicateBuild as error:
            shadow = self._engine.shadow(error.shadow_index_id)
            if shadow.external or shadow.service_name != "settings":
                raise
            spec = make_spec(shadow.index_type, shadow.resource_types, shadow.build_config)
            if spec.fingerprint != index.fingerprint:
                self._engine.cancel_build(shadow.shadow_index_id, CHANGED, AUTHOR)
                return self._start(index)
        return shadow.shadow_index_id
