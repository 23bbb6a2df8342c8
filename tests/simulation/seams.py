"""Where the world takes the place of threads, clocks and chance in the library; everything else runs as it is.

In every module of the library the names `time`, `datetime`, `uuid`, `Reply` and `lmdb` are looked up when they are
used, so replacing them there is enough. A default argument that holds a real clock is replaced too. `reality_of` finds
what was forgotten. All of it is done once for many worlds: what stands there asks `World.present`.
"""

from __future__ import annotations

import datetime as real_datetime
import logging
import random as real_random
import sys
import threading
import time as real_time
import types
import uuid as real_uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb as real_lmdb
import pykka

from shadowswitch.actors.branch import lock_registry as keepers
from shadowswitch.actors.build.builder import ShadowBuilder
from shadowswitch.actors.kit import actor as base
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.engine import lifecycle as running
from shadowswitch.storage import data_directory, failpoints
from shadowswitch.storage.catalog.environment import Catalog
from tests.simulation.threads import VirtualThreading
from tests.simulation.waiting import VirtualInbox, VirtualPykkaFuture, VirtualReply, VirtualTimers
from tests.simulation.workers import VirtualWorkers
from tests.simulation.world import World, present


class VirtualTime:
    """What the module `time` is to the library; nothing else of it may be used."""

    def monotonic(self) -> float:
        return present().monotonic()

    perf_counter = monotonic

    def time(self) -> float:
        return present().wall()

    def sleep(self, delay_s: float) -> None:
        present().sleep(delay_s)


class VirtualUuid:
    """What the module `uuid` is to the library."""

    def uuid4(self) -> real_uuid.UUID:
        return real_uuid.UUID(int=present().next_id())


class VirtualDatetime(real_datetime.datetime):
    """What the class `datetime` is to the library."""

    @classmethod
    def now(cls, tz: real_datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(present().wall(), tz)

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: real_datetime.tzinfo | None = None) -> Any:
        return real_datetime.datetime.fromtimestamp(timestamp, tz)


class VirtualLmdb:
    """LMDB without waiting for the disk: power cuts are not simulated here (see tests/crash)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real_lmdb, name)

    def open(self, path: str, **settings: Any) -> Any:
        return real_lmdb.open(path, **{**settings, "sync": False, "metasync": False})


class VirtualPoints(dict[str, Any]):
    """Every named point of the library leads to the world."""

    def __init__(self) -> None:
        super().__init__({"any": None})

    def get(self, name: str, default: Any = None) -> Any:
        present().reached(name)
        return None


class NoLock:
    """The hold on the data directory; of the processes of one world only one lives at a time."""

    def __init__(self, _: Any) -> None: ...

    def release(self) -> None: ...


class VirtualRandom:
    """What the module `random` is to the library."""

    def Random(self, seed: int | None = None) -> real_random.Random:
        return real_random.Random(self.getrandbits(32) if seed is None else seed)

    def getrandbits(self, bits: int) -> int:
        return present().random.getrandbits(bits)


CLOCK = VirtualTime()
NAMES: dict[int, Any] = {
    id(real_time): CLOCK,
    id(real_uuid): VirtualUuid(),
    id(real_lmdb): VirtualLmdb(),
    id(real_random): VirtualRandom(),
    id(threading): VirtualThreading(),
    id(real_datetime.datetime): VirtualDatetime,
    id(Reply): VirtualReply,
}
CLOCKS: dict[int, Any] = {id(real_time.monotonic): CLOCK.monotonic, id(real_time.time): CLOCK.time}


class Replaced:
    """Replaces attributes, and puts them back in the opposite order."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, list[Any]]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        function = isinstance(owner, types.FunctionType)
        own = [getattr(owner, name)] if function else [vars(owner)[name]] if name in vars(owner) else []
        self._before.append((owner, name, own))
        setattr(owner, name, value)

    def put_back(self) -> None:
        for owner, name, own in reversed(self._before):
            if own:
                setattr(owner, name, own[0])
            else:
                delattr(owner, name)
        self._before.clear()


def modules() -> list[types.ModuleType]:
    """The library's modules, as far as they are loaded."""
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("shadowswitch.")]


def functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """The functions and methods that a module defines."""
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
        yield from (m for m in members if isinstance(m, types.FunctionType) and m.__module__ == module.__name__)


def _replace(replaced: Replaced) -> None:
    for module in modules():
        for name, value in list(vars(module).items()):
            if id(value) in NAMES and not (name == "datetime" and ".model." in module.__name__):
                replaced.put(module, name, NAMES[id(value)])
        for function in functions(module):
            defaults = function.__defaults__ or ()
            if any(id(default) in CLOCKS for default in defaults):
                replaced.put(function, "__defaults__", tuple(CLOCKS.get(id(d), d) for d in defaults))
    replaced.put(base.EngineActor, "_start_actor_loop", _start_actor_loop)
    for kind in (base.EngineActor, ShadowBuilder):
        replaced.put(kind, "_create_actor_inbox", staticmethod(VirtualInbox))
    replaced.put(base.EngineActor, "_create_future", staticmethod(VirtualPykkaFuture))
    replaced.put(running, "Timers", lambda: VirtualTimers(present()))
    replaced.put(running, "WorkerPool", VirtualWorkers)
    replaced.put(running, "Catalog", _open_catalog)
    replaced.put(data_directory, "DirectoryLock", NoLock)
    replaced.put(keepers, "boot_id", lambda: present().boot)
    replaced.put(failpoints, "_plans", VirtualPoints())
    replaced.put(logging.getLogger("shadowswitch"), "disabled", True)


def _open_catalog(path: Path, **settings: Any) -> Catalog:
    catalog = present().catalog = Catalog(path, **settings)
    return catalog


def _start_actor_loop(actor: Any) -> None:
    present().actors.append(actor.actor_ref)
    present().spawn(actor.name, actor._actor_loop)


@contextmanager
def virtual_reality() -> Iterator[None]:
    """Until the end of the block the library lives in `World.present`, whichever that is."""
    replaced = Replaced()
    _replace(replaced)
    try:
        yield
    finally:
        replaced.put_back()


@contextmanager
def inside(world: World) -> Iterator[None]:
    """This world is the present one; at the end nothing of it is left."""
    World.present = world
    try:
        yield
    finally:
        world.bury()
        World.present = None
        for ref in world.actors:
            pykka.ActorRegistry.unregister(ref)


def reality_left() -> list[str]:
    """Real clocks and ids that the library still holds, by name; for inside `virtual_reality`."""
    things = (
        real_time,
        real_uuid,
        real_random,
        threading,
        real_time.monotonic,
        real_time.time,
        real_time.sleep,
        Reply,
    )
    real = {id(thing) for thing in things}
    found = []
    for module in modules():
        found += [f"{module.__name__}.{name}" for name, value in vars(module).items() if id(value) in real]
        for function in functions(module):
            held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            found += [f"{module.__name__}.{function.__qualname__}" for value in held if id(value) in real]
    return found
