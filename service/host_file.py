"""The file `HOST` in a data directory: commands find the server with it. Only the user of the server can read it.

    {"url": "http://127.0.0.1:8740", "token": "...", "pid": 4242}

The file is valid while its process holds the lock of the directory. The file of a killed server is ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.errors import StorageFull
from shadowswitch.storage import data_directory, no_links
from shadowswitch.storage.shortages import shortage

NAME = "HOST"
BYTES_MAX = 4096
AGAIN_S = 1.0

logger = logging.getLogger("shadowswitch")


class HostFile(msgspec.Struct, frozen=True):
    """The server, and a token with every scope for the commands of its user; "" where the server takes no tokens."""

    url: str
    token: str
    pid: int


def write(data: Path, found: HostFile) -> None:
    """Write the file. It is never readable by another user."""
    temporary = data / f"{NAME}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(found))
        os.replace(temporary, data / NAME)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


class Announcement:
    """The file of a running server. A disk without room delays it, and not the server: reads need no room."""

    def __init__(self, data: Path, found: HostFile) -> None:
        self._data = data
        self._found = found
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Write the file; without room, try again until there is some. Raises OSError for any other reason."""
        if not self._wrote():
            logger.warning("no room for the file %s: commands do not find this server until there is", NAME)
            self._thread = threading.Thread(target=self._try_again, name="host-file", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Remove the file."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        remove(self._data)

    def _wrote(self) -> bool:
        try:
            write(self._data, self._found)
        except OSError as error:
            if not isinstance(shortage(error), StorageFull):
                raise
            return False
        return True

    def _try_again(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.wait(AGAIN_S) and not self._wrote():
                pass


def remove(data: Path) -> None:
    """Remove the file of a server that ends, and no file of another server in its place."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        if msgspec.json.decode((data / NAME).read_bytes(), type=HostFile).pid == os.getpid():
            (data / NAME).unlink()


def read(data: Path) -> HostFile | None:
    """The server that has the directory open now, or None."""
    try:
        with no_links.opened(data / NAME) as descriptor:
            state = os.fstat(descriptor)
            if state.st_uid != os.getuid() and os.getuid() != 0:
                return None
            found = msgspec.json.decode(no_links.read(descriptor, BYTES_MAX), type=HostFile)
    except (OSError, msgspec.DecodeError):
        return None
    holder = holder_of(data)
    return found if holder is not None and holder.get("pid") == found.pid else None


def holder_of(data: Path) -> dict[str, Any] | None:
    """The process that has the directory open (pid, host, command, since), or None.

    /proc/locks shows whether the process holds the lock file. An attempt to take the lock would show it too, but a
    starting engine could meet that attempt and take it for another engine.
    """
    with contextlib.suppress(OSError):
        with no_links.opened(data / data_directory.LOCK) as descriptor:
            holder = data_directory.read_holder(descriptor)
            return holder if holder.get("pid") in data_directory.flock_pids(descriptor) else None
    return None
