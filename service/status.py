"""What `status` shows, read from the disk, beside whatever host has the directory open."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

from shadowswitch.storage import layout
from shadowswitch.storage.catalog import Catalog


def status_of(catalog: Catalog, data: Path) -> dict[str, Any]:
    """Host, branches, live indexes and shadows as plain rows."""
    branches = catalog.branches()
    names = {row.number: row.name for row in branches}
    return {
        "host": _host(data),
        "branches": [
            {
                "name": row.name,
                "state": row.state,
                "head_lsn": catalog.head(row.number)[0],
                "records": sum(digest.count for digest in catalog.digests(row.number).values()),
            }
            for row in branches
        ],
        "indexes": [
            {
                "branch": names.get(row.branch, row.branch),
                "index_type": row.index_type,
                "generation": row.live,
                "previous": row.previous or None,
                "sealed_lsn": row.sealed_lsn,
                "switches": row.epoch,
            }
            for row in catalog.indexes()
            if row.live
        ],
        "shadows": [
            {
                "shadow_index_id": row.id,
                "branch": row.branch_name,
                "index_type": row.index_type,
                "state": str(row.state),
                "phase": row.phase,
                "percent": round(row.progress, 1),
                "records": row.record_count,
                "backend": row.backend,
                "error": row.error,
            }
            for row in catalog.shadows()
        ],
    }


def _host(data: Path) -> dict[str, Any] | None:
    """Who has the directory open, or None."""
    with contextlib.suppress(OSError):
        descriptor = os.open(data / layout.LOCK, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return layout.read_holder(descriptor)
        finally:
            os.close(descriptor)
    return None
