"""What every transition is made of: the checked move of a shadow to another state, and the event that goes with it."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.shadow_state import ShadowState, check_move
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit


def emit(commit: Commit, row: ShadowRow, kind: str, **data: Any) -> None:
    """Emit an event about a shadow, with its branch, index type and state."""
    about = {"branch_name": row.branch_name, "index_type": row.index_type, "state": str(row.state)}
    commit.emit(kind, row.id, about | data)


def note_error(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """Store a reason with a shadow whose state stays."""
    row = msgspec.structs.replace(commit.shadow(shadow_id), error=reason)
    commit.put_shadow(row)
    return row


def move(commit: Commit, row: ShadowRow, state: ShadowState, **changes: Any) -> ShadowRow:
    """Store the shadow in another state, if its present state allows it. Raises InvalidTransition."""
    check_move(row.id, row.state, state)
    changed = msgspec.structs.replace(row, state=state, **changes)
    commit.put_shadow(changed)
    return changed
