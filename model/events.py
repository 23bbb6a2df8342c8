"""The events that the engine tells: every type there is, and the form in which they travel (CloudEvents 1.0).

    {"specversion": "1.0", "id": "0c1f...-42-9ab0...", "source": "/shadowswitch/<catalog uuid>",
     "type": "com.shadowswitch.switch.committed", "subject": "<shadow id>", "time": "2026-11-24T18:00:00.123456Z",
     "datacontenttype": "application/json", "sequence": "00000000000000000042", "data": {...}}

`(source, id)` is unique for ever: whoever gets an event twice knows by it. `sequence` orders all events of a data
directory and has no gaps (EV-1): who sees one knows that the events between were removed (`Config.events_keep`).
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from shadowswitch.model.views import Event

EVENT_PREFIX: Final = "com.shadowswitch."

EVENT_TYPES: Final = {
    "branch.created": "a branch was made",
    "branch.state": "a branch changed its state: `state`, `previous`, `by`, `reason`",
    "build.claimed": "a build was claimed: shadow PREPARING",
    "build.started": "shadow BUILDING; changes from `start_lsn` on are kept for it",
    "build.refused": "what an external builder completed is not what it says: `problems`; the shadow stays BUILDING",
    "build.completed": "shadow BUILT: `record_count`, `index_size_bytes`, `applied_lsn`",
    "build.failed": "shadow FAILED: `error`",
    "build.cancelled": "shadow CANCELLED: `reason`",
    "build.retried": "shadow PREPARING again: `retry_count`",
    "build.resumed": "a retried build goes on from what is stored",
    "switch.started": "shadow SWITCHING",
    "switch.given_up": "shadow BUILT again, nothing changed: `reason`",
    "switch.committed": "shadow ACTIVE: its `generation` is live instead of `previous`; `sealed_lsn`, `epoch`, `by`",
    "rollback.committed": "the `generation` that was soaking is live again instead of `previous`; like a switch",
    "switch.finished": "a switch or `rollback` ended: `success`, `sealed_ms`, `attempts`, `drained_changes`, `message`",
    "generation.condemned": "a generation turned out unsound and will not be switched to again: `reason`",
    "generation.retired": "shadow CLEANUP, or a failed build was kept long enough: the files go when nobody holds them",
    "generation.removed": "the files of a generation are gone",
    "lock.granted": "a lock was granted: `owner`, `lock_type`, `scope`, `reason`; only its holder is told the token",
    "lock.extended": "a lock got more time",
    "lock.released": "a lock was given back",
    "lock.expired": "a lock ran out of time or of heartbeats",
    "lock.forced": "a lock was taken away: `by`, `reason`",
    "hold.given_up": "a subscriber's hold on the journal kept back too much: its `name`, `after_lsn`, `reason`",
    "recovery.resumed": "a build that a stop interrupted goes on",
    "recovery.awaited": "an external build is waited for; the time in which its builder must be heard of begins anew",
    "recovery.checked": "a generation that a power cut may have torn was read whole, and is sound",
    "recovery.locks_kept": "the `locks` of a branch are held on; missed heartbeats are forgiven for `grace_s`",
    "recovery.cleaned": "what a stop left half published was `removed`",
    "recovery.published": "the path for outsiders was made to agree with what is live",
    "recovery.broken": "a live index could not be opened and is not served: `reason`",
    "incoming.handled": "an event from outside was dealt with: its `source`, `id` and `type`, `outcome`, `message`",
    "branch.merge_considered": "were the conditions for an automatic merge met? `merged`, `unmet`",
    "settings.applied": "the settings file changed and is used",
    "settings.refused": "the settings file changed and is wrong, nothing of it is used: `error`",
}
"""Without the prefix. The list of docs/events.md is made of it; what is not in it cannot be told."""


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
