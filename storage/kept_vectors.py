"""The files of vectors in a data directory, `embeddings/*.sqlite`: those that no index needs are removed.

A file is kept while a generation has its embedder, and for KEPT_S after it was written to. So an index that goes back
to the model of some weeks ago embeds nothing. A process that has a removed file open goes on with it until it ends.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Embedding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.data_directory import EMBEDDINGS

KEPT_S = 30 * 86400
SUFFIX = ".sqlite"


def remove_unused(root: Path, catalog: Catalog, now_s: float) -> list[str]:
    """Remove the files that nothing has needed for KEPT_S; their names. `now_s` is the wall time.

    A file that is needed counts as written now, so that the generations are read once in KEPT_S. Raises OSError, and
    ShadowSwitchError for a generation whose backend cannot be loaded: then none is removed.
    """
    folder = root / EMBEDDINGS
    if folder.is_symlink() or not folder.is_dir():
        return []
    old = [file for file in sorted(folder.glob(f"*{SUFFIX}")) if _written_s(file) < now_s - KEPT_S]
    if not old:
        return []
    needed = _needed(catalog)
    removed = []
    for file in old:
        if file.name in needed:
            os.utime(file, (now_s, now_s))
        else:
            _remove(file)
            removed.append(file.name)
    return removed


def _written_s(file: Path) -> float:
    """Of the newest of its files: what was written last may still be in the log beside it."""
    found = [0.0]
    for path in (file, Path(f"{file}-wal")):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_mtime)
    return max(found)


def _needed(catalog: Catalog) -> set[str]:
    needed: set[str] = set()
    for row in catalog.generations():
        backend = registry.backend(row.backend) if not row.opaque else None
        if isinstance(backend, Embedding) and backend.embeds(row.query_options):
            needed.add(backend.kept_in(row.query_options))
    return needed


def _remove(file: Path) -> None:
    for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        path.unlink(missing_ok=True)
