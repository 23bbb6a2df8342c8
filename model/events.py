"""The events that the engine emits: every type, and their form on the wire (CloudEvents 1.0).

    {"specversion": "1.0", "id": "0c1f...-42-9ab0...", "source": "/shadowswitch/<catalog uuid>",
     "type": "com.shadowswitch.switch.committed", "subject": "<shadow id>", "time": "2026-11-24T18:00:00.123456Z",
     "datacontenttype": "application/json", "sequence": "00000000000000000042", "data": {...}}

`(source, id)` is unique for ever: a receiver recognises a repeated event by it. `sequence` orders all events of a data
directory and has no gaps (EV-1): a gap means that events were removed before delivery (`Config.events_keep`).
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from shadowswitch.model.views import Event

EVENT_PREFIX: Final = "com.shadowswitch."
ENGINE: Final = "shadowswitch"
"""The author of a decision of the engine itself, in the audit history."""
NOT_GIVEN: Final = "not given"
"""The reason in the audit history where the caller gave none."""

AUDIT_ACTIONS: Final = {
    "branch.created": "a branch was created",
    "branch.dropped": "a branch was dropped, with its `indexes` and its `holds`",
    "branch.forked": "a branch was made from its `parent` as of `fork_lsn`",
    "branch.merged": "a fork, `source`, was merged into its parent: `applied`, `same`, `conflicts`, `lsn`",
    "branch.rebased": "a fork took over its parent's changes up to `fork_lsn`: `applied`, `same`, `conflicts`, `lsn`",
    "branch.state": "the `operation` (recover, reopen, merge, archive) that changed the state of a branch",
    "build.cancelled": "a build was ended, or a shadow discarded",
    "build.claimed": "a build began",
    "build.delivered": "an external build was accepted: `applied_lsn`, `record_count`",
    "build.failed": "a build failed",
    "build.paused": "a build was paused",
    "build.priority": "a build has another `priority` in the queue",
    "build.refused": "an external build was refused: `problems`",
    "build.resumed": "a paused build goes on",
    "build.retried": "a failed build began again: `retry_count`",
    "build.throttled": "a build works only a `share` of the time",
    "build.unseeded": "a build began again from the records: what it took from a `generation` did not pass",
    "catalog.repaired": "`check --repair`, or an open, derived something again",
    "catalog.restored": "the data directory was restored from a `backup`: the `builds` of its indexes, its last `lsn`",
    "generation.condemned": "a generation turned out unsound",
    "generation.retired": "a generation left: its soak ended, or the files of a failed build were kept long enough",
    "group.ended": "a group holds its indexes no more: its `state`, and `why`",
    "group.rolled_back": "every member of a group went back, or forward again: `name`, `members`, `epoch`",
    "group.started": "the builds of a group began: `name`, `members`, `shadows`",
    "group.switched": "every member of a group was switched, in one transaction: `name`, `members`, `epoch`",
    "hold.given_up": "a subscriber's hold kept too much of the journal",
    "hold.made": "a subscriber holds the changes after `after_lsn`",
    "hold.released": "a subscriber needs nothing any more",
    "incoming.handled": "an event from outside was handled",
    "index.dropped": "an index was dropped: its `generation` was live",
    "index.retuned": "readers of the live `generation` take other `settings`",
    "index.unsound": "the live generation turned out unsound",
    "indexing.completed": "indexing in place ended: `resource_types`, `owner`",
    "indexing.failed": "indexing in place failed: `resource_types`, `owner`",
    "indexing.started": "indexing in place began: `resource_types`, `owner`, `locks`",
    "lock.forced": "every lock of a branch was taken away: `locks`",
    "recovery.awaited": "an external build is awaited after a start",
    "recovery.broken": "a generation could not be opened, or read",
    "recovery.checked": "a generation that a power cut may have torn is sound",
    "recovery.cleaned": "files of an interrupted publish were `removed`",
    "recovery.locks_kept": "the `locks` of a branch stay held after a start",
    "recovery.published": "the published path was made to agree with the live generation",
    "recovery.resumed": "a build that a stop interrupted goes on",
    "settings.applied": "the settings file changed and was applied",
    "settings.refused": "the settings file changed and has an error: `error`",
    "shadow.repaired": "buckets of a waiting shadow were replaced",
    "switch.committed": "a switch, or a `rollback`",
    "switch.given_up": "a switch was refused, or given up",
    "switch.postponed": "a scheduled switch was refused, and is tried again after `retry_s`: `reason`, `refusals`",
    "switch.scheduled": "a switch was scheduled: `quiet_for_s`, `within_s`",
    "switch.unscheduled": "a scheduled switch was taken back",
}
"""The actions of the audit history, each with `by` and `reason` (EV-4). `Commit.audit` refuses any other action."""

EVENT_TYPES: Final = {
    "branch.created": "a branch was created",
    "branch.dropped": "a branch was dropped, with its `indexes`; its name is free",
    "branch.forked": "a branch was made from its `parent`, which it shows as of `fork_lsn`, or, if following, as it is",
    "branch.merged": "the changes of a fork, `source`, are in the branch: `applied`, `same`, `conflicts`, `lsn`",
    "branch.rebased": "a fork shows its parent as of `fork_lsn` now: `applied`, `same`, `conflicts`, `lsn`",
    "branch.removed": "the rows and the files of a dropped branch are gone",
    "branch.state": "a branch changed its state: `state`, `previous`, `by`, `reason`",
    "build.claimed": "a build was claimed: shadow PREPARING",
    "build.started": "shadow BUILDING; changes from `start_lsn` on are kept for it",
    "build.refused": "a delivery did not pass its check: `problems`; the shadow stays BUILDING",
    "build.completed": "shadow BUILT: `record_count`, `index_size_bytes`, `applied_lsn`, `took_s`",
    "build.failed": "shadow FAILED: `error`",
    "build.cancelled": "shadow CANCELLED: `reason`",
    "build.retried": "shadow PREPARING again: `retry_count`",
    "worker.killed": "a worker process gave no sign of life for `silent_s` and was killed: its `task`, `reason`",
    "build.resumed": "a retried or paused build goes on from its stored progress",
    "build.unseeded": "a build begins again from the records: what it took from a `generation` did not pass: `reason`",
    "build.paused": "a build stands still until it is resumed: `by`, `reason`",
    "build.throttled": "a build works a `share` of the time: `by`, `reason`",
    "build.priority": "a build has another `priority` in the queue: `by`, `reason`",
    "switch.scheduled": "a switch comes after `quiet_for_s` of quiet, at the latest after `within_s`: `by`, `reason`",
    "switch.unscheduled": "a scheduled switch was taken back: `by`, `reason`",
    "switch.postponed": "a scheduled switch was refused, and is tried again after `retry_s`: `reason`, `refusals`",
    "switch.started": "shadow SWITCHING",
    "switch.given_up": "shadow BUILT again, and nothing has changed: `reason`",
    "switch.committed": "shadow ACTIVE: its `generation` is live instead of `previous`; `sealed_lsn`, `epoch`, `by`",
    "rollback.committed": "the soaking `generation` is live again instead of `previous`; other data as of a switch",
    "switch.finished": "a switch or `rollback` ended: `success`, `sealed_ms`, `attempts`, `drained_changes`, `message`",
    "group.started": "the builds of a group began: its `name`, `members`, `shadows`",
    "group.switched": "every member of a group is live, in one transaction: `name`, `members`, `epoch`, `sealed_lsns`",
    "group.rolled_back": "every member of a group went back, or forward again, in one transaction: as of a switch",
    "group.ended": "a group holds its indexes no more: its `state` (COMPLETE, REVERTED, DISSOLVED), and `why`",
    "index.dropped": "an index was dropped: its `generation` was live; files go once no reader pins them",
    "index.retuned": "readers of the live `generation` take other `settings`, such as weights; its files stay",
    "index.unsound": "the live generation turned out unsound, and there is none to go back to: `reason`",
    "generation.condemned": "a generation turned out unsound and will not be switched to again: `reason`",
    "generation.hindered": "a generation cannot follow the journal, so its index lags: `reason`",
    "generation.follows": "a generation that was hindered follows the journal again",
    "generation.retired": "shadow CLEANUP, or a failed build was kept long enough: files go once no reader pins them",
    "generation.removed": "the files of a generation are gone",
    "lock.granted": "a lock was granted: `owner`, `lock_type`, `scope`, `reason`; only its holder gets the token",
    "lock.extended": "a lock got more time",
    "lock.released": "a lock was released",
    "lock.expired": "a lock expired, by its time to live or for lack of heartbeats",
    "lock.forced": "a lock was forced open: `by`, `reason`",
    "hold.given_up": "a subscriber's hold kept too much of the journal: its `name`, `after_lsn`, `reason`",
    "catalog.repaired": "`check --repair` derived something again: `problem`, `source`; or gave `records` a checksum",
    "catalog.restored": "the data directory was restored from a `backup`: `builds`, `unserved`, its last `lsn`",
    "recovery.resumed": "a build that a stop interrupted goes on",
    "recovery.awaited": "an external build is awaited; the time limit for the next call of its builder begins anew",
    "recovery.checked": "a generation that a power cut may have torn was read whole, and is sound",
    "recovery.locks_kept": "the `locks` of a branch stay held; the holders have `grace_s` for their next heartbeat",
    "recovery.cleaned": "files of an interrupted publish were `removed`",
    "recovery.published": "the published path was made to agree with the live generation",
    "recovery.broken": "a generation could not be opened, or read; a live one is not served: `reason`",
    "incoming.handled": "an event from outside was handled: its `source`, `id` and `type`, `outcome`, `message`",
    "branch.merge_considered": "the conditions of an automatic merge were checked: `merged`, `unmet`",
    "settings.applied": "the settings file changed and was applied",
    "settings.refused": "the settings file changed and has an error; the old settings stay: `error`",
}
"""The types without the prefix. docs/events.md lists them; `Commit.emit` refuses any other type (EV-2)."""


def to_cloud_event(event: Event) -> dict[str, Any]:
    """An event in the JSON form of CloudEvents 1.0 (structured mode)."""
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "sequence": f"{event.sequence:020d}",
        "data": event.data,
    }
