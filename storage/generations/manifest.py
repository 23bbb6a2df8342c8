"""The manifest of a generation: its identity, and checksums of its closed files that reveal a flipped bit.

Owns `manifest.json`. The builder writes it twice, whole each time: when it makes the directory, and, with `built`, when
the shadow has passed its validation:

    {"format": 1, "catalog": "<uuid>", "generation": 12, "branch": "main", "index_type": "SEARCH_INDEX",
     "backend": "fts5", "options": {...}, "fingerprint": "9c1a...", "shards": 2, "resource_types": ["object_type"],
     "built": {"applied_lsn": 812, "record_count": 500, "digest": "77aa...",
               "files": {"shard-000/terms.bin": {"size_bytes": 1234, "blake2b": "5d0f..."}}}}

A closed file is one that its backend never changes after the build (`Backend.closed_files`). The catalog holds the
checksum of the manifest itself, so the chain of checksums begins in a transaction. Invariant: IX-8.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.model.shadow_state import GenerationRole
from shadowswitch.storage import disk
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.data_directory import CATALOG, GENERATIONS
from shadowswitch.storage.generations.directory import MANIFEST
from shadowswitch.storage.shortages import shortages

CHUNK_BYTES = 1 << 20


class ClosedFile(msgspec.Struct, frozen=True):
    """Size and checksum of a closed file, taken when the build passed its validation."""

    size_bytes: int
    blake2b: str


class Built(msgspec.Struct, frozen=True):
    """The part of the manifest about the finished build; `files` by path below the generation."""

    applied_lsn: int
    record_count: int
    digest: str
    files: dict[str, ClosedFile]


def write_manifest(
    path: Path, row: GenerationRow, branch_name: str, catalog_uuid: str, built: Built | None = None
) -> str:
    """Write the manifest durably; returns its checksum. Raises OSError."""
    manifest: dict[str, Any] = {
        "format": 1,
        "catalog": catalog_uuid,
        "generation": row.number,
        "branch": branch_name,
        "index_type": row.index_type,
        "backend": row.backend,
        "options": row.options,
        "fingerprint": row.fingerprint,
        "shards": row.shards,
        "resource_types": row.resource_types,
    }
    if built is not None:
        manifest["built"] = msgspec.to_builtins(built)
    data = json.dumps(manifest, indent=1, sort_keys=True).encode()
    disk.write_durably(path / MANIFEST, data)
    return _checksum(data)


def check_manifest(path: Path, row: GenerationRow, catalog_uuid: str) -> None:
    """Raise CorruptData unless the manifest names this generation of this catalog, and no closed file is cut off."""
    try:
        manifest = json.loads(_bytes_of(path / MANIFEST))
        found = (manifest["catalog"], manifest["generation"], manifest["fingerprint"], manifest["shards"])
        files = manifest.get("built", {}).get("files", {})
        cut = [name for name, file in files.items() if os.stat(path / name).st_size < file["size_bytes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptData(
            f"generation {row.number} has no readable manifest in {path}: {error}",
            object=str(path),
            hint="rebuild the index; its records are safe in the catalog",
        ) from error
    if found != (catalog_uuid, row.number, row.fingerprint, row.shards):
        raise CorruptData(
            f"{path} holds another generation than number {row.number} of this catalog",
            object=str(path),
            hint="was the directory copied here? Rebuild the index",
        )
    if cut:
        raise CorruptData(
            f"{path / cut[0]} is cut off: it is shorter than after the build",
            object=str(path),
            hint="rebuild the index; its records are safe in the catalog",
        )


def refuse_foreign(root: Path, catalog: Catalog) -> None:
    """Raise CorruptData where the generations of a data directory belong to another catalog.

    This catalog would serve other records, and remove directories of the same names. One manifest that names this
    catalog is enough, as each that does not is refused when its generation is opened. A manifest that is damaged says
    nothing, nor does one in a directory to which a builder of this catalog still writes.
    """
    foreign = []
    for file in (root / GENERATIONS).glob(f"*/*/*/{MANIFEST}"):
        try:
            named = json.loads(_bytes_of(file))["catalog"]
        except (ShadowSwitchError, OSError, ValueError, KeyError, TypeError):
            continue
        if named == catalog.uuid:
            return
        if _is_other(str(named), catalog.uuid):
            foreign.append(file.parent)
    rows = catalog.generations() if foreign else []
    building = {root / row.path for row in rows if row.role is GenerationRole.BUILDING}
    others = [path for path in foreign if path not in building]
    if others:
        raise CorruptData(
            f"the catalog in {root / CATALOG} is that of another data directory: {others[0]} and every other generation"
            " belong to another catalog",
            operation="open",
            object=str(root / CATALOG),
            hint=f"nothing was removed; put the {CATALOG}/ back that belongs to {GENERATIONS}/, or move"
            f" {root / GENERATIONS} away and rebuild the indexes of this catalog",
        )


def _is_other(named: str, own: str) -> bool:
    """Is this the id of another catalog? A damaged id still has most characters of its own."""
    return len(named) == len(own) and sum(one != other for one, other in zip(named, own, strict=True)) > len(own) // 2


def checksums(
    path: Path, backend: Backend, shards: Iterable[Path], options: Mapping[str, Any]
) -> dict[str, ClosedFile]:
    """Every closed file of these shards of a generation with its checksum. Reads them all. Raises OSError."""
    found = {}
    for shard in shards:
        for name in backend.closed_files(shard, options):
            found[f"{shard.name}/{name}"] = _read(shard / name)
    return found


def check_closed_files(path: Path, manifest_hash: str, contents: bool = True) -> list[str]:
    """Problems: the manifest, or a file that it lists, has changed since the build (IX-8).

    Without `contents` the sizes of the files are compared, and no file is read but the manifest.
    """
    if not manifest_hash:
        return []
    try:
        data = _bytes_of(path / MANIFEST)
        if _checksum(data) != manifest_hash:
            return [f"{MANIFEST} has changed since the build"]
        built = msgspec.convert(json.loads(data)["built"], Built)
    except (OSError, ValueError, KeyError) as error:
        return [f"{MANIFEST} cannot be read: {error}"]
    problems = []
    for name, expected in sorted(built.files.items()):
        try:
            found = _read(path / name) if contents else expected
            size_bytes = (path / name).stat().st_size
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
            continue
        if size_bytes != expected.size_bytes:
            problems.append(f"{name} has {size_bytes} bytes, it had {expected.size_bytes} after the build")
        elif found != expected:
            problems.append(f"{name} has other content than after the build")
    return problems


def short(digest: Digest) -> str:
    """The checksum of a digest, as the manifest holds it."""
    return _checksum(digest.encode())


def _checksum(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _bytes_of(file: Path) -> bytes:
    with shortages("read manifest", str(file)):
        return file.read_bytes()


def _read(file: Path) -> ClosedFile:
    hashed, size = blake2b(digest_size=16), 0
    with shortages("read", str(file)):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            hashed.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return ClosedFile(size, hashed.hexdigest())
