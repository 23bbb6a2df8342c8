"""Refuses a resource of the operating system: the nth time that the product asks for it, or for a while.

    descriptor   os.open, open, os.scandir, sqlite3.connect, lmdb.open, socket.socketpair: EMFILE, as each reports it
    memory       lmdb.open, sqlite3.connect: ENOMEM
    thread       Thread.start: "can't start new thread"
    process      subprocess.Popen: EAGAIN

Worker processes are not refused anything: they run as they are.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lmdb
import pytest

import shadowswitch

PRODUCT = ("model", "storage", "actors", "engine", "service")
ROOT = str(Path(__file__).resolve().parents[2])
TESTS = os.path.join(ROOT, "tests")
INSTALLED = os.path.dirname(os.path.realpath(shadowswitch.__file__))
"""The product as it is imported: a package of its own, or, in an editable install, the folders of this checkout."""


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _sqlite_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return error


def _emfile() -> OSError:
    return _os_error(errno.EMFILE)


def _lmdb_emfile() -> lmdb.Error:
    return lmdb.Error(f"somewhere: {os.strerror(errno.EMFILE)}")


def _lmdb_enomem() -> lmdb.Error:
    return lmdb.MemoryError(f"somewhere: {os.strerror(errno.ENOMEM)}")


Place = tuple[Any, str, Callable[[], BaseException]]
PLACES: dict[str, list[Place]] = {
    "descriptor": [
        (os, "open", _emfile),
        (io, "open", _emfile),
        (builtins, "open", _emfile),
        (os, "scandir", _emfile),
        (socket, "socketpair", _emfile),
        (sqlite3, "connect", _sqlite_error),
        (lmdb, "open", _lmdb_emfile),
    ],
    "memory": [(lmdb, "open", _lmdb_enomem), (sqlite3, "connect", MemoryError)],
    "thread": [(threading.Thread, "start", lambda: RuntimeError("can't start new thread"))],
    "process": [(subprocess.Popen, "__init__", lambda: _os_error(errno.EAGAIN))],
}
"""Where each kind of resource is asked for, and how its lack is reported there."""


class Refusal:
    """The nth request of the product for a resource is refused; later ones are granted. Any thread."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.asked = 0
        self.where = ""
        """The function of the product that was refused."""
        self._lock = threading.Lock()

    def strikes(self) -> bool:
        """Is this request of the product the nth one?"""
        place = _asking()
        if not place:
            return False
        with self._lock:
            self.asked += 1
            if self.asked != self.nth:
                return False
            self.where = place
            return True


class Shortage:
    """Every request of the product is refused while `lasts` is true. Any thread."""

    def __init__(self, lasts: Callable[[], bool]) -> None:
        self._lasts = lasts

    def strikes(self) -> bool:
        """Is this a request of the product, in that time?"""
        return self._lasts() and bool(_asking())


def refuse(patch: pytest.MonkeyPatch, kind: str, nth: int) -> Refusal:
    """Refuse the nth request for a resource of this kind."""
    refusal = Refusal(nth)
    _install(patch, kind, refusal)
    return refusal


def refuse_while(patch: pytest.MonkeyPatch, kind: str, lasts: Callable[[], bool]) -> None:
    """Refuse each request for a resource of this kind while `lasts` is true."""
    _install(patch, kind, Shortage(lasts))


def _install(patch: pytest.MonkeyPatch, kind: str, refusal: Refusal | Shortage) -> None:
    for owner, name, lack in PLACES[kind]:
        patch.setattr(owner, name, _wrapped(getattr(owner, name), refusal, lack))


def _wrapped(ordinary: Any, refusal: Refusal | Shortage, lack: Callable[[], BaseException]) -> Any:
    def wrapped(*given: Any, **how: Any) -> Any:
        if refusal.strikes():
            raise lack()
        return ordinary(*given, **how)

    return wrapped


@cache
def _real(name: str) -> str:
    return os.path.realpath(name)


def _asking() -> str:
    """The nearest function of the product above this call, "" if a test asks for itself or nothing of it is there."""
    frame = sys._getframe(3)  # behind this, `strikes` and the wrapper
    while frame is not None:
        name = _real(frame.f_code.co_filename)
        if name.startswith(TESTS):
            return ""
        if name.startswith((INSTALLED, *(os.path.join(ROOT, layer) for layer in PRODUCT))):
            return f"{os.path.relpath(name, ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
