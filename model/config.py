"""The settings of an engine. The defaults suit a host with two cores and a local disk."""

from __future__ import annotations

import math

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.inbound_events import IncomingRules
from shadowswitch.model.search.bounds import SEARCH_TIMEOUT_S
from shadowswitch.model.views import STRATEGIES


class Config(msgspec.Struct, frozen=True):
    """Settings of an engine; raises InvalidConfig when a value is out of range.

    Times are seconds (`_s`) or milliseconds (`_ms`), sizes bytes.
    """

    map_size_bytes: int = 64 << 30
    """Address space for the catalog; the file on disk is as large as its content."""
    record_size_max_bytes: int = 1 << 20
    """The largest encoded record."""
    batch_changes_max: int = 10_000
    """The most changes in one write. A batch is one transaction of the records and of each shard of an index; readers
    of an index with several shards may see it arrive shard by shard (docs/the-fine-print.md)."""
    batch_size_max_bytes: int = 64 << 20
    queue_changes_max: int = 50_000
    """The most changes admitted and not yet committed; a further writer waits, within its timeout."""
    refresh_interval_ms: float = 50.0
    """Interval between applications of the journal to live generations: the usual time from edit to searchable."""
    flush_interval_s: float = 5.0
    """Interval between flushes of a followed generation; the journal keeps every change since the last one."""
    flush_changes: int = 150
    """A generation is flushed sooner after so many changes: the commits of writers wait behind all dirty pages
    (docs/performance.md)."""
    followers: int = 2
    seal_budget_ms: float = 500.0
    """The longest wait of a switch's transaction behind earlier writes, once the shadow is proven. Beyond it the
    attempt is given up and repeated. The transaction itself takes as long as the disk takes for a few pages."""
    soak_s: float = 24 * 3600.0
    """The time for which the previous generation follows the journal after a switch: a rollback loses nothing."""
    external_timeout_s: float = 900.0
    """An external build fails after so long without a call of its builder."""
    recheck_interval_s: float = 3600.0
    """Interval between checks of a waiting BUILT shadow against its source; 0: never. A new live generation is
    read once, whatever this is."""
    failed_keep_s: float = 3600.0
    """The time for which the files of a failed build stay for a retry."""
    ended_keep_s: float = 7 * 24 * 3600.0
    """The time for which the row of an ended shadow stays once its files are gone; its decisions are in the audit
    history."""
    journal_keep_changes: int = 10_000
    """Changes of each branch that the journal keeps for `changes()` after every index has applied them."""
    journal_keep_bytes: int = 16 << 20
    """As `journal_keep_changes`, by their size: of large records fewer changes stay."""
    hold_changes_max: int = 1_000_000
    """The most LSNs by which a subscriber's hold (`hold_changes`) may lag; beyond them it is given up."""
    events_keep: int = 100_000
    """The number of newest events that stay; older ones are removed, delivered or not."""
    audit_keep: int = 1_000_000
    """The number of newest entries of the audit history that stay."""
    janitor_interval_s: float = 1.0
    branch_idle_s: float = 30.0
    """A branch without work for so long gives its thread back."""
    branch_actors_max: int = 128
    """So many branches have a thread each. Beyond them a branch at rest is written to without a thread, and the least
    recently used give their threads back when another branch needs one, for a lock or a switch."""
    lock_grace_s: float = 30.0
    """The time that the holder of a lock has for a heartbeat after a restart, even if it missed heartbeats before."""
    copy_slice_rows: int = 1000
    copy_flush_rows: int = 10_000
    """A build flushes its shard every so many rows, so that commits of the journal need not wait for it."""
    copy_flush_bytes: int = 8 << 20
    """As `copy_flush_rows`, by the size of the records."""
    catchup_residual_changes: int = 500
    """The workers hand a build over to the host when fewer changes than this are left."""
    catchup_rounds_max: int = 50
    """Rounds of catch-up without gain after which a build fails as not converging."""
    write_delay_max_ms: float = 20.0
    """The longest delay of a single write for a build that cannot keep up, before that build fails."""
    builds_max: int = 0
    """The most builds of the engine that work at once, from their copy until they are BUILT; the others wait, see
    `set_priority`. 0: half as many as there are cores, at least one. An external build does not count."""
    commit_latency_budget: float = 20.0
    """Milliseconds by which the mean commit of a second may take longer than without builds, before builds work less,
    down to a fifth of their time. 0: builds never give way."""
    build_share: float = 1.0
    """The share of the time that a build may work, 0 to 1; `throttle_build` changes it for a running build."""
    disk_reserve_bytes: int = 256 << 20
    """Free space below which builds pause; below half of it they fail. Writers are never stopped."""
    query_overlap_min: float = 0.5
    """QUERY_COMPARISON: the least share of the live index's hits that the shadow must return, on average."""
    records_kept_min: float = 0.5
    """A switch to an index with a smaller share of the records of the live one is refused, unless it is forced."""
    query_latency_ratio_max: float = 5.0
    search_timeout_s: float = SEARCH_TIMEOUT_S
    """The time that one search may take where its caller gives no other; then it is stopped, with Timeout."""
    mirror_share: float = 0.0
    """The share of the queries of live readers that the newest BUILT shadow of the index is asked as well, 0 to 1; see
    `compare`. 0: none."""
    health_interval_s: float = 1.0
    """Interval between calls of the host's health check for a soaking index."""
    worker_nice: int = 10
    worker_retries: int = 3
    """The number of deaths of a shard's worker after which the build fails."""
    worker_timeout_s: float = 60.0
    """A worker process with a task that gives no sign of life for so long is killed, and counts as a death. Slow work
    is a sign of life."""
    idle_workers: int = 2
    validation_timeout_s: float = 600.0
    """A validation that makes no progress for so long fails. There is no limit for its whole time."""
    validation_samples: int = 100
    size_ratio_max: float = 10.0
    publish_strategy: str = "ATOMIC_RENAME"
    """How `published/<branch>/<INDEX_TYPE>` is made when a SwitchRequest names no strategy."""
    published_path: str = ""
    """The folder of the published paths; "" is `published` in the data directory. May be on another file system."""
    allow_remote_filesystem: bool = False
    incoming: IncomingRules = IncomingRules()
    """The effects that events from outside may have."""
    received_keep: int = 100_000
    """The number of events from outside whose outcome stays: a repeated one gets the same outcome. Beyond it, senders
    that have more than an equal share lose their oldest."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in ("allow_remote_filesystem", "publish_strategy", "published_path", "incoming"):
                continue
            if isinstance(_DEFAULTS[name], int) and not isinstance(value, int):
                raise InvalidConfig(f"Config.{name} must be a whole number, not {value!r}")
            zero_allowed = name in (
                "journal_keep_changes",
                "worker_nice",
                "idle_workers",
                "worker_retries",
                "soak_s",
                "builds_max",
                "commit_latency_budget",
            )
            zero_allowed |= name in (
                "failed_keep_s",
                "ended_keep_s",
                "recheck_interval_s",
                "validation_samples",
                "catchup_residual_changes",
                "write_delay_max_ms",
                "disk_reserve_bytes",
                "query_overlap_min",
                "records_kept_min",
                "mirror_share",
            )
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidConfig(f"Config.{name} must be a finite number, not {value!r}")
            if value < 0 or (value == 0 and not zero_allowed):
                raise InvalidConfig(f"Config.{name} must be {'at least' if zero_allowed else 'above'} 0, not {value!r}")
        if self.map_size_bytes < 1 << 20:
            raise InvalidConfig(f"Config.map_size_bytes must be at least 1 MiB, not {self.map_size_bytes}")
        if self.batch_size_max_bytes < self.record_size_max_bytes:
            raise InvalidConfig("Config.batch_size_max_bytes must not be below record_size_max_bytes")
        if self.record_size_max_bytes > 64 << 20:
            raise InvalidConfig("Config.record_size_max_bytes must be at most 64 MiB")
        if max(self.build_share, self.query_overlap_min, self.records_kept_min, self.mirror_share) > 1:
            raise InvalidConfig(
                "Config.build_share, query_overlap_min, records_kept_min and mirror_share are shares, at most 1"
            )
        if not isinstance(self.incoming, IncomingRules):
            raise InvalidConfig(f"Config.incoming must be IncomingRules, not {self.incoming!r:.80}")
        if not isinstance(self.published_path, str):
            raise InvalidConfig(f"Config.published_path must be a text, not {self.published_path!r:.80}")
        if not isinstance(self.allow_remote_filesystem, bool):
            raise InvalidConfig(
                f"Config.allow_remote_filesystem is True or False, not {self.allow_remote_filesystem!r:.80}"
            )
        if not isinstance(self.publish_strategy, str) or self.publish_strategy not in STRATEGIES:
            raise InvalidConfig(f"Config.publish_strategy must be one of {', '.join(sorted(STRATEGIES))}")


_DEFAULTS = dict(zip(Config.__struct_fields__, Config.__struct_defaults__, strict=True))
