"""Bodies of builds, switches and live indexes, under the names of the field's existing clients.

Numbers are whole where those clients expect it; a finer figure has a field of its own.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import (
    DEFAULT_CHECKS,
    SWITCH_TIMEOUT_S,
    SWITCH_TIMEOUT_S_MAX,
    IndexInfo,
    ShadowIndex,
    SwitchRequest,
    SwitchResult,
    derive,
)
from shadowswitch.service import caller
from shadowswitch.service.hints import in_http
from shadowswitch.service.http.access import Caller
from shadowswitch.service.http.bodies.fields import (
    Body,
    BranchName,
    Checks,
    IndexType,
    Name,
    Percent,
    PriorityNumber,
    Text,
    Types,
    Whole,
)

SERVICE_SEPARATOR = caller.SEPARATOR
"""Between the name of a service and its instance, where the engine keeps one name."""


class StartBuild(Body, frozen=True):
    """The build to start. With `external` another process builds, and reports its progress.

    With `track_ready` the branch becomes READY when this shadow and all other tracked work is live and verified.
    """

    branch_name: BranchName
    index_type: IndexType
    resource_types: Types
    service_instance_id: Name | None = None
    build_config: dict[str, Any] | None = None
    external: bool = False
    service_name: Name = ""
    track_ready: bool = False
    priority: PriorityNumber = 0
    """Among the builds that wait for a place; the highest goes first."""
    of_rebuild: bool = False
    """The caller will switch to it or cancel it. What a stop of the server cut off, the next such call joins if its
    options are equal, and else discards."""
    seed: Literal["auto", "never", "require"] = "auto"
    """Whether it may begin with the files of a live generation; `require` refuses a build that cannot."""


class PlannedBuild(Body, frozen=True):
    """A build of which the cost is asked."""

    branch_name: BranchName
    index_type: IndexType
    resource_types: Types
    build_config: dict[str, Any] | None = None


class StartedBuild(msgspec.Struct, frozen=True):
    """The started build. The journal keeps changes after `start_lsn` for it."""

    shadow_index_id: str
    message: str
    estimated_build_time_minutes: int
    start_lsn: int
    shadow_index_path: str | None = None


class Progress(Body, frozen=True):
    """The progress of an external build."""

    progress_percent: Percent
    estimated_completion_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    record_count: Whole | None = None


class Complete(Body, frozen=True):
    """A completed external build, with changes up to `applied_lsn`."""

    index_size_bytes: Whole
    record_count: Whole
    applied_lsn: Whole | None = None
    build_summary: dict[str, Any] | None = None


class Fail(Body, frozen=True):
    """The error of a failed external build."""

    error: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


class Done(msgspec.Struct, frozen=True):
    """A completed operation on a shadow."""

    success: bool
    message: str
    shadow_index_id: str


class Dropped(msgspec.Struct, frozen=True):
    """A dropped index; its files go once no reader pins them."""

    success: bool
    message: str
    branch_name: str
    index_type: str


class Completed(msgspec.Struct, frozen=True):
    """A completed build: verified, and BUILT."""

    success: bool
    message: str
    shadow_index_id: str
    ready_for_switch: bool
    index_size_bytes: int | None
    record_count: int | None


class SwitchOptions(Body, frozen=True):
    """A SwitchRequest with the bounds of HTTP; `performed_by` is the caller.

    `allow_empty`: an index without records, or with a resource type that has none, is meant so. `break_group`: an index
    that belongs to a group is switched alone, and the group is broken up.
    """

    force_switch: bool = False
    validation_checks: Checks = msgspec.field(default_factory=lambda: list(DEFAULT_CHECKS))
    backup_current: bool = True
    switch_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=SWITCH_TIMEOUT_S_MAX)] = SWITCH_TIMEOUT_S
    strategy: Name | None = None
    reason: Text = ""
    queries: Annotated[list[Text], msgspec.Meta(max_length=1000)] = []
    allow_empty: bool = False
    break_group: bool = False


class Switch(SwitchOptions, frozen=True):
    """How to switch. `force_switch` overrides advisory checks only, and takes a scope of its own.

    `allow_empty`: an index without records, or with a resource type that has none, is meant so.
    """

    shadow_index_id: str | None = None


class Rollback(SwitchOptions, frozen=True, kw_only=True):
    """The index to switch back to its previous generation."""

    branch_name: BranchName
    index_type: IndexType


class Retune(Body, frozen=True):
    """The live index, and the options that its readers take from now on; the others stay."""

    branch_name: BranchName
    index_type: IndexType
    build_config: dict[str, Any]


def switch_request(body: SwitchOptions, caller: Caller) -> SwitchRequest:
    """The request to the engine. Raises InvalidConfig."""
    return derive(
        SwitchRequest,
        body,
        validation_checks=tuple(body.validation_checks),
        queries=tuple(body.queries),
        performed_by=caller.author,
        reason=body.reason or caller.reason,
    )


class Switched(SwitchResult, frozen=True, kw_only=True):
    """The result of a switch. `sealed_ms` is the time of its turn, for which writers may have waited."""

    timestamp: datetime
    switch_duration_ms: int
    query_performance_improvement: float | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]
    """The time of a query in the old index by that in the new one; left out where no query was compared."""


def switched(result: SwitchResult) -> Switched:
    """A result of the engine as an answer."""
    measured = result.query_performance_improvement
    return derive(
        Switched,
        result,
        switch_duration_ms=round(result.switch_duration_ms),
        timestamp=datetime.now(UTC),
        query_performance_improvement=msgspec.UNSET if measured is None else measured,
    )


class Shadow(ShadowIndex, frozen=True, kw_only=True):
    """The status of a shadow index. Percent and ETA are measured."""

    build_progress_percent: int
    estimated_completion_seconds: int | None
    estimated_switch_duration_seconds: int | None
    service_instance_id: str | None


def shadow(info: ShadowIndex) -> Shadow:
    """A shadow of the engine as an answer."""
    eta, switch_s = info.estimated_completion_seconds, info.estimated_switch_duration_seconds
    service, _, instance = info.service_name.partition(SERVICE_SEPARATOR)
    return derive(
        Shadow,
        info,
        build_progress_percent=math.floor(info.build_progress_percent),
        estimated_completion_seconds=None if eta is None else math.ceil(eta),
        estimated_switch_duration_seconds=None if switch_s is None else math.ceil(switch_s),
        stands_still=in_http(info.stands_still or "") or None,
        service_name=service,
        service_instance_id=instance or None,
    )


class Shadows(msgspec.Struct, frozen=True):
    """A page of shadows, oldest first; the counts are of all pages."""

    shadows: list[Shadow]
    total_count: int
    active_builds: int
    ready_for_switch: int
    next_after: int | None = None
    """The `after` of the next page; None: this is the last one."""


class Activity(msgspec.Struct, frozen=True):
    """One of the newest shadows."""

    id: str
    branch_name: str
    index_type: str
    state: ShadowState
    created_at: datetime
    progress: int


class Performance(msgspec.Struct, frozen=True):
    """Figures since the start of the server; null before the first switch."""

    average_switch_time_seconds: float | None
    completed_switches_count: int
    active_builds: int
    ready_for_switch: int
    sealed_p50_ms: float | None
    sealed_max_ms: float | None


class Overview(msgspec.Struct, frozen=True):
    """Counts by state, recent activity, switch times."""

    total_shadows: int
    state_distribution: dict[str, int]
    recent_activity: list[Activity]
    performance_metrics: Performance


class Indexes(msgspec.Struct, frozen=True):
    """A page of the live indexes; the count is that of all pages."""

    indexes: list[IndexInfo]
    total_count: int
    next_after: str | None = None
    """The `after` of the next page; None: this is the last one."""
