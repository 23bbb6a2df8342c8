"""What recovery notes about shadows and other subjects, as event and audit."""

from __future__ import annotations

from typing import Any

from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.moves import emit


def note_recovery(commit: Commit, what: str, shadow: ShadowRow, **data: Any) -> None:
    """Emit an event of recovery about a shadow: resumed, awaited, checked, published or broken."""
    emit(commit, shadow, f"recovery.{what}", **data)
    commit.audit(f"recovery.{what}", shadow.id, {"reason": "the engine started", "state": str(shadow.state), **data})


def note_recovered(commit: Commit, what: str, subject: str, **data: Any) -> None:
    """Emit an event of recovery about another subject: the locks of a branch, or the published paths."""
    commit.emit(f"recovery.{what}", subject, data)
    commit.audit(f"recovery.{what}", subject, {"reason": "the engine started", **data})
