"""`backup create`: the pages of a snapshot into a store, those that the newest backup has already left out.

A backup exists once its manifest does, which is written last. The pages that it takes from the newest backup stay as
long as that one. So it looks for it again behind its manifest: if a prune has removed it meanwhile, the new backup is
taken back and made again. What a prune may remove besides is older than `pruning.GRACE_S`, and a backup that takes
longer than half of that is given up.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.operating.backups import BackupInfo
from shadowswitch.storage.backup import layout
from shadowswitch.storage.backup.layout import Manifest, Page, PageList, Table
from shadowswitch.storage.backup.pruning import GRACE_S
from shadowswitch.storage.backup.snapshot import Cut, Snapshot, snapshot
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.objects.store import ObjectStore

Progress = Callable[[int, int], None]
"""Called with the rows that are done, and with all of them."""
UPLOADS = 8
"""Pages that are on their way to the store at a time; each is at most a few MiB."""
TRIES = 3
DAMAGED_MAX = 100


def no_progress(done: int, of: int) -> None:
    """For a caller that shows none."""


def create(
    catalog: Catalog,
    store: ObjectStore,
    scratch: Path | None = None,
    progress: Progress = no_progress,
) -> BackupInfo:
    """Back up the catalog of a data directory, also beside a running host.

    `scratch` is a folder with room for a copy of the catalog; by default the one for temporary files. Raises
    InvalidConfig for the store of another directory, and what `snapshot` and the store raise: then there is no new
    backup, and no other one is changed.
    """
    with snapshot(catalog, scratch) as taken:
        for _ in range(TRIES):
            made = _Backup(taken, store, progress, catalog.clock).made()
            if made is not None:
                return made
    raise Timeout(
        f"{store.url} was pruned each time while the backup was made",
        operation="backup",
        object=store.url,
        hint="prune less often, or at another time",
    )


def info(manifest: Manifest) -> BackupInfo:
    """A backup as callers see it."""
    return BackupInfo(
        manifest.id, manifest.uuid, datetime.fromtimestamp(manifest.created_at, UTC), manifest.last_lsn,
        manifest.branches, manifest.records, manifest.content_bytes, manifest.stored_bytes, tuple(manifest.damaged),
    )  # fmt: skip


class _Backup:
    def __init__(self, taken: Snapshot, store: ObjectStore, progress: Progress, clock: Clock) -> None:
        self._taken = taken
        self._store = store
        self._progress = progress
        self._clock = clock
        self._ends = clock.monotonic() + GRACE_S / 2
        head = taken.head()
        self._head = head
        stamp = datetime.fromtimestamp(head.taken_at, UTC).strftime("%Y%m%dT%H%M%SZ")
        self._id = f"{stamp}-{head.last_lsn}-{secrets.token_hex(4)}"
        self._owners = [self._id]
        self._known: dict[bytes, Page] = {}
        self._unsettled: list[str] = []
        self._damaged: list[str] = []
        self._content_bytes = self._stored_bytes = self._done = 0

    def made(self) -> BackupInfo | None:
        """The backup; None when the one that it relied on was removed meanwhile."""
        before = self._relied_on()
        with ThreadPoolExecutor(UPLOADS, thread_name_prefix="shadowswitch-backup") as pool:
            tables = [self._table(pool, name) for name in self._taken.tables]
        self._store.settle(self._unsettled)
        stored, summed = layout.packed(PageList(self._owners, tables))
        self._store.put(layout.list_path(self._id), stored)
        self._refuse_late()
        manifest = Manifest(
            self._id, self._head.uuid, self._head.taken_at, self._head.last_lsn, self._taken.count("branches"),
            self._taken.count("records"), self._content_bytes, self._stored_bytes + len(stored), self._damaged, summed,
        )  # fmt: skip
        self._store.put(layout.backup_path(self._id), layout.packed(manifest)[0])
        if before is not None and self._store.get(layout.backup_path(before.id)) is None:
            self._store.delete(layout.backup_path(self._id))
            return None
        return info(manifest)

    def _relied_on(self) -> Manifest | None:
        """The newest backup whose pages are known. Raises InvalidConfig if it is that of another data directory."""
        newest = layout.newest(self._store)
        if newest is None:
            return None
        if newest.uuid not in (self._head.uuid, *self._head.origins):
            raise InvalidConfig(
                f"{self._store.url} has backups of another data directory (uuid {newest.uuid[:12]})",
                operation="backup",
                object=self._store.url,
                hint="give each data directory a URL of its own",
            )
        pages = layout.pages_of(self._store, newest)
        self._owners += pages.owners
        for table in pages.tables:
            for page in table.pages:
                self._known[page.hash] = Page(page.hash, page.owner + 1, page.rows, page.stored_bytes)
        return newest

    def _table(self, pool: ThreadPoolExecutor, name: str) -> Table:
        pages: list[Page | None] = []
        under_way: deque[tuple[int, Cut, bytes, Future[int]]] = deque()

        def landed() -> None:
            place, cut, hash, future = under_way.popleft()
            try:
                size = future.result(max(0.0, self._ends - self._clock.monotonic()))
            except TimeoutError:
                raise self._late() from None
            pages[place] = self._known[hash] = Page(hash, 0, cut.rows, size)
            self._stored_bytes += size
            self._unsettled.append(layout.page_path(self._id, hash))

        for cut in self._taken.cuts(name, self._note_damaged):
            self._content_bytes += len(cut.content)
            hash = layout.page_hash(cut.content)
            pages.append(self._known.get(hash))
            if pages[-1] is None:
                while len(under_way) >= UPLOADS:
                    landed()
                under_way.append((len(pages) - 1, cut, hash, pool.submit(self._upload, hash, cut)))
            self._done += cut.rows
            self._progress(self._done, self._head.rows)
            self._refuse_late()
        while under_way:
            landed()
        stored = [page for page in pages if page is not None]
        return Table(name, sum(page.rows for page in stored), stored)

    def _upload(self, hash: bytes, cut: Cut) -> int:
        data = layout.packed_page(cut.content)
        self._store.put(layout.page_path(self._id, hash), data, settled=False)
        return len(data)

    def _note_damaged(self, problem: str) -> None:
        if len(self._damaged) < DAMAGED_MAX:
            self._damaged.append(problem)

    def _refuse_late(self) -> None:
        if self._clock.monotonic() > self._ends:
            raise self._late()

    def _late(self) -> Timeout:
        return Timeout(
            f"the backup took longer than {GRACE_S / 7200:.0f} h and was given up",
            operation="backup",
            object=self._store.url,
            hint="nothing was changed; the store is too slow for a catalog of this size",
        )
