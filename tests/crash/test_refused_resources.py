"""A resource is refused once, at each place where it is asked for: nothing is lost, nothing is called damaged, nothing
stays half claimed, and the next try succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from shadowswitch import Config, Delete, Engine, Put, Receipt, ResourceExhausted, SwitchResult
from tests.conftest import FAST, running
from tests.support import inside
from tests.support.engine_helpers import TYPES, wait_until
from tests.support.refusing import PLACES, Refusal, refuse

T = TypeVar("T")
BACKENDS = {"fts5": "SEARCH_INDEX", "kv": "GRAPH_INDEX"}
RECORDS = 40
TRIES = 4
"""One refusal costs one try; the follower and a build may meet the same one."""
SOME = (1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 33, 41, 50)
"""The places of the fast test; a kind with fewer places ends before."""
PARTS = 8
WAIT_S = 60.0
SETTINGS: dict[str, Any] = FAST
CONFIG = Config(**SETTINGS)

pytestmark = pytest.mark.slow


class Life:
    """A scenario whose steps are taken again when a resource cannot be had; it notes what was acknowledged."""

    def __init__(self, data: Path, index: str) -> None:
        self.data = data
        self.index = index
        self.texts: dict[str, str] = {}
        self.refusals: list[str] = []
        self.lsn = 0

    def again(self, step: Callable[[], T]) -> T:
        """Take a step, again while it lacks a resource."""
        for _ in range(TRIES):
            try:
                return step()
            except ResourceExhausted as error:
                self.refusals.append(f"{error.resource or 'NO LIMIT'}: {error}")
        raise AssertionError(f"the next try did not succeed: {self.refusals}")

    def write(self, engine: Engine, text: str) -> None:
        """Write all records anew."""
        batch = [Put("object_type", str(n), {"text": text}) for n in range(RECORDS)]
        receipt: Receipt = self.again(lambda: engine.write("main", batch))
        self.texts |= {str(n): text for n in range(RECORDS)}
        self.lsn = receipt.lsn

    def switch(self, engine: Engine) -> None:
        """Build and switch; a switch that lacked a resource has changed nothing, and is tried again."""
        shadow = self.again(lambda: engine.start_build("main", self.index, TYPES, {"parallel_workers": 1}))
        self.again(lambda: engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=WAIT_S))
        self.done(lambda: engine.switch(shadow.shadow_index_id))

    def done(self, call: Callable[[], SwitchResult]) -> None:
        """A switch or rollback, again while it says that a resource cannot be had."""
        for _ in range(TRIES):
            result = self.again(call)
            assert not result.rolled_back, f"a lack of resources was taken for damage: {result.message}"
            if result.success:
                return
            assert "a resource cannot be had" in result.message, result.message
            self.refusals.append(result.message)
        raise AssertionError(f"the next switch did not succeed: {self.refusals}")

    def read(self, engine: Engine) -> None:
        """The live index shows everything that was acknowledged."""

        def count() -> int:
            with engine.reader("main", self.index, min_lsn=self.lsn, timeout_s=WAIT_S) as reader:
                held = {id: reader.get("object_type", id) for id in self.texts}
                assert {id: held[id].fields["text"] for id in held if held[id]} == self.texts  # type: ignore[union-attr]
                return reader.count()

        assert self.again(count) == len(self.texts)

    def run(self) -> None:
        """Open, write, build, switch, write, build, switch, roll back, publish, clean up, close, open again."""
        engine = self.again(lambda: Engine.open(self.data, CONFIG))
        try:
            self.again(lambda: engine.create_branch("main") if not engine.branches() else None)
            self.write(engine, "one")
            self.switch(engine)
            self.write(engine, "two")
            self.read(engine)
            self.switch(engine)
            self.again(lambda: engine.write("main", [Delete("object_type", "0")]))
            del self.texts["0"]
            self.done(lambda: engine.rollback("main", self.index))
            self.write(engine, "three")
            self.read(engine)
            self.again(lambda: engine.clean_up(WAIT_S))
            assert self.again(engine.check) == []
        finally:
            engine.close()
        engine = self.again(lambda: Engine.open(self.data, CONFIG))
        engine.close()

    def look(self) -> None:
        """Without any refusal: what was acknowledged is there, nothing is unsound, a new build works."""
        with Engine.open(self.data, CONFIG) as engine:
            self.read(engine)
            assert engine.check() == []
            unsound = [event for event in engine.audit() if event.type in ("generation.condemned", "recovery.broken")]
            assert not unsound, unsound
            assert not [shadow for shadow in engine.shadows("main") if shadow.state == "FAILED"]
            assert not inside.crash_notes(engine)
            self.switch(engine)
            assert engine.stats()["pins"] == 0


def held(data: Path) -> list[str]:
    """What this process holds of a data directory: descriptors."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return [path for path in found if path.startswith(str(data))]


def refuse_nth(kind: str, nth: int, data: Path, index: str) -> Refusal:
    """Live once with the nth request refused."""
    before = set(running())
    life = Life(data, index)
    try:
        with pytest.MonkeyPatch.context() as patch:
            refusal = refuse(patch, kind, nth)
            life.run()
        assert held(data) == [], "a descriptor is left"
        wait_until(lambda: before.issuperset(running()), WAIT_S, f"the end of {running()}")
        life.look()
    except BaseException as problem:
        raise AssertionError(f"{kind} {nth}, refused in {refusal.where}: {problem!r}") from problem
    assert not [text for text in life.refusals if text.startswith("NO LIMIT")], life.refusals
    return refusal


def refuse_all(kind: str, backend: str, places: Iterator[int], folder: Path) -> None:
    refused = 0
    for nth in places:
        refusal = refuse_nth(kind, nth, folder / f"{nth}", BACKENDS[backend])
        if not refusal.where:
            break
        refused += 1
        print(f"{kind} {nth}: {refusal.where}")
    assert refused, f"no {kind} was ever asked for"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "backend"), list(zip(PLACES, ("fts5", "kv", "kv", "fts5"), strict=True)))
def test_a_resource_that_is_refused_once_costs_nothing_but_a_try(tmp_path: Path, kind: str, backend: str) -> None:
    refuse_all(kind, backend, iter(SOME[:6]), tmp_path)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", PLACES)
def test_a_resource_that_is_refused_at_any_place(tmp_path: Path, kind: str, backend: str, part: int) -> None:
    if part and kind in ("process", "memory"):
        pytest.skip("one part has all places of this kind")
    places = range(1, 1000) if kind in ("process", "memory") else range(part + 1, 1000, PARTS)
    refuse_all(kind, backend, iter(places), tmp_path)
