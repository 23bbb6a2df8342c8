"""What tests of backups compare: everything that the branches of a data directory show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shadowswitch import Engine, restore

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


def serves(engine: Engine) -> bool:
    """Has `main` a live index?"""
    return any(index.generation for index in engine.indexes("main"))


def restored(open_engine: Callable[..., Engine], store: Path, tmp_path: Path, **how: Any) -> Engine:
    """An engine in a directory that is restored from a store."""
    target = tmp_path / f"restored-{len(list(tmp_path.iterdir()))}"
    restore(str(store), target, **how)
    return open_engine(target)
