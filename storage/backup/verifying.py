"""`backup verify`: every object that a backup names is there, and is what was written.

A page that several backups share is read once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.operating.backups import BackupFindings
from shadowswitch.storage.backup import layout
from shadowswitch.storage.backup.layout import Manifest, Page
from shadowswitch.storage.objects.store import ObjectStore

READS = 8
NAMED_MAX = 100
"""Findings that are listed; the number of the others is the last one."""


def verify(store: ObjectStore, progress: Callable[[int, int], None]) -> BackupFindings:
    """Read every object of every backup. Raises StoreUnavailable."""
    findings: list[str] = []

    def note(error: CorruptData, of: str = "") -> None:
        findings.append(f"{of}{error.message}")

    found = layout.manifests(store, left_out=note)
    pages: dict[str, tuple[Page, Manifest]] = {}
    for manifest in found:
        findings.extend(f"backup {manifest.id}: damaged before the backup: {one}" for one in manifest.damaged)
        try:
            for path, page in layout.pages_of(store, manifest).paths():
                pages.setdefault(path, (page, manifest))
        except CorruptData as error:
            note(error, f"backup {manifest.id}: ")
    size = 0
    with ThreadPoolExecutor(READS, thread_name_prefix="shadowswitch-verify") as pool:
        for done, (problem, read) in enumerate(pool.map(lambda one: _read(store, *one), pages.items())):
            size += read
            if problem is not None:
                note(problem, f"backup {pages[problem.object][1].id} and those after it that share the page: ")
            progress(done + 1, len(pages))
    if len(findings) > NAMED_MAX:
        findings = [*findings[:NAMED_MAX], f"{len(findings) - NAMED_MAX} more"]
    return BackupFindings(len(found), len(pages) + 2 * len(found), size, tuple(findings))


def _read(store: ObjectStore, path: str, known: tuple[Page, Manifest]) -> tuple[CorruptData | None, int]:
    data = store.get(path)
    try:
        layout.page_rows(data, known[0], path)
    except CorruptData as error:
        error.object = path
        return error, len(data or b"")
    return None, len(data or b"")
