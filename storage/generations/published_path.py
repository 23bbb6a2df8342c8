"""The published path: `published/<branch>/<INDEX_TYPE>`, where other programs always find one whole generation.

    ATOMIC_RENAME      a symbolic link to the live generation, replaced by `rename`: it follows the journal
    COPY_AND_REPLACE   a full copy as of the switch, on the file system of the published folder (maybe another one),
                       exchanged with what is there by `renameat2(RENAME_EXCHANGE)` in one system call

The live pointer is the intent: it is durable before anything is published. `publish` makes the path agree with it; a
repeated call, also after a kill at any point, ends in the same state. `publish` prepares links and copies in
`.staging`, which no other code uses. The path always exists and never refers to half a copy, because one system call
replaces it: two renames would leave a gap in which readers fail. Invariant: IX-7.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from shadowswitch.model.errors import StorageFull, UnsupportedFilesystem
from shadowswitch.model.names import directory_name
from shadowswitch.model.shadow_state import PublishStrategy
from shadowswitch.storage import data_directory, disk, no_links
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.shortages import NO_ROOM, shortages

PUBLISHED = "published"
STAGING = ".staging"
MARK = "GENERATION"
"""This file of a published copy names its catalog and generation."""
MARK_BYTES_MAX = 1000

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def published_path(root: Path, branch: str, index_type: str) -> Path:
    """The published path of an index."""
    return root / directory_name(branch) / index_type


def identity(catalog_uuid: str, generation: int) -> str:
    """The content of the MARK file: catalog and generation of a published copy."""
    return f"{catalog_uuid}/{generation}"


def is_published(path: Path, generation: Path, mark: str, strategy: str) -> bool:
    """True if the path is a link to this generation, or a whole copy of it."""
    if strategy == PublishStrategy.COPY_AND_REPLACE:
        try:
            with (
                shortages("look at the published path", str(path)),
                no_links.opened_folder(path, follow=False) as copy,
                no_links.opened(MARK, copy) as descriptor,
            ):
                return no_links.read(descriptor, MARK_BYTES_MAX) == mark.encode()
        except OSError:
            return False
    return path.is_symlink() and os.readlink(path) == _link_text(path, generation)


def publish(
    root: Path,
    branch: str,
    index_type: str,
    generation: Path,
    mark: str,
    strategy: str,
    copy_to: Callable[[Path], None],
) -> bool:
    """Publish a generation at the path of its index; False when it was published already. Idempotent, durable.

    For COPY_AND_REPLACE `copy_to(target)` makes a whole copy, which need not be durable yet. Raises StorageFull or
    UnsupportedFilesystem; the path is then unchanged.
    """
    disk.make_folder(root, 0o755)
    path = data_directory.make_directories(root, f"{directory_name(branch)}") / index_type
    if is_published(path, generation, mark, strategy):
        return False
    staging = data_directory.make_directories(root, STAGING)
    staged = staging / f"{directory_name(mark)}-{index_type}"
    try:
        _remove(staged)
        if strategy == PublishStrategy.COPY_AND_REPLACE:
            copy_to(staged)
            failpoint("publish.copied")
            _finish_copy(staged, mark)
        else:
            staged.symlink_to(_link_text(path, generation))
        disk.sync_directory(staging)
        failpoint("publish.staged")
        _put_in_place(staged, path)
        failpoint("publish.exchanged")
        disk.sync_directory(path.parent)
        _keep_for_a_while(staged, staging / f"{directory_name(branch)}-{index_type}.previous")
        failpoint("publish.done")
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull(
                f"no room to publish {path}: {error.strerror}",
                operation="publish",
                object=str(path),
                hint="free space; the path is unchanged",
            ) from error
        raise
    finally:
        _remove(staged)
    return True


def withdraw(root: Path, branch: str, index_type: str, generation: Path, mark: str) -> bool:
    """Remove the published path of an index that has no live one any more; False if it leads elsewhere.

    Idempotent, durable. The folder of a branch goes with its last path.
    """
    path = published_path(root, branch, index_type)
    if not any(is_published(path, generation, mark, strategy) for strategy in PublishStrategy):
        return False
    aside = data_directory.make_directories(root, STAGING) / f"{directory_name(mark)}-{index_type}"
    _remove(aside)
    os.rename(path, aside)  # one system call: a program finds the whole copy, or none
    disk.sync_directory(path.parent)
    failpoint("withdraw.renamed")
    _remove(aside)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
    return True


def clean_staging(root: Path) -> list[str]:
    """Remove the files that a killed host left in `.staging`; returns their names. Call before the first `publish`."""
    staging = root / STAGING
    removed = []
    if staging.is_dir() and not staging.is_symlink():
        for path in sorted(staging.iterdir()):
            _remove(path)
            removed.append(path.name)
    return removed


def _link_text(path: Path, generation: Path) -> str:
    return os.path.relpath(generation, path.parent)


def _finish_copy(staged: Path, mark: str) -> None:
    (staged / MARK).write_text(mark)
    for folder, _, names in os.walk(staged, topdown=False):
        for name in names:
            _sync_file(Path(folder, name))
        disk.sync_directory(Path(folder))


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_for_a_while(staged: Path, previous: Path) -> None:
    """Keep the replaced copy until the next one: another program may be opening a file in it."""
    _remove(previous)
    if staged.is_dir() and not staged.is_symlink():
        os.rename(staged, previous)


def _put_in_place(staged: Path, path: Path) -> None:
    """One system call: a rename when the path does not exist or both are links, else an exchange."""
    if not os.path.lexists(path) or (path.is_symlink() and staged.is_symlink()):
        os.rename(staged, path)
    else:
        _exchange(staged, path)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise UnsupportedFilesystem("this C library has no renameat2", hint="publish with strategy ATOMIC_RENAME")
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        raise UnsupportedFilesystem(
            f"the file system of {other} cannot exchange two directories", hint="publish with strategy ATOMIC_RENAME"
        )
    raise OSError(code, os.strerror(code), str(other))


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
