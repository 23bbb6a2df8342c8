"""What a backup, its check and its restore say of themselves."""

from __future__ import annotations

from datetime import datetime

import msgspec


class BackupInfo(msgspec.Struct, frozen=True):
    """A backup: a data directory as of one moment, in a folder or a bucket."""

    id: str
    uuid: str
    """That of the data directory."""
    created_at: datetime
    """The moment that the backup shows, in UTC."""
    last_lsn: int
    """The LSN of the last change in it."""
    branches: int
    records: int
    """The records that are stored: those of every branch, of a fork what it changed itself."""
    content_bytes: int
    """Uncompressed."""
    stored_bytes: int
    """What this backup added to the store; what an earlier backup has already is not stored again."""
    damaged: tuple[str, ...] = ()
    """Rows that were damaged in the data directory already; the backup has them as they are."""


class BackupFindings(msgspec.Struct, frozen=True):
    """What `verify_backup` found."""

    backups: int
    objects: int
    size_bytes: int
    """What was read and compared with its hash."""
    findings: tuple[str, ...]
    """Empty: every backup can be restored."""


class PruneResult(msgspec.Struct, frozen=True):
    """What `prune_backups` removed and left."""

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    objects_removed: int
    bytes_removed: int


class RestoreResult(msgspec.Struct, frozen=True):
    """A data directory that was made of a backup."""

    path: str
    backup: str
    uuid: str
    """The new one of this data directory."""
    last_lsn: int
    records: int
    replayed: int
    """Changes between the backup and `at_lsn`, taken from the journal in the next backup."""
    indexes: tuple[str, ...]
    """`branch INDEX_TYPE` of each index that is built as soon as an engine opens the directory, and switched to."""
    unserved: tuple[str, ...]
    """Indexes that nothing but their builder can make: those in a format of its own."""
