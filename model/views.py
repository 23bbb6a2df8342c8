"""The views of a branch, a shadow, an index and a switch, and the request for a switch.

Each view is one struct, and its field list stands here only. The engine fills a view from the rows of the catalog, the
HTTP answers and the command line derive theirs from the view: see `derive`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.shadow_state import ShadowState

ADVISORY_CHECKS = frozenset(
    {"SIZE_COMPARISON", "SAMPLE_READ_BACK", "RECORD_COUNT_VALIDATION", "INTEGRITY_CHECK", "QUERY_COMPARISON"}
    | {"RELEVANCE", "LINKS", "VIOLATIONS", "SAME_RECORDS"}
)
"""`force_switch` overrides these checks only, never the digest, the drain or the fence."""
CHECKS = ADVISORY_CHECKS | {"DIGEST"}
DEFAULT_CHECKS = ("RECORD_COUNT_VALIDATION", "SIZE_COMPARISON", "INTEGRITY_CHECK", "DIGEST", "SAMPLE_READ_BACK")
STRATEGIES = frozenset({"ATOMIC_RENAME", "COPY_AND_REPLACE"})
SWITCH_TIMEOUT_S, SWITCH_TIMEOUT_S_MAX = 10, 3600
"""How long a switch may take to come to its commit: by default, and at most."""

S = TypeVar("S", bound=msgspec.Struct)


def derive(kind: type[S], source: msgspec.Struct, renamed: Mapping[str, str] = {}, **own: Any) -> S:
    """A `kind` with the fields of `source` that it has, too. `renamed` maps a name of the source to a name of the kind,
    `own` gives the values that do not come from the source. Fields that the kind does not have are left out."""
    fields = {renamed.get(name, name): getattr(source, name) for name in source.__struct_fields__}
    fields |= own
    return kind(**{name: fields[name] for name in kind.__struct_fields__ if name in fields})


class BranchInfo(msgspec.Struct, frozen=True):
    """A branch. `head_lsn` is the LSN of its last change (0: none yet), `record_count` counts all resource types."""

    name: str
    state: str
    head_lsn: int
    record_count: int
    oldest_lsn: int
    """Changes with a smaller LSN have been trimmed from the journal."""
    created_at: datetime
    number: int = 0
    """Never given twice: a branch that is made again under the name of a dropped one has another number."""
    parent: str | None = None
    """The branch that it was forked from; None for a branch that is no fork."""
    fork_lsn: int | None = None
    """The fork shows its parent as of this LSN, except for what it changed itself."""
    mode: str | None = None
    """"snapshot" for a fork: later changes of its parent do not show."""


class ChangesHold(msgspec.Struct, frozen=True):
    """A subscriber's hold on the journal of a branch: every change after `after_lsn` is kept for it."""

    name: str
    branch_name: str
    after_lsn: int
    lag_changes: int
    """The LSNs kept for it: from `after_lsn` to the head of the branch; 0 once it was given up."""
    created_at: datetime
    moved_at: datetime
    given_up: str
    """The reason it was given up; "" while it holds."""


class Health(msgspec.Struct, frozen=True):
    """`ready`: writes are taken, the threads run, and every index that had a live generation has a sound one.

    `reasons` says what is wrong with the engine, `unserved` which indexes have no sound live generation, and why.
    """

    ready: bool
    reasons: tuple[str, ...]
    unserved: tuple[str, ...]


class ScheduledSwitch(msgspec.Struct, frozen=True):
    """A switch at the first quiet moment of a branch, see `schedule_switch`."""

    quiet_for_s: float
    within_s: float
    by: str
    reason: str
    latest_at: datetime | None = None
    """The latest moment, by the wall clock of now; None from outside the engine."""
    quiet_s: float | None = None
    """For how long the branch has been quiet; None from outside the engine."""
    refusals: int = 0
    error: str | None = None
    """The last refusal; it is tried again."""
    force_switch: bool = False
    allow_empty: bool = False


