"""A backup as the task of a worker process: the host does not read a row for it. What it needs is imported by it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shadowswitch.model.operating.backups import BackupInfo
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.objects.opening import open_store
from shadowswitch.storage.reading import Count


class BackUp(msgspec.Struct, frozen=True, tag=True):
    """To a worker: back the data directory up."""

    url: str
    scratch: str | None


class BackedUp(msgspec.Struct, frozen=True, tag=True):
    """The new backup."""

    backup: BackupInfo


def back_up(catalog: Catalog, task: BackUp, looked: Count) -> BackedUp:
    """Do the task. `looked` is called with the rows that are done. Raises as `creating.create`."""
    from shadowswitch.storage.backup.creating import create

    seen = 0

    def progress(done: int, of: int) -> None:
        nonlocal seen
        looked(done - seen)
        seen = done

    scratch = Path(task.scratch) if task.scratch is not None else None
    return BackedUp(create(catalog, open_store(task.url), scratch, progress))
