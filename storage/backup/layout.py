"""What a store holds of backups, and the form of each object.

    backups/<id>             the manifest of a backup; a list of backups reads no more
    pages/<id>/list          the pages of that backup, table by table
    pages/<owner>/<hash>     a page: rows of one database of the catalog, in the order of their keys

A page belongs to the backup that stored it, and the lists of later backups name it. So what two backups share is stored
once, and a page that no list names was left by a backup that was cut off: no later one relies on it.

A manifest and a list are a format byte, a BLAKE2b-128 of the content, and the content, compressed. A page is a format
byte and the content, compressed; its name is the BLAKE2b-160 of the content. The content is MessagePack.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from shadowswitch.model.errors import CorruptData, InvalidConfig, UnsupportedFormat
from shadowswitch.storage.objects.store import ObjectStore

try:
    import zstandard
except ImportError as error:
    raise InvalidConfig(
        "backups need the package zstandard, which is not installed", hint="pip install 'shadowswitch[replication]'"
    ) from error

FORMAT = 1
BACKUPS, PAGES, LIST = "backups", "pages", "list"
ID = re.compile(r"\d{8}T\d{6}Z-\d+-[0-9a-f]{8}")
LEVEL = 3
HASH_BYTES, SUM_BYTES = 20, 16
CONTENT_MAX_BYTES = 1 << 30
"""No object is larger: a damaged one could claim any size."""


class Page(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A page: where it is, and how much it holds."""

    hash: bytes
    owner: int
    """The place in `PageList.owners` of the backup that stored it."""
    rows: int
    stored_bytes: int


class Table(msgspec.Struct, array_like=True, frozen=True):
    """A named database of the catalog; "" is the unnamed one."""

    name: str
    rows: int
    pages: list[Page]


class PageList(msgspec.Struct, array_like=True, frozen=True):
    """Everything that a backup consists of."""

    owners: list[str]
    tables: list[Table]

    def paths(self) -> Iterator[tuple[str, Page]]:
        """Each page with its path."""
        for table in self.tables:
            for page in table.pages:
                yield page_path(self.owners[page.owner], page.hash), page


