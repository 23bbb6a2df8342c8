"""`backup prune`: removes backups, and the pages that no other one has.

A manifest goes first, so a backup is whole or is not there. Then the pages that no remaining list names go, if they are
older than GRACE_S: a backup that is being made stores its pages before anything names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.operating.backups import PruneResult
from shadowswitch.storage.backup import layout
from shadowswitch.storage.backup.layout import Manifest
from shadowswitch.storage.clock import SYSTEM, Clock
from shadowswitch.storage.objects.store import ObjectStore

GRACE_S = 24 * 3600.0


def prune(
    store: ObjectStore, keep: int, older_than: timedelta | None = None, clock: Clock = SYSTEM,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> PruneResult:  # fmt: skip
    """Remove all but the newest `keep` backups; with `older_than`, of these only the older ones.

    Raises CorruptData for a damaged manifest or list, which could name any page: nothing was removed then.
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise InvalidConfig(f"keep must be a whole number from 1 on, not {keep!r:.40}", operation="prune")
    found = layout.manifests(store)
    for one in found:
        layout.pages_of(store, one)
    now = clock.wall()
    before = now - older_than.total_seconds() if older_than is not None else math.inf
    gone = [one for one in found[:-keep] if one.created_at <= before]
    for one in gone:
        store.delete(layout.backup_path(one.id))
    left = layout.manifests(store)
    objects, size = _sweep(store, left, {one.id for one in gone}, now, progress)
    return PruneResult(tuple(one.id for one in left), tuple(one.id for one in gone), objects, size)


def _sweep(
    store: ObjectStore, left: list[Manifest], gone: set[str], now: float, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Remove the pages that no list names; returns how many, and their bytes."""
    named = {path for one in left for path, _ in layout.pages_of(store, one).paths()}
    named |= {layout.list_path(one.id) for one in left}
    there = list(store.listed(layout.PAGES))
    objects = size = 0
    for done, one in enumerate(there):
        owner = one.path.split("/")[1]
        if one.path not in named and (owner in gone or one.changed_at < now - GRACE_S):
            store.delete(one.path)
            objects, size = objects + 1, size + one.size_bytes
        progress(done + 1, len(there))
    return objects, size
