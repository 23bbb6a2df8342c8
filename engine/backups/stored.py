"""Backups in a folder or a bucket: what needs no engine. Each runs in the process and on the thread of its caller."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from shadowswitch.actors.build.disk_check import check_closed
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.operating.backups import BackupFindings, BackupInfo, PruneResult, RestoreResult
from shadowswitch.storage.objects.opening import open_store

Progress = Callable[[int, int], None]
"""Called with what is done, and with all there is to do."""


def no_progress(done: int, of: int) -> None:
    """For a caller that shows none."""


def backups(url: str) -> list[BackupInfo]:
    """The backups of a store, the oldest first. Raises InvalidConfig, StoreUnavailable, CorruptData."""
    store = open_store(url)
    from shadowswitch.storage.backup import layout
    from shadowswitch.storage.backup.creating import info

    return [info(one) for one in layout.manifests(store)]


def restore(
    url: str,
    path: str | os.PathLike[str],
    at: datetime | None = None,
    at_lsn: int | None = None,
    *,
    backup: str | None = None,
    progress: Progress = no_progress,
) -> RestoreResult:
    """Make a data directory out of a backup, in a new or empty folder. Opening it builds its indexes.

    Records, journal, branches and locks keep their LSNs; tokens and numbers of events go on far behind those of the
    backup. `at` takes the newest backup up to a moment with a time zone; `at_lsn` ends at the last whole batch up to an
    LSN; `backup` takes that one. Without them the newest. A call that was killed is made again, into the same folder.

    Raises InvalidConfig for a folder that is not empty, and for a moment or LSN that the backups do not have;
    CorruptData for a damaged backup; StoreUnavailable, StorageFull, EngineAlreadyOpen.
    """
    store = open_store(url)
    from shadowswitch.storage.backup import restoring

    return restoring.restore(store, Path(path).absolute(), at, at_lsn, backup, progress)


def verify_backup(
    url: str,
    deep: bool = False,
    *,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> BackupFindings:
    """Read every object of every backup of a store and compare it with its hash.

    With `deep` the newest backup is restored, too, into a temporary folder in `scratch`, and checked as `check` does.
    Raises InvalidConfig, StoreUnavailable; what is damaged is a finding.
    """
    store = open_store(url)
    from shadowswitch.storage.backup import restoring
    from shadowswitch.storage.backup.verifying import verify

    found = verify(store, progress)
    if not deep or not found.backups:
        return found
    findings = list(found.findings)
    with tempfile.TemporaryDirectory(prefix="shadowswitch-verify-", dir=scratch) as folder:
        path = Path(folder) / "data"
        try:
            restoring.restore(store, path, None, None, None, progress)
            findings += [f"restored: {finding}" for finding in check_closed(path, lambda progress: None)]
        except ShadowSwitchError as error:
            findings.append(f"the newest backup cannot be restored: {error.message}")
    return BackupFindings(found.backups, found.objects, found.size_bytes, tuple(findings))


def prune_backups(
    url: str, keep: int, older_than: timedelta | None = None, *, progress: Progress = no_progress
) -> PruneResult:
    """Remove all but the newest `keep` backups; with `older_than`, of these only the older ones.

    Raises InvalidConfig, StoreUnavailable; CorruptData, before anything is removed, for a damaged manifest or list.
    """
    store = open_store(url)
    from shadowswitch.storage.backup.pruning import prune

    return prune(store, keep, older_than, progress=progress)
