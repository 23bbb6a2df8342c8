"""The files of the words of a shard, and what the errors of Tantivy mean.

A file of Tantivy never changes, and ends with the checksum of its content. Tantivy maps the files and compares no
checksum, so the files are read whole before it opens them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import msgspec

from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.reading import Count, no_look
from shadowswitch.storage.shortages import no_room, shortage

FOLDER = "words"
META = "meta.json"
"""The file that names the segments of the last commit."""
TRIES = 20
CHUNK_BYTES = 8 << 20
"""A copy is forced to disk so often: the next fsync of the journal waits behind all dirty pages."""
READ_BYTES = 1 << 20
FREE_BYTES_MIN = 1 << 20
_MANAGED = ".managed.json"
_FOOTER_BYTES_MAX = 1 << 16
_CHECKSUM = re.compile(rb'"crc":(\d+)')
_MAGIC = (1337).to_bytes(4, "little")
_EXTENSIONS = ("store", "idx", "pos", "term", "fieldnorm", "fast")
_OS_ERROR = re.compile(r"(?:os error |code: )(\d+)")


class Files:
    """The files of one commit of the words of a shard, held open."""

    def __init__(self, path: Path, folder: str = FOLDER) -> None:
        """Raises CorruptData where no commit is there."""
        self._open: dict[str, int] = {}
        with translated("read words", path):
            for left in reversed(range(TRIES)):
                try:
                    self._hold(path / folder)
                    return
                except FileNotFoundError:  # a later commit removed it
                    self.close()
                    if not left:
                        raise

    def _hold(self, folder: Path) -> None:
        self.meta = (folder / META).read_bytes()
        names = sorted(_names(self.meta) & set(os.listdir(folder)))
        for name in names:
            self._open[name] = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        if (folder / META).read_bytes() != self.meta:
            raise FileNotFoundError(f"{folder} was committed to meanwhile")

    def damage(self, looked: Count = no_look) -> list[str]:
        """Read every file, and compare it with the checksum at its end."""
        found = []
        for name, descriptor in self._open.items():
            size = os.fstat(descriptor).st_size
            end = os.pread(descriptor, _FOOTER_BYTES_MAX, max(0, size - _FOOTER_BYTES_MAX))
            length = int.from_bytes(end[-8:-4], "little")
            expected = _CHECKSUM.search(end[-8 - length : -8])
            if end[-4:] != _MAGIC or expected is None:
                found.append(f"{name} has no end")
            elif _checksum(descriptor, size - 8 - length, looked) != int(expected[1]):
                found.append(f"the content of {name} does not match its checksum")
        return found

    def copy(self, target: Path) -> None:
        """Copy them to a new folder, durably."""
        target.mkdir(mode=0o700)
        for name, descriptor in self._open.items():
            _copy(descriptor, target / name)
        managed = msgspec.json.encode(sorted([*self._open, META]))
        for name, content in ((_MANAGED, managed), (META, self.meta)):
            (target / name).write_bytes(content)
            with (target / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(target)

    def close(self) -> None:
        """Release them. Idempotent."""
        while self._open:
            os.close(self._open.popitem()[1])


@contextmanager
def translated(operation: str, path: Path) -> Iterator[None]:
    """Turn the errors of Tantivy and of the operating system into errors of this library."""
    try:
        yield
    except ShadowSwitchError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise _translate(error, operation, path) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _translate(error, operation, path) from error


def _translate(error: BaseException, operation: str, path: Path) -> ShadowSwitchError:
    """Tantivy says the number of an error of the system in its text alone."""
    number = _OS_ERROR.search(str(error))
    of_system = OSError(int(number[1]), os.strerror(int(number[1]))) if number is not None else None
    lack = shortage(of_system or error, operation, str(path)) or None
    if lack is None and number is None and (full := no_room(path, FREE_BYTES_MIN)) is not None:
        lack = shortage(full, operation, str(path))
    return lack or unusable(path, str(error) or type(error).__name__)


def unusable(path: Path, why: str) -> CorruptData:
    """The error of words that are missing, damaged, or not those of the rows beside them."""
    return CorruptData(
        f"the words of the shard cannot be used: {why:.300}",
        object=str(path),
        hint="the next opening for writing makes them anew; if it fails, build the index again",
    )


def _names(meta: bytes) -> set[str]:
    """The names that the files of the segments may have."""
    found = set()
    for segment in msgspec.json.decode(meta)["segments"]:
        name = segment["segment_id"].replace("-", "")
        found |= {f"{name}.{extension}" for extension in _EXTENSIONS}
        if segment["deletes"] is not None:
            found.add(f"{name}.{segment['deletes']['opstamp']}.del")
    return found


def _checksum(descriptor: int, size: int, looked: Count) -> int:
    found, place = 0, 0
    while place < size:
        chunk = os.pread(descriptor, min(READ_BYTES, size - place), place)
        if not chunk:
            break
        found, place = crc32(chunk, found), place + len(chunk)
        looked(0)
    return found


def _copy(descriptor: int, target: Path) -> None:
    new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        place = 0
        while chunk := os.pread(descriptor, CHUNK_BYTES, place):
            view = memoryview(chunk)
            while view:
                view = view[os.write(new, view) :]
            place += len(chunk)
            os.fdatasync(new)
        os.fsync(new)
    finally:
        os.close(new)
