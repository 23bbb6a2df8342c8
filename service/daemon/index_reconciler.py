"""Keeps indexes as the settings describe them: another description means a rebuild in the shadow, and a switch.

People search the old index meanwhile. When the description changes again, the build of the one before is cancelled.
What somebody rolled back stays so until the description changes. A build that fails is tried again after `RETRY_S`, or
as soon as the settings change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import (
    DuplicateBuild,
    EngineClosed,
    ShadowSwitchError,
    Timeout,
    UnknownBranch,
    UnknownIndex,
)
from shadowswitch.model.views import SwitchRequest
from shadowswitch.service.daemon.settings import IndexSettings
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

RETRY_S = 60.0
LOOK_S = 0.5
STOP_TIMEOUT_S = 60.0

Key = tuple[str, str]


class IndexStatus(msgspec.Struct, frozen=True):
    """How an index stands to its description: `shadow_index_id` is under way, `error` says why the last try failed."""

    branch: str
    index_type: str
    as_described: bool
    shadow_index_id: str | None
    error: str | None


class IndexReconciler:
    """One thread that builds and switches, one index after the other."""

    def __init__(self, engine: Engine, retry_s: float = RETRY_S, look_s: float = LOOK_S) -> None:
        self._engine = engine
        self._retry_s, self._look_s = retry_s, look_s
        self._changed = threading.Condition()
        self._wanted: dict[Key, IndexSettings] = {}
        self._errors: dict[Key, tuple[str, float]] = {}
        self._under_way: dict[Key, str] = {}
        self._reached: dict[Key, str] = {}
        self._edited: set[Key] = set()
        """Described otherwise since the start: then the description is newer than any rollback."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shadowswitch-indexes", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self, indexes: Iterable[IndexSettings]) -> None:
        """From now on these; what is no longer described is left as it is. Any thread."""
        indexes = list(indexes)
        with self._changed:
            for index in indexes:
                key = (index.branch, index.index_type)
                if key in self._wanted and self._wanted[key] != index:
                    self._edited.add(key)
                    self._reached.pop(key, None)
            self._wanted = {(index.branch, index.index_type): index for index in indexes}
            self._errors.clear()
            self._changed.notify_all()

    def stop(self) -> None:
        """End; a build that is under way goes on with the engine. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def status(self) -> list[IndexStatus]:
        """Of each described index. Any thread."""
        with self._changed:
            wanted = list(self._wanted.values())
        described = [self._is_as_described(index) for index in wanted]
        with self._changed:  # after that: as described and nothing under way means that the switch is over
            errors = {key: error for key, (error, _) in self._errors.items()}
            under_way = dict(self._under_way)
        return [
            IndexStatus(
                index.branch,
                index.index_type,
                as_described,
                under_way.get((index.branch, index.index_type)),
                errors.get((index.branch, index.index_type)),
            )
            for index, as_described in zip(wanted, described, strict=True)
        ]

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._round()
            except EngineClosed:
                return
            except Exception:
                logger.exception("the indexes could not be looked at")
            with self._changed:
                if not self._stopping:
                    self._changed.wait(self._look_s)

    def _round(self) -> None:
        with self._changed:
            wanted = list(self._wanted.items())
        for key, index in wanted:
            _, since = self._errors.get(key, ("", -self._retry_s))
            if self._stopping or time.monotonic() - since < self._retry_s or self._is_settled(key, index):
                continue
            try:
                self._build(key, index)
                self._errors.pop(key, None)
            except EngineClosed:
                raise
            except UnknownBranch:
                continue  # its mirror makes it
            except ShadowSwitchError as error:
                logger.error("%s of branch %r is not as described: %s", index.index_type, index.branch, error)
                if self._wanted.get(key) == index:
                    self._errors[key] = (str(error), time.monotonic())
            finally:
                self._under_way.pop(key, None)

    def _is_as_described(self, index: IndexSettings) -> bool:
        try:
            live = self._engine.index(index.branch, index.index_type)
        except (UnknownIndex, UnknownBranch):
            return False
        built = make_spec(index.index_type, live.resource_types, live.build_config, live.external)
        return built.fingerprint == index.fingerprint

    def _is_settled(self, key: Key, index: IndexSettings) -> bool:
        """Is there nothing to do: is it as described, or was it, and somebody (or its health) went back since?"""
        if self._is_as_described(index):
            self._reached[key] = index.fingerprint
            self._errors.pop(key, None)
            return True
        before = self._reached.get(key) == index.fingerprint
        if not before and (key in self._edited or not self._was_gone_back_from(index)):
            return False
        self._errors[key] = ("it was rolled back; another description builds it again", time.monotonic())
        return True

    def _was_gone_back_from(self, index: IndexSettings) -> bool:
        """Is what is described the generation that soaks, and newer than the live one? So it is after a restart too."""
        try:
            live = self._engine.index(index.branch, index.index_type)
        except (UnknownIndex, UnknownBranch):
            return False
        for shadow in self._engine.shadows(index.branch, "ACTIVE"):
            if shadow.generation == live.previous_generation and shadow.generation > live.generation:
                spec = make_spec(shadow.index_type, shadow.resource_types, shadow.build_config, shadow.external)
                return spec.fingerprint == index.fingerprint
        return False

    def _build(self, key: Key, index: IndexSettings) -> None:
        id = self._start(index)
        self._under_way[key] = id
        while True:
            try:
                self._engine.wait_for(id, "BUILT", timeout_s=self._look_s)
                break
            except Timeout:
                if self._stopping:
                    return
                if self._wanted.get(key) != index:
                    self._engine.cancel_build(id, "the settings changed")
                    return
        result = self._engine.switch(id, SwitchRequest(performed_by="settings", reason="the settings changed"))
        if not result.success:
            self._engine.cancel_build(id, result.message)
            raise ShadowSwitchError(result.message)

    def _start(self, index: IndexSettings) -> str:
        """Start its build, or find the one that is under way; one of another description is in the way."""
        try:
            shadow = self._engine.start_build(
                index.branch, index.index_type, index.resource_types, index.build_config, service_name="settings"
            )
        except DuplicateBuild as error:
            shadow = self._engine.shadow(error.shadow_index_id)
            if shadow.external or shadow.service_name != "settings":
                raise
            spec = make_spec(shadow.index_type, shadow.resource_types, shadow.build_config)
            if spec.fingerprint != index.fingerprint:
                self._engine.cancel_build(shadow.shadow_index_id, "the settings changed")
                return self._start(index)
        return shadow.shadow_index_id
