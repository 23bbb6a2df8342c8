"""The manifest of an external builder, and the check of the delivered files against it.

    <shadow_index_path>/
        manifest.json, PINS      files of the engine, made when the build began
        build-manifest.json      written by the builder, last:
            {"format": 1, "shadow_index_id": "5f0c...", "applied_lsn": 812, "record_count": 500,
             "files": {"shard-000/terms.bin": {"size_bytes": 1234, "sha256": "9f86d081..."}}}
        shard-000/ ...           the index itself: every file of it is listed

No text of the builder is ever used as a path. A worker process walks the directory without following a link, hashes
each file, forces it to disk, and compares it with the manifest. Of an index of a known backend it makes a private copy
in the same pass: what was hashed is what `storage.generations.adoption` opens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.generations.directory import MANIFEST, PINS
from shadowswitch.storage.reading import Count, no_look
from shadowswitch.storage.shortages import passing

BUILD_MANIFEST = "build-manifest.json"
MANIFEST_BYTES_MAX = 16 << 20
FILES_MAX = 100_000
PROBLEMS_MAX = 20
"""More problems add nothing."""
CHUNK_BYTES = 1 << 20
PRIVATE = "private"
"""The folder of the private copy, below the delivered directory; no part of a delivery."""
ENGINES_OWN = frozenset({MANIFEST, PINS, BUILD_MANIFEST})

Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class DeliveredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file in the manifest."""

    size_bytes: Whole
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class BuildManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`build-manifest.json`. `files` by path below the directory, with `/`."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    shadow_index_id: str
    applied_lsn: Whole
    record_count: Whole
    files: dict[str, DeliveredFile]


class CheckDelivery(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check the directory of an external build."""

    path: str
    shadow_id: str
    copied: bool = False
    """Copy the shards to `PRIVATE`."""


class Delivered(msgspec.Struct, frozen=True, tag=True):
    """The result of the check; sound without `problems`. `size_bytes` is the sum of the sizes of the files."""

    problems: list[str]
    applied_lsn: int = 0
    record_count: int = 0
    size_bytes: int = 0
    files: int = 0


_decode = msgspec.json.Decoder(BuildManifest).decode


def read_build_manifest(path: Path) -> BuildManifest:
    """The builder's manifest. Raises ValueError, with a message for the builder, when it cannot be read."""
    try:
        descriptor = os.open(path / BUILD_MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _refuse_shortage(error)
        raise ValueError(f"{BUILD_MANIFEST} cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{BUILD_MANIFEST} is not a file")
        if found.st_size > MANIFEST_BYTES_MAX:
            raise ValueError(f"{BUILD_MANIFEST} has {found.st_size} bytes, more than {MANIFEST_BYTES_MAX}")
        try:
            return _decode(file.read(MANIFEST_BYTES_MAX))
        except msgspec.MsgspecError as error:
            raise ValueError(f"{BUILD_MANIFEST}: {error}") from error


def check_delivery(task: CheckDelivery, looked: Count = no_look) -> Delivered:
    """Compare a directory with its manifest, byte by byte, and force it to disk.

    Reads every file. A mistake of the builder is a problem in the result, never an exception.
    """
    root = Path(task.path)
    private = root / PRIVATE if task.copied else None
    if private is not None:
        with disk_errors("complete build"):
            remove_entry(private)
            private.mkdir(mode=0o700)
    try:
        manifest = read_build_manifest(root)
    except ValueError as error:
        return Delivered([str(error)])
    problems: list[str] = []
    if manifest.shadow_index_id != task.shadow_id:
        problems.append(f"{BUILD_MANIFEST} belongs to shadow {manifest.shadow_index_id[:80]!r}")
    if not manifest.files:
        problems.append(f"{BUILD_MANIFEST} lists no file")
    missing, size, count = dict(manifest.files), 0, 0
    for name, problem, found_size, digest in _walk(root, private, looked):
        count += 1
        expected = missing.pop(name, None)
        size += found_size
        if problem:
            problems.append(f"{name[:200]!r} {problem}")
        elif expected is None:
            problems.append(f"{name[:200]!r} is not listed in {BUILD_MANIFEST}")
        elif found_size != expected.size_bytes:
            problems.append(f"{name[:200]!r} has {found_size} bytes, not {expected.size_bytes}")
        elif digest != expected.sha256:
            problems.append(f"{name[:200]!r} has another SHA-256 than listed")
        if len(problems) >= PROBLEMS_MAX or count > FILES_MAX:
            problems += [f"more than {FILES_MAX} files"] if count > FILES_MAX else []
            return Delivered(problems)
    problems += [
        f"{name[:200]!r} is in {BUILD_MANIFEST}, but not in the directory" for name in list(missing)[:PROBLEMS_MAX]
    ]
    return Delivered(problems, manifest.applied_lsn, manifest.record_count, size, count)


def remove_entry(path: Path) -> None:
    """Remove a folder with its content, a file, or a link instead of its target; nothing where nothing is."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _walk(root: Path, private: Path | None, looked: Count) -> Iterator[tuple[str, str, int, str]]:
    """Every file below a directory: (name, problem or "", size, SHA-256), and a copy of each file of a shard.

    Each file is opened relative to its listed directory, without following a link: an entry that is replaced during the
    walk cannot lead outside.
    """
    unreadable: list[OSError] = []
    for folder, folders, names, descriptor in os.fwalk(root, onerror=unreadable.append, follow_symlinks=False):
        below = os.path.relpath(folder, root)
        prefix = "" if below == "." else f"{below}/"
        if private is not None and not prefix and PRIVATE in folders:
            folders.remove(PRIVATE)
        target = private / below if private is not None and below.startswith("shard-") else None
        if target is not None:
            with disk_errors("complete build"):
                target.mkdir(mode=0o700, parents=True)
        for name in folders:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    yield prefix + name, "is a symbolic link", 0, ""
        for name in names:
            if prefix or name not in ENGINES_OWN:
                yield prefix + name, *_read(name, descriptor, target, looked)
        os.fsync(descriptor)
    for error in unreadable:
        _refuse_shortage(error)
        yield str(error.filename), f"cannot be read: {error.strerror}", 0, ""


def _refuse_shortage(error: OSError) -> None:
    """Raise the error of a resource that cannot be had: it is no mistake of the builder."""
    lack = passing(error, "check delivery")
    if lack is not None:
        raise lack from error


def _read(name: str, folder: int, target: Path | None, looked: Count) -> tuple[str, int, str]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        _refuse_shortage(error)
        return f"cannot be opened (no link is followed): {error.strerror}", 0, ""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file", 0, ""
        if found.st_nlink > 1:
            return "has another name elsewhere (a hard link)", 0, ""
        digest, size = hashlib.sha256(), 0
        with _copy_in(target, name) as write:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                write(chunk)
                looked(0)
        os.fsync(descriptor)
        return "", size, digest.hexdigest()
    except OSError as error:
        _refuse_shortage(error)
        return f"cannot be read: {error.strerror}", 0, ""
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _copy_in(target: Path | None, name: str) -> Iterator[Callable[[bytes], object]]:
    """A function that adds a piece to the copy, which is durable at the end; without a target there is no copy."""
    if target is None:
        yield lambda chunk: None
        return
    with disk_errors("complete build"):
        copy = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(chunk: bytes) -> None:
        rest = memoryview(chunk)
        with disk_errors("complete build"):
            while rest:
                rest = rest[os.write(copy, rest) :]

    try:
        yield write
        with disk_errors("complete build"):
            os.fsync(copy)
    finally:
        os.close(copy)
