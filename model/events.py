"""The types of events, and the form in which an event is sent (CloudEvents 1.0).

    {"specversion": "1.0", "id": "0c1f...-42-9ab0...", "source": "/shadowswitch/<catalog uuid>",
     "type": "com.shadowswitch.switch.committed", "subject": "<shadow id>", "time": "2026-11-24T18:00:00.123456Z",
     "datacontenttype": "application/json", "sequence": "00000000000000000042", "data": {...}}

`(source, id)` is unique for ever, so a receiver recognizes an event that comes twice. `sequence` orders all events of a
data directory and has no gaps (EV-1): a gap that a receiver sees consists of removed events (`Config.events_keep`).
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from shadowswitch.model.views import Event

EVENT_PREFIX: Final = "com.shadowswitch."

EVENT_TYPES: Final = {
    "branch.created": "a branch was created",
    "branch.state": "a branch changed its state: `state`, `previous`, `by`, `reason`",
    "build.claimed": "a build was claimed: shadow PREPARING",
    "build.started": "shadow BUILDING; the journal keeps changes from `start_lsn` on for it",
    "build.refused": "the files of an external build do not match its claims: `problems`; the shadow stays BUILDING",
    "build.completed": "shadow BUILT: `record_count`, `index_size_bytes`, `applied_lsn`",
    "build.failed": "shadow FAILED: `error`",
    "build.cancelled": "shadow CANCELLED: `reason`",
    "build.retried": "shadow PREPARING again: `retry_count`",
    "build.resumed": "a retried build goes on from its stored progress",
    "switch.started": "shadow SWITCHING",
    "switch.given_up": "shadow BUILT again, and nothing has changed: `reason`",
    "switch.committed": "shadow ACTIVE: its `generation` is live instead of `previous`; `sealed_lsn`, `epoch`, `by`",
    "rollback.committed": "the `generation` that was soaking is live again instead of `previous`; like a switch",
    "switch.finished": "a switch or `rollback` ended: `success`, `sealed_ms`, `attempts`, `drained_changes`, `message`",
    "generation.condemned": "a generation is unsound, and no switch to it is possible: `reason`",
    "generation.retired": "shadow CLEANUP, or the retention of a failed build is over; files go with the last reader",
    "generation.removed": "the files of a generation were removed",
    "lock.granted": "a lock was granted: `owner`, `lock_type`, `scope`, `reason`, without its token",
    "lock.extended": "the time to live of a lock was extended",
    "lock.released": "a lock was released",
    "lock.expired": "the time to live of a lock ended, or its heartbeats stopped",
    "lock.forced": "a lock was released by force: `by`, `reason`",
    "hold.given_up": "a hold of a subscriber kept too many changes and was given up: its `name`, `after_lsn`, `reason`",
    "recovery.resumed": "a build that a stop interrupted is resumed",
    "recovery.awaited": "an external build is still wanted; the time in which its builder must report begins anew",
    "recovery.checked": "a generation that a power cut may have torn was read completely, and is sound",
    "recovery.locks_kept": "the `locks` of a branch stay held; missed heartbeats are forgiven for `grace_s`",
    "recovery.cleaned": "the files of an unfinished publication were `removed`",
    "recovery.published": "the published path was made to agree with the live index",
    "recovery.broken": "a live index cannot be opened and has no readers: `reason`",
    "incoming.handled": "an event from outside was handled: its `source`, `id` and `type`, `outcome`, `message`",
    "branch.merge_considered": "the conditions for an automatic merge were evaluated: `merged`, `unmet`",
    "settings.applied": "the changed settings file is used",
    "settings.refused": "the changed settings file has an error, and nothing of it is used: `error`",
}
"""By type, without the prefix. docs/events.md has the same list. The engine emits no other type."""


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
