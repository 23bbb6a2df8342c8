"""The names that the simulation replaces in modules of the product. `machine` gives the rest, also the clock.

    threading, Reply    a thread of the product is a greenlet here, and a lock that blocks would block all greenlets
    uuid, random        numbers of the seed, so that a run can be repeated
    failpoints          every failpoint of the product calls the world
    pykka's hooks       an actor's loop is a task, its mailbox is the world's

A module of the product looks such a name up when it uses it, so replacing it in the module is enough. `reality_left`
finds names that were missed. A name is replaced once for many worlds: its replacement asks for `World.present`.
"""

from __future__ import annotations

import inspect
import logging
import random as real_random
import re
import sys
import threading
import time as real_time
import types
import uuid as real_uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pykka

from shadowswitch.actors.build.builder import ShadowBuilder
from shadowswitch.actors.kit import actor as base
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.storage import failpoints
from tests.simulation.threads import VirtualThreading
from tests.simulation.waiting import VirtualInbox, VirtualPykkaFuture, VirtualReply
from tests.simulation.world import World, present

NOT_SIMULATED = frozenset(
    {
        "shadowswitch.storage.clock",
        "shadowswitch.storage.failpoints",
        "shadowswitch.actors.kit.timers",
        "shadowswitch.actors.build.worker_pool",
    }
)
"""Modules that keep real time and real threads: a simulation has another clock, other timers and other workers, and
plans no failpoint."""


READS_THE_DATE = re.compile(r"\b(?:datetime|date)\.(?:now|utcnow|today)\b")
"""Code that reads the time from `datetime` and not from a `Clock`."""


class VirtualUuid:
    """Replaces the module `uuid` in the product."""

    def uuid4(self) -> real_uuid.UUID:
        return real_uuid.UUID(int=present().next_id())


class VirtualPoints(dict[str, Any]):
    """Every failpoint of the product calls the world."""

    def __init__(self) -> None:
        super().__init__({"any": None})

    def get(self, name: str, default: Any = None) -> Any:
        present().reached(name)
        return None


class VirtualRandom:
    """Replaces the module `random` in the product."""

    def Random(self, seed: int | None = None) -> real_random.Random:
        return real_random.Random(self.getrandbits(32) if seed is None else seed)

    def getrandbits(self, bits: int) -> int:
        return present().random.getrandbits(bits)


NAMES: dict[int, Any] = {
    id(real_uuid): VirtualUuid(),
    id(real_random): VirtualRandom(),
    id(threading): VirtualThreading(),
    id(Reply): VirtualReply,
}


class Replaced:
    """Replaces attributes, and puts them back in the opposite order."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, list[Any]]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        own = [vars(owner)[name]] if name in vars(owner) else []
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
    """The loaded modules of the product that are simulated. The service is not; another test may have loaded it."""
    loaded = (name for name in sys.modules if name.startswith("shadowswitch."))
    names = sorted(n for n in loaded if n not in NOT_SIMULATED and not n.startswith("shadowswitch.service"))
    return [sys.modules[name] for name in names]


def functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """The functions and methods that a module defines."""
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
        yield from (m for m in members if isinstance(m, types.FunctionType) and m.__module__ == module.__name__)


def _replace(replaced: Replaced) -> None:
    for module in modules():
        for name, value in list(vars(module).items()):
            if id(value) in NAMES:
                replaced.put(module, name, NAMES[id(value)])
    replaced.put(base.EngineActor, "_start_actor_loop", _start_actor_loop)
    for kind in (base.EngineActor, ShadowBuilder):
        replaced.put(kind, "_create_actor_inbox", staticmethod(VirtualInbox))
    replaced.put(base.EngineActor, "_create_future", staticmethod(VirtualPykkaFuture))
    replaced.put(failpoints, "_plans", VirtualPoints())
    replaced.put(logging.getLogger("shadowswitch"), "disabled", True)


def _start_actor_loop(actor: Any) -> None:
    present().actors.append(actor.actor_ref)
    present().spawn(actor.name, actor._actor_loop)


@contextmanager
def virtual_reality() -> Iterator[None]:
    """In the `with` block the product runs in `World.present`."""
    replaced = Replaced()
    _replace(replaced)
    try:
        yield
    finally:
        replaced.put_back()


@contextmanager
def inside(world: World) -> Iterator[None]:
    """In the `with` block this world is the present one; at its end the world is removed."""
    World.present = world
    try:
        yield
    finally:
        world.bury()
        World.present = None
        for ref in world.actors:
            pykka.ActorRegistry.unregister(ref)


def reality_left() -> list[str]:
    """Real clocks and ids that the product still has, by name; to call inside `virtual_reality`."""
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
        found += [f"{module.__name__}: {call}" for call in READS_THE_DATE.findall(inspect.getsource(module))]
        for function in functions(module):
            held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            found += [f"{module.__name__}.{function.__qualname__}" for value in held if id(value) in real]
    return found
