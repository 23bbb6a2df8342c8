"""Which ShadowBuilders run, and the calls that start, cancel and retry builds."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from shadowswitch.actors.branch.lock_progress import blocked_by_build
from shadowswitch.actors.build.builder import ShadowBuilder
from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import Address, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import BeginBuild, CancelBuild, TrackBuild, Tune, Unfollow
from shadowswitch.model.errors import DuplicateBuild, InvalidConfig, InvalidTransition, ShadowSwitchError, StorageFull
from shadowswitch.model.shadow_state import ShadowState, check_move
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import BranchRow, ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

S = ShadowState
CANCEL_TIMEOUT_S = 30.0
OWNER = "shadowswitch"
"""Who indexes, where no service is named."""


class BuildRegistry:
    """The running builds of an engine. Any thread."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._lock = threading.Lock()
        self._builders: dict[str, Address] = {}
        self._closed = False

    def claim(
        self,
        branch: BranchRow,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None,
        external: bool,
        service_name: str,
        track_ready: bool = False,
    ) -> ShadowRow:
        """Claim a build durably and start its builder."""
        spec = make_spec(index_type, resource_types, build_config, external)
        config = plain("build_config", build_config or {})
        self._preflight(branch, index_type)
        shadow_id = uuid.uuid4().hex

        def work(commit: Commit) -> ShadowRow:
            row, _ = transitions.claim_build(
                commit, shadow_id, branch, spec, config, external, service_name, track_ready=track_ready
            )
            return row

        types = tuple(spec.resource_types)
        what = TrackBuild(shadow_id, index_type, types, service_name or OWNER, work, Reply()) if track_ready else None
        return self.start(self._begin(branch, work, what))

    def _begin(self, branch: BranchRow, work: Callable[[Commit], ShadowRow], track: TrackBuild | None) -> ShadowRow:
        """PREPARING, in one transaction; if it is tracked, through the actor of its branch."""
        try:
            if track is None:
                return self._house.transact(work, "start build")
            self._house.router.tell(branch, track)
            row: ShadowRow = result_of(track.reply, CANCEL_TIMEOUT_S, "the start of the build")
            return row
        except DuplicateBuild as error:
            error.blocked = blocked_by_build(self._house, error.shadow_index_id, time.monotonic())
            raise

    def _preflight(self, branch: BranchRow, index_type: str) -> None:
        """Is there room? A shadow will be about as large as the live index, or twice what the catalog holds."""
        index = self._house.catalog.index(branch.number, index_type)
        live = self._house.generations.get(index.live) if index is not None else None
        if live is not None:
            estimate = int(1.2 * data_directory.directory_size_bytes(live.path))
        else:
            estimate = 2 * int(self._house.catalog.statistics()["map_used_bytes"])
        free, reserve = data_directory.free_bytes(self._house.root), self._house.config.disk_reserve_bytes
        if free < estimate + reserve:
            raise StorageFull(
                f"the build may need {estimate} bytes, and {free} are free, of which {reserve} stay in reserve",
                operation="start_build",
                object=branch.name,
                hint="free space, or lower Config.disk_reserve_bytes",
            )

    def start(self, row: ShadowRow) -> ShadowRow:
        """Start (or go on with) the build of a PREPARING or BUILDING shadow; an external one is only prepared."""
        if row.external:
            return self._house.external.prepare(row)
        workers = make_spec(row.index_type, row.resource_types, row.build_config).parallel_workers
        with self._lock:
            if self._closed:
                return row
            self._forget_ended()
            address = Address(lambda: ShadowBuilder.start(self._house, row, workers))
            self._builders[row.id] = address
        address.tell(BeginBuild())
        return row

    def go_on(self, row: ShadowRow) -> None:
        """At an open: as `start`, but no room for the directory of an external build does not fail the open."""
        try:
            self.start(row)
        except ShadowSwitchError as error:
            logger.error("shadow %s does not go on: %s", row.id, error)

    def retry(self, shadow_id: str) -> ShadowRow:
        """FAILED to PREPARING, and on."""
        row = self._house.catalog.shadow(shadow_id)
        branch = self._house.catalog.branch(row.branch_name)

        def work(commit: Commit) -> ShadowRow:
            return transitions.mark_retrying(commit, shadow_id)

        types = tuple(row.resource_types)
        track = TrackBuild(shadow_id, row.index_type, types, row.service_name or OWNER, work, Reply())
        return self.start(self._begin(branch, work, track if row.track_ready else None))

    def tune(self, shadow_id: str, share: float | None, paused: bool | None) -> None:
        """Throttle, pause or let go on a running build. Raises InvalidTransition when it is not running."""
        with self._lock:
            address = self._builders.get(shadow_id)
        row = self._house.catalog.shadow(shadow_id)
        if address is None or not address.ref.is_alive() or row.state not in (S.PREPARING, S.BUILDING):
            raise InvalidTransition(f"shadow {shadow_id} is {row.state}, not being built", operation="tune build")
        reply: Reply[None] = Reply()
        address.tell(Tune(share, paused, reply))
        result_of(reply, CANCEL_TIMEOUT_S, "the change")

    def cancel(self, shadow_id: str, reason: str) -> None:
        """End a build wherever it stands; when this returns, nothing of it writes any file."""
        row = self._house.catalog.shadow(shadow_id)
        check_move(shadow_id, row.state, ShadowState.CANCELLED)
        if self._ended_by_builder(shadow_id, CancelBuild(reason, Reply()), ShadowState.CANCELLED):
            return
        # marked first: a switch that came in between keeps its shadow, and what is live goes on being followed
        self._house.transact(lambda c: transitions.mark_cancelled(c, shadow_id, reason), "cancel build")
        unfollow: Reply[None] = Reply()
        self._house.followers.of(row.generation).tell(Unfollow(row.generation, unfollow))
        result_of(unfollow, CANCEL_TIMEOUT_S, "the cancellation")

    def fail(self, shadow_id: str, error: str) -> None:
        """FAILED in the words of somebody outside; when this returns, nothing of it writes any file."""
        self._check_under_way(self._house.catalog.shadow(shadow_id))
        if self._ended_by_builder(shadow_id, CancelBuild(error, Reply(), failed=True), ShadowState.FAILED):
            return

        def work(commit: Commit) -> None:
            self._check_under_way(commit.shadow(shadow_id))  # it may have become BUILT meanwhile
            transitions.mark_failed(commit, shadow_id, error)

        self._house.transact(work, "fail build")
        self._house.metrics.count("builds_failed")

    def _ended_by_builder(self, shadow_id: str, message: CancelBuild, wanted: ShadowState) -> bool:
        """Has its builder brought it to this end? False when none runs, or none any more."""
        with self._lock:
            address = self._builders.get(shadow_id)
        if address is None or not address.ref.is_alive():
            return False
        address.tell(message)
        try:
            result_of(message.reply, CANCEL_TIMEOUT_S, "the failure" if message.failed else "the cancellation")
        except Exception:
            if self._house.catalog.shadow(shadow_id).state == wanted:
                return True
            if address.ref.is_alive():
                raise
            return False
        return True

    def _check_under_way(self, row: ShadowRow) -> None:
        if row.state not in (S.PREPARING, S.BUILDING):
            raise InvalidTransition(
                f"shadow {row.id} is {row.state}, not BUILDING",
                operation="fail build",
                object=row.id,
                hint="cancel_build discards a shadow that is BUILT",
            )

    def _forget_ended(self) -> None:
        for shadow_id, address in list(self._builders.items()):
            if not address.ref.is_alive():
                del self._builders[shadow_id]
                self._house.running_builds.meters.pop(shadow_id, None)

    def running(self) -> int:
        """How many builders run."""
        with self._lock:
            self._forget_ended()
            return len(self._builders)

    def mend(self) -> list[str]:
        """Start again the builders that died although their shadow is under way; returns their shadows' ids."""
        if self._house.catalog.failed is not None:
            return []
        with self._lock:
            dead = [i for i, address in self._builders.items() if not address.ref.is_alive()]
        mended = []
        for shadow_id in dead:
            row = self._house.catalog.find_shadow(shadow_id)
            if row is not None and row.state in (ShadowState.PREPARING, ShadowState.BUILDING):
                self.start(row)
                mended.append(shadow_id)
        with self._lock:
            self._forget_ended()
        return mended

    def close(self, timeout_s: float) -> None:
        """Stop all builders; their builds go on at the next start."""
        with self._lock:
            self._closed = True
            builders, self._builders = list(self._builders.values()), {}
        for address in builders:
            if address.ref.is_alive():
                address.stop(timeout_s)


def plain(what: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A build_config or summary as it is stored; raises InvalidConfig when it is not JSON-like."""
    try:
        found: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(dict(config)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"{what} cannot be stored: {error}", hint="use JSON-like values") from error
    return found
