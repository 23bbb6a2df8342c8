"""Rows of the catalog as what the engine tells its callers."""

from __future__ import annotations

from datetime import UTC, datetime

from shadowswitch.actors.house import House
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import BranchInfo, ChangesHold, IndexInfo, ShadowIndex
from shadowswitch.storage.catalog.rows import BranchRow, HoldRow, IndexRow, ShadowRow


def moment(seconds: float | None) -> datetime | None:
    """A stored time as a datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def branch_info(house: House, row: BranchRow) -> BranchInfo:
    """A branch, as of now."""
    head, oldest = house.catalog.head(row.number)
    count = sum(digest.count for digest in house.catalog.digests(row.number).values())
    keeper = house.locks.find(row.number)
    state = str(keeper.state_now()) if keeper is not None else row.state
    return BranchInfo(row.name, state, head, count, oldest, _moment(row.created_at))


def changes_hold(house: House, row: HoldRow, branch_name: str) -> ChangesHold:
    """A subscriber's hold on the journal, as of now."""
    lag = 0 if row.given_up else max(0, house.heads.of(row.branch) - row.after_lsn)
    made, moved = _moment(row.created_at), _moment(row.moved_at)
    return ChangesHold(row.name, branch_name, row.after_lsn, lag, made, moved, row.given_up)


def shadow_index(house: House, row: ShadowRow) -> ShadowIndex:
    """The status of a shadow: what is durable, and the live progress of a running build."""
    meter = house.running_builds.meters.get(row.id)
    running = row.state in (ShadowState.PREPARING, ShadowState.BUILDING)
    percent = max(row.progress, meter.percent) if meter is not None and running else row.progress
    eta = meter.eta_s if meter is not None and running else row.eta_s
    opened = house.generations.get(row.generation)
    applied = opened.applied_lsn if opened is not None else row.applied_lsn
    head = house.heads.of(row.branch)
    follows = row.state in (ShadowState.BUILDING, ShadowState.BUILT, ShadowState.SWITCHING, ShadowState.ACTIVE)
    return ShadowIndex(
        shadow_index_id=row.id,
        branch_name=row.branch_name,
        index_type=row.index_type,
        resource_types=row.resource_types,
        state=row.state,
        phase=row.phase,
        build_progress_percent=round(percent, 1),
        estimated_completion_seconds=eta if running else (0.0 if row.state == ShadowState.BUILT else None),
        switch_ready=row.state == ShadowState.BUILT,
        estimated_switch_duration_seconds=_switch_estimate(house) if row.state == ShadowState.BUILT else None,
        index_size_bytes=row.size_bytes,
        record_count=row.record_count,
        lag_changes=max(0, head - max(applied, row.start_lsn)) if follows else 0,
        start_lsn=row.start_lsn,
        applied_lsn=applied,
        created_at=_moment(row.created_at),
        started_at=moment(row.started_at),
        completed_at=moment(row.completed_at),
        switched_at=moment(row.switched_at),
        error=row.error or (house.running_builds.stuck.get(row.id) if running else None),
        service_name=row.service_name,
        external=row.external,
        build_config=row.build_config,
        shadow_index_path=str(house.root / row.path),
        retry_count=row.retry_count,
        generation=row.generation,
    )


def _switch_estimate(house: House) -> float:
    """Seconds that the transaction of a switch will take: as those before it; before the first, as any commit."""
    for name in ("sealed", "commit"):
        known = house.metrics.histograms.get(name)
        if known is not None and known.count:
            return known.quantile_ms(0.5) / 1000
    return 0.0


def index_info(house: House, row: IndexRow) -> IndexInfo | None:
    """What is live; None when nothing is (any more)."""
    generation = house.catalog.generation(row.live)
    if generation is None:
        return None
    shadow = house.catalog.shadow(generation.shadow_id)
    opened = house.generations.get(row.live)
    previous = house.catalog.generation(row.previous) if row.previous else None
    head = house.heads.of(row.branch)
    applied = opened.applied_lsn if opened is not None else generation.durable_lsn
    count = sum(
        digest.count for number, digest in house.catalog.digests(row.branch).items()
        if opened is not None and number in opened.writer.types
    )  # fmt: skip
    return IndexInfo(
        branch_name=shadow.branch_name,
        index_type=row.index_type,
        resource_types=generation.resource_types,
        generation=row.live,
        shadow_index_id=shadow.id,
        previous_generation=row.previous or None,
        path=str(house.root / generation.path),
        record_count=count,
        applied_lsn=applied,
        head_lsn=head,
        lag_changes=max(0, head - applied),
        pins=opened.pins if opened is not None else 0,
        switched_at=_moment(row.switched_at),
        build_config=shadow.build_config,
        soak_until=moment(previous.soak_until) if previous is not None else None,
        external=shadow.external,
    )
