"""Objects in a folder: a disk, or a file system of the network. A write is in a file of its own until it is whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shadowswitch.model.errors import ShadowSwitchError, StoreUnavailable
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.objects.store import Listed
from shadowswitch.storage.shortages import is_permission, shortage

PARTS = ".parts"
"""The folder of what is being written. A kill leaves a file there, which the next `put` of its kind does not need."""


class FolderStore:
    """A folder as a store. It is made by the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.as_uri()

    def put(self, path: str, data: bytes, settled: bool = True) -> None:
        """As `ObjectStore.put`: the file and its folder are synced."""
        self._store(path, data, os.replace, settled)

    def settle(self, paths: Iterable[str]) -> None:
        """As `ObjectStore.settle`: the file system writes what it has of all files at the first sync."""
        folders = set()
        for path in paths:
            with self._errors("write", path):
                file = self.folder / path
                folders.add(file.parent)
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        for folder in folders:
            with self._errors("write", str(folder)):
                sync_directory(folder)

    def create(self, path: str, data: bytes) -> bool:
        """As `ObjectStore.create`: the file gets its name by a link, which is refused where there is one."""
        try:
            self._store(path, data, os.link)
        except FileExistsError:
            return False
        return True

    def _store(self, path: str, data: bytes, name: Callable[[Path, Path], None], settled: bool = True) -> None:
        with self._errors("write", path):
            target = self.folder / path
            _make(target.parent)
            _make(self.folder / PARTS)
            part = self.folder / PARTS / secrets.token_hex(8)
            try:
                with part.open("xb", buffering=0) as file:
                    _write(file.fileno(), data)
                    if settled:
                        os.fsync(file.fileno())
                name(part, target)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
            if settled:
                sync_directory(target.parent)

    def get(self, path: str) -> bytes | None:
        """As `ObjectStore.get`."""
        with self._errors("read", path):
            try:
                return (self.folder / path).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def listed(self, folder: str) -> Iterator[Listed]:
        """As `ObjectStore.listed`."""
        begin = self.folder / folder
        with self._errors("list", folder):
            found = [Path(where, name) for where, _, names in os.walk(begin, onerror=_unless_missing) for name in names]
        for file in found:
            with self._errors("list", folder), contextlib.suppress(FileNotFoundError):
                known = file.stat()
                yield Listed(file.relative_to(self.folder).as_posix(), known.st_size, known.st_mtime)

    def delete(self, path: str) -> None:
        """As `ObjectStore.delete`; an empty folder goes, too."""
        with self._errors("delete", path):
            file = self.folder / path
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.parent.rmdir()

    @contextlib.contextmanager
    def _errors(self, operation: str, path: str) -> Iterator[None]:
        try:
            yield
        except (ShadowSwitchError, FileExistsError):
            raise
        except OSError as error:
            lack = shortage(error, operation, path)
            if lack is not None and not is_permission(lack):
                raise lack from error
            raise StoreUnavailable(
                f"{self.folder / path} cannot be used: {error.strerror or error}",
                operation=operation,
                object=path,
                hint="check the folder: that its disk is there, and that this user may read and write it",
            ) from error


def _make(folder: Path) -> None:
    """Make a folder with what lies above it, durably."""
    if folder.is_dir():
        return
    _make(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_directory(folder.parent)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
