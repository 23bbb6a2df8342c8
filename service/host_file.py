"""The file by which commands find the server of a data directory: `HOST`, readable by its user only.

    {"url": "http://127.0.0.1:8740", "token": "...", "pid": 4242}

It counts only while the process that it names holds the directory's lock: what a killed server left behind is ignored.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from shadowswitch.service.cli.status import holder_of

NAME = "HOST"
BYTES_MAX = 4096


class HostFile(msgspec.Struct, frozen=True):
    """Where the server is, and the token with which its user's commands may do everything; "" where none is needed."""

    url: str
    token: str
    pid: int


def write(data: Path, found: HostFile) -> None:
    """Tell where the server is. Nobody but its user can read it, at no moment."""
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


def remove(data: Path) -> None:
    """The server goes."""
    with contextlib.suppress(OSError):
        (data / NAME).unlink()


def read(data: Path) -> HostFile | None:
    """The server that has the directory open at this moment; None when there is none that could be asked."""
    try:
        descriptor = os.open(data / NAME, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if state.st_uid != os.getuid() and os.getuid() != 0:
                return None
            found = msgspec.json.decode(file.read(BYTES_MAX), type=HostFile)
    except (OSError, msgspec.DecodeError):
        return None
    holder = holder_of(data)
    return found if holder is not None and holder.get("pid") == found.pid else None
