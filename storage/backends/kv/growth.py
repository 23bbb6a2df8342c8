"""A map that grows, of an environment that closes while it is not used.

LMDB changes the size of a map only while this process has no transaction in it.

short     a transaction of one call: a change of the size waits for its end, for `WAIT_S` at most
lasting   a scan or a copy, which its caller ends: there is no change meanwhile
other     a process whose map is smaller than the file has MDB_MAP_RESIZED at its next transaction, and maps it anew
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import lmdb

from shadowswitch.model.errors import ResourceExhausted
from shadowswitch.storage.backends.kv import kept
from shadowswitch.storage.write_transaction import write_transaction

T = TypeVar("T")

MAP_SIZE_MIB_MAX = 1 << 24
WAIT_S = 1.0
"""The longest wait for the short transactions of other threads; new ones wait meanwhile."""
ADOPTIONS_MAX = 10
"""Times that a transaction maps the file anew before it is refused: another process grows it each time."""
_OPEN_SCAN = "a scan or a copy of it is open in this process"


class GrowingMap:
    """The transactions of one environment, which is open while it has any. Any thread."""

    def __init__(self, env: lmdb.Environment, path: Path, reopen: Callable[[int], lmdb.Environment]) -> None:
        """`reopen` opens the environment again, with a map of so many bytes."""
        self._env: lmdb.Environment | None = env
        self._path = path
        self._reopen = reopen
        self._size_bytes = int(env.info()["map_size"])
        self._changed = threading.Condition()
        self._running = self._lasting = 0
        self._is_resized = False

    @contextlib.contextmanager
    def transaction(self, lasting: bool = False) -> Iterator[lmdb.Transaction[bytes]]:
        """A transaction that reads; a short one unless it is `lasting`."""
        transaction = self.begin(lasting)
        try:
            with transaction:
                yield transaction
        finally:
            self.ended(lasting)

    def write(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Do `work` in a transaction that writes; see `write_transaction`. Raises ResourceExhausted, and as LMDB."""
        result = self._with_map(lambda: write_transaction(self._opened(), work))
        self.ended()
        return result

    def begin(self, lasting: bool = False) -> lmdb.Transaction[bytes]:
        """A transaction that reads. Its caller ends it, and calls `ended` afterwards.

        Raises ResourceExhausted, and as LMDB.
        """
        return self._with_map(lambda: self._opened().begin(), lasting)

    def _with_map(self, call: Callable[[], T], lasting: bool = False) -> T:
        """`call`, counted as a transaction until `ended`, with the map of the file as it is now."""
        for _ in range(ADOPTIONS_MAX):
            self._enter(lasting)
            try:
                return call()
            except lmdb.MapResizedError:
                self.ended(lasting)
                hindered = self._resize(0)
            except BaseException:
                self.ended(lasting)
                raise
            if hindered:
                raise ResourceExhausted(
                    f"{self._path} has grown beyond the map of this process, and {hindered}",
                    resource="the map of a kv shard",
                    operation="read",
                    object=str(self._path),
                    hint="end the scans of the index in this process, and try again",
                )
        raise ResourceExhausted(
            f"{self._path} grows beyond each map of this process",
            resource="the map of a kv shard",
            operation="read",
            object=str(self._path),
            hint="try again",
        )

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """For a call of LMDB that has a transaction of its own, and may take long."""
        self._enter(True)
        try:
            yield
        finally:
            self.ended(True)

    def _enter(self, lasting: bool) -> None:
        with self._changed:
            while self._is_resized:  # for WAIT_S, and the time of a system call
                self._changed.wait(WAIT_S)
            if self._env is None:
                self._env = self._reopen(self._size_bytes)
            self._running += 1
            self._lasting += lasting
        kept.used(self)

    def _opened(self) -> lmdb.Environment:
        """With a transaction, or about to begin one."""
        assert self._env is not None, "an environment with transactions is open"
        return self._env

    @property
    def is_open(self) -> bool:
        """Or about to be: True while it has transactions."""
        return self._env is not None

    def close_unused(self) -> bool:
        """Close the environment until its next transaction; False while it has one. What is committed stays."""
        with self._changed:
            if self._env is None or self._running or self._is_resized:
                return False
            self._size_bytes = int(self._env.info()["map_size"])
            self._env.close()
            self._env = None
            return True

    def close(self) -> None:
        """Close the environment for good."""
        kept.forget(self)
        with self._changed:
            if self._env is not None:
                self._env.close()

    def ended(self, lasting: bool = False) -> None:
        """A transaction of `begin` has ended."""
        with self._changed:
            self._running -= 1
            self._lasting -= lasting
            self._changed.notify_all()

    def grow(self) -> str:
        """Double the map; the reason if that cannot be. This thread has no transaction.

        Raises MemoryError, OSError without the address space.
        """
        self._enter(False)
        size_bytes = 2 * int(self._opened().info()["map_size"])
        self.ended()
        if size_bytes > MAP_SIZE_MIB_MAX << 20:
            return f"no map is larger than {MAP_SIZE_MIB_MAX} MiB"
        return self._resize(size_bytes)

    def _resize(self, size_bytes: int) -> str:
        """0: as large as the file needs. The reason if that cannot be now."""
        with self._changed:
            if self._lasting:
                return _OPEN_SCAN
            if self._is_resized:
                return "another thread changes its size"
            self._is_resized = True
            try:
                if not self._changed.wait_for(lambda: not self._running, WAIT_S):
                    return "transactions of other threads last"
                _refuse_without_room(size_bytes)
                if self._env is not None:
                    self._env.set_mapsize(size_bytes)
                else:
                    self._size_bytes = max(self._size_bytes, size_bytes)
                return ""
            finally:
                self._is_resized = False
                self._changed.notify_all()


def _refuse_without_room(size_bytes: int) -> None:
    """LMDB gives up its map before it has the new one, and cannot be used without: look for the room first."""
    if size_bytes:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
