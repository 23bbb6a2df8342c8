"""The transitions of a build that is operated: it waits for a place, it is paused, and its pace and priority change."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidTransition
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.moves import emit

_NEXT = {
    ShadowState.BUILT: "switch to it, or discard it with cancel_build",
    ShadowState.FAILED: "retry_build goes on with it",
}


def refuse_unworked(row: ShadowRow, operation: str) -> None:
    """Raise InvalidTransition unless the engine itself works on this build, or is to begin."""
    if row.external:
        raise InvalidTransition(
            f"shadow {row.id} is built by another process",
            operation=operation,
            object=row.id,
            hint="its builder decides when it works; fail_build or cancel_build ends the build",
        )
    if row.state not in (ShadowState.PREPARING, ShadowState.BUILDING):
        raise InvalidTransition(
            f"shadow {row.id} is {row.state}, not being built",
            operation=operation,
            object=row.id,
            hint=_NEXT.get(row.state, "see its status with shadow()"),
        )


def note_queued(commit: Commit, shadow_id: str) -> ShadowRow:
    """Store that a build which had begun waits for a place again: its ETA is not known."""
    row = commit.shadow(shadow_id)
    if row.state == ShadowState.BUILDING:
        row = _store(commit, row, phase=Phase.QUEUED, eta_s=None)
    return row


def pause(commit: Commit, shadow_id: str, percent: float, by: str, reason: str) -> ShadowRow:
    """The build stands still, also over restarts, until `unpause`. No change if it is paused already."""
    row = commit.shadow(shadow_id)
    refuse_unworked(row, "pause build")
    if row.paused_by:
        return row
    progress = max(row.progress, percent)
    row = _store(commit, row, phase=Phase.PAUSED, progress=progress, eta_s=None, paused_by=by, paused_why=reason)
    return _noted(commit, row, "build.paused", by, reason)


def unpause(commit: Commit, shadow_id: str, by: str, reason: str) -> ShadowRow:
    """The build may go on, once it has a place. No change if it is not paused."""
    row = commit.shadow(shadow_id)
    refuse_unworked(row, "resume build")
    if not row.paused_by:
        return row
    row = _store(commit, row, phase=Phase.QUEUED, paused_by="", paused_why="")
    return _noted(commit, row, "build.resumed", by, reason)


def set_share(commit: Commit, shadow_id: str, share: float, by: str, reason: str) -> ShadowRow:
    """The share of the time that the build may work, also over restarts."""
    row = commit.shadow(shadow_id)
    refuse_unworked(row, "throttle build")
    return _noted(commit, _store(commit, row, share=share), "build.throttled", by, reason, share=share)


def set_priority(commit: Commit, shadow_id: str, priority: int, by: str, reason: str) -> ShadowRow:
    """The place of the build in the queue, also over restarts."""
    row = commit.shadow(shadow_id)
    refuse_unworked(row, "set priority")
    row = _store(commit, row, priority=priority)
    return _noted(commit, row, "build.priority", by, reason, priority=priority)


def _store(commit: Commit, row: ShadowRow, **changes: Any) -> ShadowRow:
    row = msgspec.structs.replace(row, **changes)
    commit.put_shadow(row)
    return row


def _noted(commit: Commit, row: ShadowRow, kind: str, by: str, reason: str, **data: Any) -> ShadowRow:
    emit(commit, row, kind, by=by, reason=reason, **data)
    commit.audit(kind, row.id, {"by": by, "reason": reason, **data})
    return row