class Manifest(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a backup without its pages. A field may be added at the end with a default."""

    id: str
    uuid: str
    """That of the data directory."""
    created_at: float
    last_lsn: int
    branches: int
    records: int
    content_bytes: int
    stored_bytes: int
    damaged: list[str]
    list_sum: bytes
    """The sum of the list of pages."""


Value = TypeVar("Value", Manifest, PageList)


def backup_path(id: str) -> str:
    """The path of a manifest."""
    return f"{BACKUPS}/{id}"


def list_path(id: str) -> str:
    """The path of a list of pages."""
    return f"{PAGES}/{id}/{LIST}"


def page_path(owner: str, hash: bytes) -> str:
    """The path of a page. Raises CorruptData for an owner that is no backup."""
    if ID.fullmatch(owner) is None or len(hash) != HASH_BYTES:
        raise CorruptData(f"a list of pages names the page {owner!r:.80}", hint=OTHER)
    return f"{PAGES}/{owner}/{hash.hex()}"


OTHER = "verify the backups, and restore another one"


def sum_of(content: bytes) -> bytes:
    """The checksum of a manifest or a list."""
    return blake2b(content, digest_size=SUM_BYTES).digest()


def packed(value: Manifest | PageList) -> tuple[bytes, bytes]:
    """A manifest or a list as it is stored, and its sum."""
    content = msgspec.msgpack.encode(value)
    summed = sum_of(content)
    return bytes([FORMAT]) + summed + compressed(content), summed


def unpacked(data: bytes, kind: type[Value], path: str) -> tuple[Value, bytes]:
    """The inverse of `packed`. Raises CorruptData, UnsupportedFormat."""
    content = _content(data, 1 + SUM_BYTES, path)
    if sum_of(content) != data[1 : 1 + SUM_BYTES]:
        raise CorruptData(f"{path} is damaged: its checksum is not that of its content", hint=OTHER)
    try:
        return msgspec.msgpack.decode(content, type=kind), sum_of(content)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"{path} does not decode: {error}", hint=OTHER) from error


def packed_page(content: bytes) -> bytes:
    """A page as it is stored."""
    return bytes([FORMAT]) + compressed(content)


def page_hash(content: bytes) -> bytes:
    """The name of a page."""
    return blake2b(content, digest_size=HASH_BYTES).digest()


def page_rows(data: bytes | None, page: Page, path: str) -> list[bytes]:
    """The keys and values of a page, one after the other. Raises CorruptData for a page that is gone or damaged."""
    if data is None:
        raise CorruptData(f"{path} is missing", object=path, hint=OTHER)
    content = _content(data, 1, path)
    if page_hash(content) != page.hash:
        raise CorruptData(f"{path} is damaged: its hash is not that of its content", object=path, hint=OTHER)
    found = msgspec.msgpack.decode(content, type=list[bytes])
    if len(found) != 2 * page.rows:
        raise CorruptData(f"{path} has {len(found) // 2} rows instead of {page.rows}", object=path, hint=OTHER)
    return found


def compressed(content: bytes) -> bytes:
    """Compressed by zstd. It releases the GIL."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(content)


def _content(data: bytes, begin: int, path: str) -> bytes:
    if data[:1] and data[0] != FORMAT:
        raise UnsupportedFormat(
            f"{path} has the format {data[0]}, this version reads {FORMAT}",
            object=path,
            hint="use the version of shadowswitch that wrote it, or a later one",
        )
    try:
        frame = data[begin:]
        if not 0 <= zstandard.frame_content_size(frame) <= CONTENT_MAX_BYTES:
            raise CorruptData(f"{path} is damaged: it claims an impossible size", object=path, hint=OTHER)
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise CorruptData(f"{path} is damaged: {error}", object=path, hint=OTHER) from error


def manifests(store: ObjectStore, left_out: Callable[[CorruptData], Any] | None = None) -> list[Manifest]:
    """The backups of a store, the oldest first. Raises CorruptData for a damaged one, unless it may be `left_out`.

    Those of one data directory are in the order of their LSNs, for its clock may have been set back.
    """
    found = []
    for listed in store.listed(BACKUPS):
        id = listed.path.removeprefix(f"{BACKUPS}/")
        data = store.get(listed.path) if ID.fullmatch(id) else None
        if data is None:  # another file, or a prune was faster
            continue
        try:
            manifest, _ = unpacked(data, Manifest, listed.path)
            if manifest.id != id:
                raise CorruptData(f"{listed.path} is the manifest of {manifest.id}", object=listed.path, hint=OTHER)
            found.append(manifest)
        except CorruptData as error:
            if left_out is None:
                raise
            left_out(error)
    last: dict[str, float] = {}
    for one in found:
        last[one.uuid] = max(one.created_at, last.get(one.uuid, 0.0))
    return sorted(found, key=lambda one: (last[one.uuid], one.last_lsn, one.created_at, one.id))


def newest(store: ObjectStore) -> Manifest | None:
    """The newest backup that is whole, by the time in its id; no other manifest is read."""
    ids = [listed.path.removeprefix(f"{BACKUPS}/") for listed in store.listed(BACKUPS)]
    for id in sorted(filter(ID.fullmatch, ids), key=_age, reverse=True):
        data = store.get(backup_path(id))
        if data is not None:
            with contextlib.suppress(CorruptData):
                return unpacked(data, Manifest, backup_path(id))[0]
    return None


def _age(id: str) -> tuple[str, int, str]:
    stamp, lsn, salt = id.split("-")
    return stamp, int(lsn), salt


def pages_of(store: ObjectStore, manifest: Manifest) -> PageList:
    """The list of the pages of a backup. Raises CorruptData."""
    path = list_path(manifest.id)
    data = store.get(path)
    if data is None:
        raise CorruptData(f"{path} is missing", object=path, hint=OTHER)
    pages, summed = unpacked(data, PageList, path)
    if summed != manifest.list_sum:
        raise CorruptData(f"{path} is not the list of this backup", object=path, hint=OTHER)
    for table in pages.tables:
        if sum(page.rows for page in table.pages) != table.rows or any(
            not 0 <= page.owner < len(pages.owners) for page in table.pages
        ):
            raise CorruptData(f"{path} contradicts itself", object=path, hint=OTHER)
    return pages