class QuietHours(msgspec.Struct, frozen=True):
    """When to switch on a branch, learned from its past, and the backtest of that advice; see docs/operating.md.

    `advised` is False where the quiet rule of the same mean wait is as good; then `switch_at` is None.
    """

    branch_name: str
    advised: bool
    switch_at: datetime | None
    """The begin of the quietest hour within `within_s` from now."""
    message: str
    within_s: float
    calm_s: float
    """A switch is a hit if no commit comes for so long behind it."""
    weeks: int
    moments: int
    """The moments of the backtest, in so many weeks."""
    adviser_hits: float
    rule_hits: float
    """The shares of hits of the adviser, and of the quiet rule that waits as long on average."""
    error: float
    """The standard error of their difference."""
    mean_wait_s: float
    rule_for_s: float
    """The `for_s` of that quiet rule."""
    hours: list[float]
    """The share of each hour of the week in the activity, UTC, Monday 00:00 first; recent weeks weigh more."""


class ShadowIndex(msgspec.Struct, frozen=True):
    """The status of one shadow index. Percent and ETA are measured. Percent never goes back within one build.

    `estimated_completion_seconds` is the time to the end of a switch right behind the build;
    `estimated_switch_duration_seconds` that of the call; `estimated_sealed_ms` that of its turn, for which writers may
    wait, as in the last switch of the index: None before its first one.
    """

    shadow_index_id: str
    branch_name: str
    index_type: str
    resource_types: list[str]
    state: ShadowState
    phase: str
    build_progress_percent: float
    estimated_completion_seconds: float | None
    switch_ready: bool
    estimated_switch_duration_seconds: float | None
    index_size_bytes: int | None
    record_count: int | None
    lag_changes: int
    start_lsn: int
    applied_lsn: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    switched_at: datetime | None
    error: str | None
    service_name: str
    external: bool
    build_config: dict[str, Any]
    shadow_index_path: str
    retry_count: int
    generation: int
    priority: int = 0
    queue_position: int | None = None
    """1 for the next build that begins to copy; None unless it waits for that."""
    share: float | None = None
    """The share of the time that `throttle_build` left it; None: `Config.build_share`."""
    paused_by: str | None = None
    """The author of a pause; None while it may work."""
    gives_way: str | None = None
    """By how much it works less for the writers, and the measured reason; see `Config.commit_latency_budget`."""
    scheduled_switch: ScheduledSwitch | None = None
    stands_still: str | None = None
    """Why a build does not work at the moment: paused, with author and reason; queued; short of a resource."""
    records_per_second: float | None = None
    """The pace of a build that has ended, without pauses; None while it is not known."""
    estimated_sealed_ms: float | None = None
    seeded_from: int | None = None
    """The generation whose rows the build takes over, or took over; None: it is built from the records."""


class IndexInfo(msgspec.Struct, frozen=True):
    """A live index. `lag_changes` counts the changes that its readers do not see yet."""

    branch_name: str
    index_type: str
    resource_types: list[str]
    generation: int
    shadow_index_id: str
    previous_generation: int | None
    path: str
    record_count: int
    applied_lsn: int
    head_lsn: int
    lag_changes: int
    pins: int
    switched_at: datetime
    build_config: dict[str, Any]
    soak_until: datetime | None
    external: bool = False
    """Built by another process, perhaps in a format that only the builder knows."""
    error: str | None = None
    """Why it does not follow the journal at present; None while it does."""
    place: str = ""
    """Its place in the list of indexes, for `indexes(after=)`. A switch does not change it."""


class IndexFigures(msgspec.Struct, frozen=True):
    """What changes of a live index, see IndexInfo."""

    branch_name: str
    index_type: str
    generation: int
    record_count: int
    lag_changes: int
    pins: int


