"""Views, made of the rows of the catalog.

`branch_view`, `shadow_view` and `index_view` need the catalog only. `Views` adds what only a running engine knows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shadowswitch.actors.branch.lock_registry import LockRegistry
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.schedule import ENDED, Plans
from shadowswitch.model.events import NOT_GIVEN
from shadowswitch.model.locks.branch_state import BranchState, BranchStatus
from shadowswitch.model.progress import Pace
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.model.views import BranchInfo, ChangesHold, IndexInfo, ScheduledSwitch, ShadowIndex, derive
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow, HoldRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.source.branch_pages import branch_rows
from shadowswitch.storage.catalog.source.index_pages import place_of
from shadowswitch.storage.clock import Clock, Moment

SWITCH_S = 0.1
"""The assumed time of the first switch of an index."""
RUNNING = (ShadowState.PREPARING, ShadowState.BUILDING)
FOLLOWED = (ShadowState.BUILDING, ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.ACTIVE)
"""In these states the engine applies the changes of the branch to the shadow, so it has a lag."""


def moment(seconds: float | None) -> datetime | None:
    """A stored time as a datetime in UTC."""
    return _moment(seconds) if seconds is not None else None


def _of_this_boot(clock: Clock, stored: Moment | None) -> datetime | None:
    """A stored moment by the wall clock of now; None for a moment of another boot."""
    left = clock.seconds_until(stored) if stored is not None else None
    return _moment(clock.wall() + left) if left is not None else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def branch_view(catalog: Catalog, row: BranchRow, state: str) -> BranchInfo:
    """A branch as the catalog has it, in a state."""
    head, oldest = catalog.head(row.number)
    count = catalog.record_count(row.number)
    parent = branch_rows(catalog, [row.parent]).get(row.parent) if row.parent else None
    forked = (parent.name, row.fork_lsn, row.mode) if parent is not None else (None, None, None)
    return BranchInfo(row.name, state, head, count, oldest, _moment(row.created_at), row.number, *forked)


def paused_text(row: ShadowRow) -> str | None:
    """Author and reason of a pause; None for a build that is not paused."""
    if row.state not in RUNNING or not row.paused_by:
        return None
    why = f" ({row.paused_why})" if row.paused_why != NOT_GIVEN else ""
    return f"paused by {row.paused_by}{why}; resume_build lets it go on"


def scheduled_view(row: ShadowRow) -> ScheduledSwitch | None:
    """The plan of a switch as its row has it."""
    plan = row.plan
    if plan is None or row.state in ENDED:
        return None
    by, reason = plan.request.get("performed_by", ""), plan.request.get("reason", "")
    meant = {name: plan.request.get(name, False) for name in ("force_switch", "allow_empty")}
    return derive(ScheduledSwitch, plan, by=by, reason=reason, error=plan.error or None, **meant)


def shadow_view(row: ShadowRow, root: Path, head_lsn: int) -> ShadowIndex:
    """The status of a shadow as its row has it, without estimates of its switch."""
    built = row.state == ShadowState.BUILT
    lag = max(0, head_lsn - max(row.applied_lsn, row.start_lsn))
    return derive(
        ShadowIndex,
        row,
        {"id": "shadow_index_id", "size_bytes": "index_size_bytes"},
        build_progress_percent=round(row.progress, 1),
        estimated_completion_seconds=row.eta_s if row.state in RUNNING else 0.0 if built else None,
        switch_ready=built,
        estimated_switch_duration_seconds=None,
        lag_changes=lag if row.state in FOLLOWED else 0,
        created_at=_moment(row.created_at),
        started_at=moment(row.started_at),
        completed_at=moment(row.completed_at),
        switched_at=moment(row.switched_at),
        error=row.error or None,
        paused_by=row.paused_by or None if row.state in RUNNING else None,
        stands_still=paused_text(row),
        scheduled_switch=scheduled_view(row),
        shadow_index_path=str(root / row.path),
        records_per_second=_pace(row),
        seeded_from=row.seeded_from or None,
    )


def _pace(row: ShadowRow) -> float | None:
    """The records per second of a build. Of another process, or cut by a kill: by wall time."""
    if isinstance(row.pace, Pace) and row.pace.rows and row.pace.whole_s:
        return row.pace.rows / row.pace.whole_s
    if row.completed_at is None or row.started_at is None or not row.record_count:
        return None
    return row.record_count / max(0.001, row.completed_at - row.started_at)


def index_view(
    catalog: Catalog,
    row: IndexRow,
    root: Path,
    head_lsn: int,
    *,
    record_count: int = 0,
    applied_lsn: int | None = None,
    pins: int = 0,
    hindered: str | None = None,
) -> IndexInfo | None:
    """A live index as the catalog has it; None when no generation is live.

    `applied_lsn` is by default the LSN up to which the generation is durable, `hindered` the stored reason.
    """
    generation = catalog.generation(row.live)
    if generation is None:
        return None
    shadow = catalog.shadow(generation.shadow_id)
    previous = catalog.generation(row.previous) if row.previous else None
    applied = generation.durable_lsn if applied_lsn is None else applied_lsn
    return derive(
        IndexInfo,
        generation,
        {"number": "generation"},
        branch_name=shadow.branch_name,
        shadow_index_id=shadow.id,
        previous_generation=row.previous or None,
        path=str(root / generation.path),
        record_count=record_count,
        applied_lsn=applied,
        head_lsn=head_lsn,
        lag_changes=max(0, head_lsn - applied),
        pins=pins,
        switched_at=_moment(row.switched_at),
        build_config=shadow.build_config,
        soak_until=_of_this_boot(catalog.clock, previous.soak_ends) if previous is not None else None,
        external=shadow.external,
        error=(generation.hindered if hindered is None else hindered) or None,
        place=place_of(row),
    )


class Views:
    """Makes views of rows, each as of the moment of the call. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        heads: Heads,
        generations: OpenGenerations,
        locks: LockRegistry,
        running_builds: RunningBuilds,
        plans: Plans,
    ) -> None:
        self._root = context.root
        self._clock = context.clock
        self._catalog = context.catalog
        self._heads = heads
        self._generations = generations
        self._locks = locks
        self._running_builds = running_builds
        self._plans = plans

    def branch(self, row: BranchRow) -> BranchInfo:
        """A branch."""
        locks = self._locks.find(row.number)
        return branch_view(self._catalog, row, str(locks.state_now()) if locks is not None else row.state)

    def branch_status(self, row: BranchRow) -> BranchStatus:
        """The state of a branch, and the indexing that goes on."""
        locks = self._locks.find(row.number)
        if locks is not None:
            return msgspec.structs.replace(locks.held.status, state=locks.state_now())
        return BranchStatus(row.name, _moment(row.created_at), BranchState(row.state))

    def hold(self, row: HoldRow, branch_name: str) -> ChangesHold:
        """A subscriber's hold on the journal."""
        lag = 0 if row.given_up else max(0, self._heads.of(row.branch) - row.after_lsn)
        made, moved = _moment(row.created_at), _moment(row.moved_at)
        return ChangesHold(row.name, branch_name, row.after_lsn, lag, made, moved, row.given_up)

    def shadow(self, id: str) -> ShadowIndex:
        """The status of a shadow. Raises UnknownShadow."""
        return self.shadow_of(self._catalog.shadow(id))

    def shadow_of(self, row: ShadowRow) -> ShadowIndex:
        """The status of a shadow: the durable row, and the live progress of a running build."""
        opened = self._generations.get(row.generation)
        if opened is not None:
            row = msgspec.structs.replace(
                row, applied_lsn=opened.applied_lsn, error=row.error or opened.hindered or None
            )
        if row.state not in RUNNING or row.external:
            view = shadow_view(row, self._root, self._heads.of(row.branch))
            return self._with_plan(row, self._with_estimates(row, view) if view.switch_ready else view)
        position = self._running_builds.queue.position(row.id)
        stuck = self._running_builds.stuck.get(row.id)
        if position is None and not row.paused_by:
            row = self._with_progress(row)
        else:  # it does not move, so no time to its end is known
            phase = Phase.PAUSED if row.paused_by else Phase.QUEUED
            row = msgspec.structs.replace(row, phase=phase, eta_s=None)
        if not row.error:
            row = msgspec.structs.replace(row, error=stuck)
        view = shadow_view(row, self._root, self._heads.of(row.branch))
        short = self._running_builds.short_of_disk.get(row.id)
        reason = view.stands_still or stuck or short or self._queued_text(position)
        way = self._running_builds.way.text if reason is None else None
        view = msgspec.structs.replace(view, queue_position=position, gives_way=way, stands_still=reason)
        return self._with_plan(row, view)

    def _with_plan(self, row: ShadowRow, view: ShadowIndex) -> ShadowIndex:
        """The status with the times of its scheduled switch, as they are now."""
        if row.plan is None or view.scheduled_switch is None:
            return view
        latest, quiet_s = _of_this_boot(self._clock, row.plan.latest), round(self._plans.quiet_s(row), 3)
        scheduled = msgspec.structs.replace(view.scheduled_switch, latest_at=latest, quiet_s=quiet_s)
        return msgspec.structs.replace(view, scheduled_switch=scheduled)

    def _with_progress(self, row: ShadowRow) -> ShadowRow:
        meter = self._running_builds.meters.get(row.id)
        if row.phase == Phase.QUEUED:  # it has its place, and begins
            phase = Phase.PREPARING if row.state == ShadowState.PREPARING else Phase.COPYING
            row = msgspec.structs.replace(row, phase=phase)
        if meter is None:
            return row
        percent, left_s = meter.read(self._clock.monotonic())
        eta_s = left_s + self._switch_s(self._live_beside(row)) if left_s is not None else None
        return msgspec.structs.replace(row, progress=max(row.progress, percent), eta_s=eta_s)

    def _queued_text(self, position: int | None) -> str | None:
        if position is None:
            return None
        places = self._running_builds.queue.places
        return f"queued, number {position}: Config.builds_max lets {places} work at once; see set_priority"

    def _with_estimates(self, row: ShadowRow, view: ShadowIndex) -> ShadowIndex:
        """The status with the likely times of a switch: those of the last one of the index."""
        last = self._live_beside(row)
        return msgspec.structs.replace(
            view,
            estimated_switch_duration_seconds=self._switch_s(last),
            estimated_sealed_ms=last.sealed_ms if last is not None else None,
        )

    def _live_beside(self, row: ShadowRow) -> ShadowRow | None:
        """The live shadow of the same index."""
        index = self._catalog.index(row.branch, row.index_type)
        live = self._catalog.generation(index.live) if index is not None else None
        return self._catalog.find_shadow(live.shadow_id) if live is not None else None

    @staticmethod
    def _switch_s(last: ShadowRow | None) -> float:
        return last.switch_s if last is not None and last.switch_s is not None else SWITCH_S

    def index(self, row: IndexRow) -> IndexInfo | None:
        """The live generation of an index; None when the index has none (any more)."""
        opened, head = self._generations.get(row.live), self._heads.of(row.branch)
        if opened is None:
            return index_view(self._catalog, row, self._root, head)
        count = self._catalog.source_digest(row.branch, opened.writer.types)[1].count
        return index_view(
            self._catalog, row, self._root, head, record_count=count, applied_lsn=opened.applied_lsn, pins=opened.pins,
            hindered=opened.hindered,
        )  # fmt: skip
