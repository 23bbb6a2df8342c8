"""The four ways to rebuild, as hosts of the same indexes for the same developers. All write to the same real engine.

    freeze       the branch is locked while the index is built; then a link leads to the new one
    swap         copy, then the alias (a link) is replaced; nothing captures the writes made meanwhile
    seed-moves   copy, then, under a short lock, the old directory is moved away and the new one in its place
    shadow       `Engine.rebuild`

In the first three the host applies every write to its index itself, right after the engine acknowledged it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.common import KIND
from benchmarks.ledger import Key
from benchmarks.paths import OPTIONS, PathIndex, copy_in_process, item_of, point_link
from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import WriteBlocked
from shadowswitch.model.locks.targets import LockType
from shadowswitch.model.names import directory_name
from shadowswitch.model.records import Delete, Hit, Put
from shadowswitch.model.views import SwitchRequest

WAIT_S = 300.0
COPY_S = 30.0
STRIPES = 256
REBUILDER = "rebuild"
"""The owner of the locks for rebuilds; a developer that meets one waits until it is gone."""


class Delays(msgspec.Struct, frozen=True):
    """The effects of larger data and a busier disk, for small runs: a pause between the two moves; a copy without a
    lock lasts until so many records were deleted meanwhile."""

    gap_s: float = 0.0
    copy_deletes: int = 0


class Host(Protocol):
    """The service that the tools of a developer call. Any thread."""

    mode: str
    engine: Engine

    def write(self, branch: str, change: Put | Delete, owner: str, tokens: Sequence[int] = ()) -> int:
        """Durable when it returns; its LSN. Waits while the branch is locked for a rebuild. Raises WriteBlocked for
        the lock of another developer."""
        ...

    def search(self, branch: str, query: str) -> list[Hit]:
        """The hits of the index."""
        ...

    def lsn_of(self, key: Key) -> int | None:
        """The version of a record that the index holds."""
        ...

    def held(self, branch: str) -> dict[Key, int]:
        """Everything that the index holds."""
        ...

    def rebuild(self, branch: str) -> None:
        """Build the index anew and switch to it."""
        ...

    def settle(self, branch: str) -> None:
        """Wait until the index shows everything acknowledged so far."""
        ...

    def outside_path(self, branch: str) -> Path:
        """The path by which other programs open the index."""
        ...

    def close(self) -> None:
        """Close the indexes of the host; not the engine."""
        ...


class ShadowHost:
    """shadowswitch as it is."""

    mode = "shadow"

    def __init__(self, engine: Engine, branches: Sequence[str], types: Sequence[str]) -> None:
        self.engine = engine
        self._types = list(types)
        for branch in branches:
            self.rebuild(branch)

    def write(self, branch: str, change: Put | Delete, owner: str, tokens: Sequence[int] = ()) -> int:
        return self.engine.write(branch, [change], owner=owner, tokens=tokens, timeout_s=WAIT_S).lsn

    def search(self, branch: str, query: str) -> list[Hit]:
        with self.engine.reader(branch, KIND) as reader:
            return reader.search(query)

    def lsn_of(self, key: Key) -> int | None:
        with self.engine.reader(key[0], KIND) as reader:
            found = reader.get(key[1], key[2])
        return found.lsn if found is not None else None

    def held(self, branch: str) -> dict[Key, int]:
        with self.engine.reader(branch, KIND) as reader:
            return {(branch, found.resource_type, found.id): found.lsn for found in reader.scan()}

    def rebuild(self, branch: str) -> None:
        result = self.engine.rebuild(
            branch, KIND, self._types, {**OPTIONS, "parallel_workers": 1}, SwitchRequest(), timeout_s=WAIT_S
        )
        if not result.success:
            raise RuntimeError(f"the switch failed: {result.message}")

    def settle(self, branch: str) -> None:
        with self.engine.reader(branch, KIND, min_lsn=self.engine.head(branch), timeout_s=WAIT_S):
            pass

    def outside_path(self, branch: str) -> Path:
        return self.engine.path / "published" / directory_name(branch) / KIND

    def close(self) -> None:
        pass


class PathHost:
    """The common part of the three other ways."""

    mode = ""

    def __init__(self, engine: Engine, branches: Sequence[str], types: Sequence[str], delays: Delays) -> None:
        self.engine = engine
        self._delays = delays
        self._root = engine.path.parent / "paths"
        self._number = 0
        self._deletes = 0
        self._stripes = [threading.Lock() for _ in range(STRIPES)]
        self._free = {branch: threading.Event() for branch in branches}
        self._indexes: dict[str, PathIndex] = {}
        for branch in branches:
            self._free[branch].set()
            self.outside_path(branch).parent.mkdir(parents=True)
            self._place(branch, self._copy(branch))
            self._indexes[branch] = PathIndex(self.outside_path(branch))

    def write(self, branch: str, change: Put | Delete, owner: str, tokens: Sequence[int] = ()) -> int:
        deadline = time.monotonic() + WAIT_S
        while True:
            self._free[branch].wait(WAIT_S)
            try:
                with self._stripes[hash((branch, change.resource_type, change.id)) % STRIPES]:
                    lsn = self.engine.write(branch, [change], owner=owner, tokens=tokens, timeout_s=WAIT_S).lsn
                    self._indexes[branch].apply([item_of(change, lsn)])
                    self._deletes += isinstance(change, Delete)
                    return lsn
            except WriteBlocked as error:
                if error.blocked.holder != REBUILDER or time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def search(self, branch: str, query: str) -> list[Hit]:
        return self._indexes[branch].search(query)

    def lsn_of(self, key: Key) -> int | None:
        found = self._indexes[key[0]].reader().get(key[1], key[2])
        return found.lsn if found is not None else None

    def held(self, branch: str) -> dict[Key, int]:
        reader = self._indexes[branch].reader()
        return {(branch, found.resource_type, found.id): found.lsn for found in reader.scan()}

    def rebuild(self, branch: str) -> None:
        raise NotImplementedError

    def settle(self, branch: str) -> None:
        pass

    def outside_path(self, branch: str) -> Path:
        return self._root / directory_name(branch) / "current"

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()

    def _copy(self, branch: str) -> Path:
        self._number += 1
        path = self.outside_path(branch).with_name(f"shadow-{self._number}")
        copy_in_process(self.engine.path, branch, path)
        return path

    def _copy_under_load(self, branch: str) -> Path:
        path, before, deadline = self._copy(branch), self._deletes, time.monotonic() + COPY_S
        while self._deletes < before + self._delays.copy_deletes and time.monotonic() < deadline:
            time.sleep(0.005)
        return path

    def _place(self, branch: str, built: Path) -> None:
        """Let the path lead to the built index."""
        point_link(self.outside_path(branch), built)

    def _switch(self, branch: str, built: Path) -> None:
        index = self._indexes[branch]
        with index.lock:
            index.writer.close()
            self._place(branch, built)
            index.open()

    @contextmanager
    def _locked(self, branch: str, lock_type: LockType, reason: str) -> Iterator[None]:
        lock = self.engine.acquire_lock(branch, lock_type, REBUILDER, reason=reason, wait_s=WAIT_S)
        self._free[branch].clear()
        try:
            yield
        finally:
            self.engine.release_lock(lock.lock_id, lock.token)
            self._free[branch].set()


class FreezeHost(PathHost):
    """No developer writes while the index is built."""

    mode = "freeze"

    def rebuild(self, branch: str) -> None:
        with self._locked(branch, LockType.INDEXING, "the index is being built"):
            self._switch(branch, self._copy(branch))


class SwapHost(PathHost):
    """Alias swap, as search servers do it: the writes made during the copy are not carried over."""

    mode = "swap"

    def rebuild(self, branch: str) -> None:
        self._switch(branch, self._copy_under_load(branch))


class MovesHost(PathHost):
    """The report's switch: `shutil.move` the old directory away, then the new one in, under a short lock."""

    mode = "seed-moves"

    def rebuild(self, branch: str) -> None:
        built = self._copy_under_load(branch)
        with self._locked(branch, LockType.MAINTENANCE, "switching the index"):
            self._switch(branch, built)

    def _place(self, branch: str, built: Path) -> None:
        path = self.outside_path(branch)
        if path.exists():
            shutil.move(path, path.with_name(f"current_backup_{self._number}"))
            time.sleep(self._delays.gap_s)
        shutil.move(built, path)


def make_host(mode: str, engine: Engine, branches: Sequence[str], types: Sequence[str], delays: Delays) -> Host:
    """The host of a mode, with every index built."""
    if mode == ShadowHost.mode:
        return ShadowHost(engine, branches, types)
    kind: type[PathHost] = {kind.mode: kind for kind in (FreezeHost, SwapHost, MovesHost)}[mode]
    return kind(engine, branches, types, delays)