class SwitchRequest(msgspec.Struct, frozen=True):
    """How to switch. `force_switch` overrides advisory checks only. Raises InvalidConfig for a value out of range."""

    force_switch: bool = False
    validation_checks: tuple[str, ...] = DEFAULT_CHECKS
    backup_current: bool = True
    switch_timeout_seconds: float = SWITCH_TIMEOUT_S
    """A switch that has not come to its commit by then is given up. It has changed nothing, and never takes effect."""
    strategy: str | None = None
    performed_by: str = ""
    reason: str = ""
    queries: tuple[str, ...] = ()
    """For QUERY_COMPARISON, and for RELEVANCE where no query is judged; by default the last queries of the readers of
    the live index."""
    allow_empty: bool = False
    """An index without records, or with a resource type that has none, is meant so."""
    break_group: bool = False
    """An index that belongs to a group is switched alone, and the group is broken up."""

    def __post_init__(self) -> None:
        for name in ("force_switch", "backup_current", "allow_empty", "break_group"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidConfig(f"{name} must be True or False, not {getattr(self, name)!r:.80}")
        for name in ("performed_by", "reason"):
            if not isinstance(getattr(self, name), str):
                raise InvalidConfig(f"{name} must be a text, not {getattr(self, name)!r:.80}")
        if not _are_texts(self.validation_checks) or not _are_texts(self.queries):
            raise InvalidConfig("validation_checks and queries are lists of strings")
        if not isinstance(self.switch_timeout_seconds, int | float) or isinstance(self.switch_timeout_seconds, bool):
            raise InvalidConfig(f"switch_timeout_seconds must be a number, not {self.switch_timeout_seconds!r:.80}")
        if not 0 < self.switch_timeout_seconds <= SWITCH_TIMEOUT_S_MAX:
            raise InvalidConfig(
                f"switch_timeout_seconds must be above 0 and at most {SWITCH_TIMEOUT_S_MAX},"
                f" not {self.switch_timeout_seconds}"
            )
        if self.strategy is not None and (not isinstance(self.strategy, str) or self.strategy not in STRATEGIES):
            raise InvalidConfig(f"unknown strategy {self.strategy!r}", hint=f"known: {', '.join(sorted(STRATEGIES))}")


def _are_texts(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def check_known(request: SwitchRequest, registered: Iterable[str] = ()) -> None:
    """Raise InvalidConfig if a request names an unknown check."""
    known = CHECKS | set(registered)
    unknown = sorted(set(request.validation_checks) - known)
    if unknown:
        raise InvalidConfig(
            f"unknown validation check {', '.join(unknown)}", hint=f"known checks: {', '.join(sorted(known))}"
        )


class SwitchResult(msgspec.Struct, frozen=True):
    """The result of a switch.

    `sealed_ms` is the time of its turn (drain, proof and commit), plus that of a revert; writers waited for so long.
    `sealed_ms_max` is the time of the longer one. With `success=False` the previous generation is live and nothing was
    lost, with two exceptions that `message` names: the revert failed, so the new generation is live although its
    verification failed; or the outcome of the transaction is not known.
    """

    shadow_index_id: str
    success: bool
    message: str
    switch_duration_ms: float = 0.0
    sealed_ms: float = 0.0
    sealed_ms_max: float = 0.0
    attempts: int = 0
    drained_changes: int = 0
    sealed_lsn: int = 0
    validation_passed: bool = True
    validation_errors: list[str] = msgspec.field(default_factory=list)
    verification_passed: bool = True
    verification_errors: list[str] = msgspec.field(default_factory=list)
    rolled_back: bool = False
    old_index_path: str | None = None
    new_index_path: str | None = None
    backup_path: str | None = None
    index_size_change_bytes: int | None = None
    generation: int = 0
    query_performance_improvement: float | None = None
    """From QUERY_COMPARISON: the time of a query in the old index by that in the new one (1.2: a fifth more queries in
    the same time). None where no query was compared."""


class Event(msgspec.Struct, frozen=True):
    """One transition, as a CloudEvent (specversion 1.0). `sequence` orders all events of a data directory."""

    sequence: int
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: dict[str, Any]


class CheckProgress(msgspec.Struct, frozen=True):
    """How far a `check` is: the percent of the rows that it has to read, and the seconds left (None until measured).

    The check is done in parts. A part is a range of records, the journals of some branches, or a shard of an index.
    """

    percent: float
    eta_s: float | None
    parts_done: int
    parts: int


class BuildCost(msgspec.Struct, frozen=True):
    """What a build would read and embed, see `Engine.build_cost`. `texts` is 0 where the index embeds nothing.

    `to_embed` counts the different texts whose vectors are not kept from before. `embedding_s` is the time for them by
    the last rate of the embedder, in seconds; None where it has embedded nothing yet in this data directory.
    """

    records: int
    texts: int
    to_embed: int
    embedding_s: float | None


class Finding(msgspec.Struct, frozen=True):
    """A violated invariant, found by `check`: its id (see `model.invariants`), the place, and the problem.

    `repaired` says what `check(repair=True)` derived it from again; "" while the finding stands.
    """

    invariant: str
    where: str
    problem: str
    repaired: str = ""

    def __str__(self) -> str:
        text = f"{self.invariant} {self.where}: {self.problem}"
        return f"{text}; repaired from {self.repaired}" if self.repaired else text
