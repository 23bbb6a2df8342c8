"""`restore`: a data directory out of a backup. It has the name of a catalog only when it is whole.

    catalog.restoring/   the rows of the backup, in the order of their keys, as fast as LMDB appends
                         the changes up to `at_lsn`, see `replaying`
                         what a restored catalog begins with, see `storage.catalog.transitions.restoring`
    catalog/             its name, once all of it is on disk

A restore that was killed leaves `catalog.restoring/`, which the next one into the same folder removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import lmdb

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.operating.backups import RestoreResult
from shadowswitch.storage.backup import choosing, layout
from shadowswitch.storage.backup.layout import Manifest, Page, PageList
from shadowswitch.storage.backup.replaying import Replay
from shadowswitch.storage.backup.snapshot import NAMED
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import MAP_SIZE_BYTES, Catalog
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.restoring import Restored, begin_restored
from shadowswitch.storage.data_directory import CATALOG, DirectoryLock, make_directories
from shadowswitch.storage.data_directory import LOCK as LOCK_FILE
from shadowswitch.storage.disk import disk_errors, sync_directory
from shadowswitch.storage.objects.store import ObjectStore

PART = f"{CATALOG}.restoring"
LINE = "line"
DOWNLOADS = 8
PAGE_S = 900.0
"""For one page: the store has a deadline of its own for each request."""
COMMIT_BYTES = 32 << 20
ROOM = 4
"""Address space for each byte of content: LMDB fills its pages by a half at worst."""
Progress = Callable[[int, int], None]


def restore(
    store: ObjectStore,
    path: Path,
    at: datetime | None,
    at_lsn: int | None,
    backup_id: str | None,
    progress: Progress,
) -> RestoreResult:
    """Restore into a new or empty folder. Raises InvalidConfig for any other; CorruptData for a damaged backup.

    `at` takes the newest backup up to that moment; `at_lsn` ends at the last whole batch up to that LSN; `backup_id`
    takes that backup. Without them the newest.
    """
    if sum(given is not None for given in (at, at_lsn, backup_id)) > 1:
        raise InvalidConfig("a restore is at a time, at an LSN, or of one backup", operation="restore")
    later: Manifest | None = None
    if at_lsn is not None:
        manifest, later = choosing.around(store, at_lsn)
    elif at is not None:
        manifest = choosing.as_of(store, at)
    else:
        manifest = choosing.chosen(store, backup_id) if backup_id is not None else choosing.all_of(store)[-1]
    with disk_errors("restore"):
        _refuse_used(path)
        make_directories(path.parent, path.name)
        hold = DirectoryLock(path)
        try:
            return _restored(store, path, manifest, later, at_lsn, progress)
        finally:
            hold.release()


def _restored(
    store: ObjectStore, path: Path, manifest: Manifest, later: Manifest | None, at_lsn: int | None, progress: Progress
) -> RestoreResult:
    part = path / PART
    if part.exists():
        shutil.rmtree(part)
    try:
        return _written(store, path, part, manifest, later, at_lsn, progress)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _written(
    store: ObjectStore,
    path: Path,
    part: Path,
    manifest: Manifest,
    later: Manifest | None,
    at_lsn: int | None,
    progress: Progress,
) -> RestoreResult:
    part.mkdir(mode=0o700)
    map_size_bytes = max(MAP_SIZE_BYTES, ROOM * manifest.content_bytes)
    _write_rows(store, part, layout.pages_of(store, manifest), map_size_bytes, progress)
    replayed, begun = 0, list[Restored]()
    with contextlib.closing(Catalog(part, map_size_bytes=map_size_bytes)) as catalog:
        if later is not None and at_lsn is not None:
            replayed = Replay(store, catalog, later, part / LINE).run(manifest.last_lsn, at_lsn)
            shutil.rmtree(part / LINE)
        commit = Commit(catalog, Counters(catalog))
        commit.run(lambda c: begun.append(begin_restored(c, manifest.id)))
        last_lsn, uuid = catalog.last_lsn(), catalog.uuid
        records = sum(catalog.record_count(row.number) for row in catalog.branches())
    os.replace(part, path / CATALOG)
    sync_directory(path)
    return RestoreResult(
        str(path), manifest.id, uuid, last_lsn, records, replayed, tuple(begun[0].builds), tuple(begun[0].unserved)
    )


def _refuse_used(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InvalidConfig(f"{path} is no folder", operation="restore", hint="give a new or empty folder")
    if not path.parent.is_dir():
        raise InvalidConfig(
            f"{path.parent} is no folder", operation="restore", hint="make it first, or give another path"
        )
    held = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    strange = [name for name in held if name not in (PART, LOCK_FILE)]
    if strange:
        raise InvalidConfig(
            f"{path} is not empty: it holds {strange[0]!r}",
            operation="restore",
            object=str(path),
            hint="a restore overwrites nothing; give a new or empty folder",
        )


def _write_rows(store: ObjectStore, part: Path, pages: PageList, map_size_bytes: int, progress: Progress) -> None:
    rows = sum(table.rows for table in pages.tables)
    done = 0
    env = lmdb.open(str(part), map_size=map_size_bytes, max_dbs=len(NAMED), mode=0o600, sync=False, lib_version=0)
    with contextlib.closing(env):
        for table in pages.tables:
            if table.name not in ("", *NAMED):
                raise InvalidConfig(
                    f"the backup has the table {table.name!r:.40}, which this version does not know",
                    operation="restore",
                    hint="use the version of shadowswitch that wrote it, or a later one",
                )
            db = env.open_db(table.name.encode() or None)
            waiting = fetched(store, pages, table.pages)
            more = True
            while more:
                more, size = False, 0
                with env.begin(write=True) as txn:
                    cursor = txn.cursor(db)
                    for page, found in waiting:
                        cursor.putmulti(zip(found[::2], found[1::2], strict=True), append=bool(table.name))
                        done += page.rows
                        size += page.stored_bytes
                        if size >= COMMIT_BYTES:
                            more = True
                            break
                progress(done, rows)
        env.sync(True)


def fetched(store: ObjectStore, pages: PageList, wanted: list[Page]) -> Iterator[tuple[Page, list[bytes]]]:
    """The rows of pages, in their order; some pages are under way at a time. Raises CorruptData."""

    def load(page: Page) -> list[bytes]:
        path = layout.page_path(pages.owners[page.owner], page.hash)
        return layout.page_rows(store.get(path), page, path)

    with ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="shadowswitch-restore") as pool:
        under_way: deque[tuple[Page, Future[list[bytes]]]] = deque()
        left = iter(wanted)
        try:
            while True:
                while len(under_way) < DOWNLOADS and (page := next(left, None)) is not None:
                    under_way.append((page, pool.submit(load, page)))
                if not under_way:
                    return
                page, future = under_way.popleft()
                yield page, _result(future, store)
        finally:
            for _, future in under_way:
                future.cancel()


def _result(future: Future[list[bytes]], store: ObjectStore) -> list[bytes]:
    try:
        rows: list[bytes] = future.result(PAGE_S)
        return rows
    except TimeoutError as error:
        raise Timeout(
            f"{store.url} has not answered for {PAGE_S:.0f} s", operation="restore", object=store.url
        ) from error
