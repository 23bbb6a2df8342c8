"""What tests of backups compare: everything that the branches of a data directory show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shadowswitch import Engine

Shown = dict[str, dict[tuple[str, str], tuple[int, Any]]]
"""branch -> (resource type, id) -> (LSN, fields)"""


def shown(engine: Engine) -> Shown:
    """What each branch shows."""
    return {
        branch.name: {(r.resource_type, r.id): (r.lsn, r.fields) for r in engine.scan(branch.name)}
        for branch in engine.branches()
    }


def objects(store: Path, folder: str = "") -> dict[str, bytes]:
    """The files of a store."""
    found = (store / folder).rglob("*")
    return {str(file.relative_to(store)): file.read_bytes() for file in found if file.is_file()}
