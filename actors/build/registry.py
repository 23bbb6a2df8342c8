"""The BuildRegistry: the calls that start, cancel, fail, retry and operate builds."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.branch.lifecycle import TrackBuild
from shadowswitch.actors.branch.lock_progress import BuildProgress
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.builder import Throttle
from shadowswitch.actors.build.external import ExternalBuilds
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.follower import Unfollow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.queue.builders import Builders, StartBuilder
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import (
    DuplicateBuild,
    InternalFailure,
    InvalidConfig,
    InvalidTransition,
    ResourceExhausted,
    ShadowSwitchError,
    StorageFull,
    Timeout,
)
from shadowswitch.model.records import DEPTH_MAX, is_deeper
from shadowswitch.model.shadow_state import ShadowState, check_move
from shadowswitch.storage import disk
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, ShadowRow
from shadowswitch.storage.catalog.source.sizes import catalog_sizes
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.catalog.transitions.operating import refuse_unworked
from shadowswitch.storage.generations import seeding
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

S = ShadowState
CANCEL_TIMEOUT_S = 30.0
OWNER = "shadowswitch"
"""The owner of a build that names no service."""


class BuildRegistry:
    """What callers do with the builds of an engine. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        router: BranchRouter,
        external: ExternalBuilds,
        generations: OpenGenerations,
        followers: FollowerPool,
        builds: RunningBuilds,
        progress: BuildProgress,
        start_builder: StartBuilder,
    ) -> None:
        self._context = context
        self._router = router
        self._external = external
        self._generations = generations
        self._followers = followers
        self._running = builds
        self._progress = progress
        self.builders = Builders(context, builds, start_builder)
        self._lock = threading.Lock()
        self._unanswered: set[str] = set()
        """Shadows whose claim or retry got no answer: `mend` starts the builder if the catalog has it."""

    def claim(
        self,
        branch: BranchRow,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None,
        external: bool,
        service_name: str,
        track_ready: bool = False,
        by: str = "",
        reason: str = "",
        priority: int = 0,
        of_rebuild: bool = False,
        seed: str = seeding.AUTO,
        is_clone: bool = False,
    ) -> ShadowRow:
        """Claim a build durably; its builder starts once there is a place for it."""
        shadow_id = uuid.uuid4().hex
        work = self.claiming(
            branch, index_type, resource_types, build_config, external, service_name, track_ready, priority, of_rebuild,
            seed, is_clone, shadow_id,
        )  # fmt: skip
        claim = signed(work, by, reason)
        what = None
        if track_ready:
            types = tuple(sorted(set(resource_types)))
            what = TrackBuild(shadow_id, index_type, types, service_name or OWNER, claim, Reply())
        return self.start(self._begin(shadow_id, branch, claim, what))

    def claiming(
        self,
        branch: BranchRow,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None,
        external: bool = False,
        service_name: str = "",
        track_ready: bool = False,
        priority: int = 0,
        of_rebuild: bool = False,
        seed: str = seeding.AUTO,
        is_clone: bool = False,
        shadow_id: str = "",
    ) -> Callable[[Commit], ShadowRow]:
        """The claim of a build, for a transaction that may claim several, all or none; `start` begins it."""
        spec = make_spec(index_type, resource_types, build_config, external)
        config = plain("build_config", build_config or {})
        seed = seeding.CLONE if is_clone else seeding.check_seed(seed, external, build_config)
        source = seeding.choose(self._context.catalog, branch.number, spec, seed, self._is_open)
        self._preflight(branch, index_type, source)
        id, heals = shadow_id or uuid.uuid4().hex, self._is_unserved(branch.number, index_type)

        def work(commit: Commit) -> ShadowRow:
            row, _ = transitions.claim_build(
                commit, id, branch, spec, config, external, service_name, track_ready=track_ready, heals=heals,
                priority=priority, of_rebuild=of_rebuild, seed=seed, seeded_from=source.number if source else 0,
            )  # fmt: skip
            what = {"branch_name": branch.name, "index_type": index_type, "service_name": service_name}
            commit.audit("build.claimed", id, what)
            return row

        return work

    def _begin(
        self, shadow_id: str, branch: BranchRow, work: Callable[[Commit], ShadowRow], track: TrackBuild | None
    ) -> ShadowRow:
        """PREPARING, in one transaction; a tracked build goes through the actor of its branch."""
        with self._lock:
            self._unanswered.discard(shadow_id)
        try:
            if track is None:
                return self._context.transact(work, "start build")
            self._router.tell(branch, track)
            row: ShadowRow = result_of(track.reply, CANCEL_TIMEOUT_S, "the start of the build")
            return row
        except DuplicateBuild as error:
            error.blocked = self._progress.blocked_by_build(error.shadow_index_id, self._context.clock.monotonic())
            raise
        except (Timeout, InternalFailure):  # the transaction may be durable, or become so
            with self._lock:
                self._unanswered.add(shadow_id)
            raise

    def _is_open(self, generation: int) -> bool:
        return self._generations.get(generation) is not None

    def _is_unserved(self, branch: int, index_type: str) -> bool:
        """Has the index a live generation that cannot be served? A build heals it, also on an ARCHIVED branch."""
        index = self._context.catalog.index(branch, index_type)
        return index is not None and bool(index.live) and not self._is_open(index.live)

    def _preflight(self, branch: BranchRow, index_type: str, source: GenerationRow | None) -> None:
        """Is there room? The estimate is 1.2 times the size of the generation that the build begins from, or of the
        live index; or twice the size of the catalog."""
        index = self._context.catalog.index(branch.number, index_type)
        number = source.number if source is not None else index.live if index is not None else 0
        like = self._generations.get(number)
        if like is not None:
            estimate = int(1.2 * disk.directory_size_bytes(like.path))
        else:
            estimate = 2 * int(catalog_sizes(self._context.catalog)["map_used_bytes"])
        free, reserve = disk.free_bytes(self._context.root), self._context.config.disk_reserve_bytes
        if free < estimate + reserve:
            raise StorageFull(
                f"the build may need {estimate} bytes, and {free} are free; {reserve} must stay in reserve",
                operation="start_build",
                object=branch.name,
                hint="free space, or lower Config.disk_reserve_bytes",
            )

    def start(self, row: ShadowRow) -> ShadowRow:
        """Start (or go on with) the build of a PREPARING or BUILDING shadow; an external build is only prepared.

        A build waits for a place, and for a thread that cannot be had. An external build is given up instead:
        ResourceExhausted.
        """
        if row.external:
            return self._prepare_external(row)
        self.builders.start(row)
        return row

    def _prepare_external(self, row: ShadowRow) -> ShadowRow:
        try:
            return self._external.prepare(row)
        except ResourceExhausted as error:
            reason = f"its directory could not be made: {error}"
            if row.start_lsn:  # it was BUILDING before: its files stay for a retry
                self._context.transact(partial(transitions.mark_failed, shadow_id=row.id, reason=reason), "fail build")
            else:
                self._context.transact(lambda c: transitions.mark_cancelled(c, row.id, reason), "cancel build")
            raise

    def go_on(self, rows: Iterable[ShadowRow]) -> None:
        """At an open: a full disk (no directory for an external build) does not fail the open."""
        rows = list(rows)
        for row in rows:
            try:
                if row.external:
                    self._prepare_external(row)
            except ShadowSwitchError as error:
                logger.error("shadow %s does not go on: %s", row.id, error)
        self.builders.start_all(rows)

    def retry(self, shadow_id: str, by: str = "", reason: str = "") -> ShadowRow:
        """FAILED to PREPARING, and on."""
        row = self._context.catalog.shadow(shadow_id)
        branch = self._context.catalog.branch(row.branch_name)
        heals = self._is_unserved(row.branch, row.index_type)

        def work(commit: Commit) -> ShadowRow:
            row = transitions.mark_retrying(commit, shadow_id, heals)
            commit.audit("build.retried", shadow_id, {"retry_count": row.retry_count})
            return row

        types = tuple(row.resource_types)
        again = signed(work, by, reason)
        track = TrackBuild(shadow_id, row.index_type, types, row.service_name or OWNER, again, Reply())
        return self.start(self._begin(shadow_id, branch, again, track if row.track_ready else None))

    def cancel(self, shadow_id: str, reason: str, by: str = "") -> None:
        """End a build in any state; when this returns, it writes no file any more."""
        row = self._context.catalog.shadow(shadow_id)
        check_move(shadow_id, row.state, ShadowState.CANCELLED)
        # marked first: a switch that came in between keeps its shadow, and the Follower keeps a live generation
        work = signed(partial(transitions.mark_cancelled, shadow_id=shadow_id, reason=reason), by)
        if self.builders.stop(shadow_id, work, "cancel build", lambda row: row.state == S.CANCELLED):
            return
        unfollow: Reply[None] = Reply()
        self._followers.of(row.generation).tell(Unfollow(row.generation, unfollow))
        result_of(unfollow, CANCEL_TIMEOUT_S, "the cancellation")

    def fail(self, shadow_id: str, error: str, by: str = "") -> None:
        """FAILED with the reason of a caller; when this returns, the build writes no file any more."""
        self._check_under_way(self._context.catalog.shadow(shadow_id))

        def work(commit: Commit) -> None:
            self._check_under_way(commit.shadow(shadow_id))  # the shadow may have become BUILT meanwhile
            transitions.mark_failed(commit, shadow_id, error)

        self.builders.stop(shadow_id, signed(work, by), "fail build", lambda row: row.state == S.FAILED)
        self._context.metrics.count("builds_failed")

    # -- operating -----------------------------------------------------------------------------------------------------

    def pause(self, shadow_id: str, by: str, reason: str) -> None:
        """Let a build stand still, also over restarts. Its place is free for another one. Raises InvalidTransition."""
        refuse_unworked(self._context.catalog.shadow(shadow_id), "pause build")
        meter = self._running.meters.get(shadow_id)
        percent, _ = meter.read(self._context.clock.monotonic()) if meter is not None else (0.0, None)
        work = partial(transitions.pause, shadow_id=shadow_id, percent=percent, by=by, reason=reason)
        self.builders.stop(shadow_id, work, "pause build", lambda row: bool(row.paused_by))

    def resume(self, shadow_id: str, by: str, reason: str) -> None:
        """Let a paused build go on, once it has a place again. Raises InvalidTransition."""
        work = partial(transitions.unpause, shadow_id=shadow_id, by=by, reason=reason)
        self.builders.start(self._context.transact(work, "resume build"))

    def throttle(self, shadow_id: str, share: float, by: str, reason: str) -> None:
        """Give a build a share of the time, also over restarts. Raises InvalidTransition."""
        work = partial(transitions.set_share, shadow_id=shadow_id, share=share, by=by, reason=reason)
        self._context.transact(work, "throttle build")
        self.builders.tell(shadow_id, Throttle(share))

    def set_priority(self, shadow_id: str, priority: int, by: str, reason: str) -> None:
        """Give a build another place in the queue, also over restarts. Raises InvalidTransition."""
        work = partial(transitions.set_priority, shadow_id=shadow_id, priority=priority, by=by, reason=reason)
        self._context.transact(work, "set priority")
        self.builders.set_priority(shadow_id, priority)

    # -- mending -------------------------------------------------------------------------------------------------------

    def _check_under_way(self, row: ShadowRow) -> None:
        if row.state not in (S.PREPARING, S.BUILDING):
            raise InvalidTransition(
                f"shadow {row.id} is {row.state}, not BUILDING",
                operation="fail build",
                object=row.id,
                hint="cancel_build discards a shadow that is BUILT",
            )

    def mend(self) -> list[str]:
        """Start the builders that shadows under way need: a builder died, or its claim got no answer.

        Returns the ids of these shadows.
        """
        if self._context.catalog.failed is not None:
            return []
        return self.builders.mend() + self._start_claimed()

    def _start_claimed(self) -> list[str]:
        """Start the builders of claims and retries that got no answer and are durable."""
        started = []
        for shadow_id in list(self._unanswered):
            row = self._context.catalog.find_shadow(shadow_id)
            if row is None or row.state == S.FAILED:  # not durable, or not yet
                continue
            with self._lock:
                wanted = shadow_id in self._unanswered and row.state == S.PREPARING
                self._unanswered.discard(shadow_id)
            if wanted:
                self.go_on([row])
                started.append(shadow_id)
        return started

    def close(self, timeout_s: float) -> None:
        """Stop all builders; their builds go on at the next start."""
        self.builders.close(timeout_s)


def plain(what: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A build_config or summary in its stored form; raises InvalidConfig if it is not JSON-like, or nested too deep."""
    if is_deeper(config):
        raise InvalidConfig(f"{what} is nested deeper than {DEPTH_MAX} levels", hint="use flatter values")
    try:
        found: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(dict(config)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"{what} cannot be stored: {error}", hint="use JSON-like values") from error
    return found
