"""Large batches: each is a group of its own, small batches of other branches go before it, and nothing else moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from shadowswitch import Delete, Engine, Put, Receipt
from tests.support import inside
from tests.support.engine_helpers import wait_until

WAIT_S = 60.0
LARGE = [Put("t", f"large {n}", {"text": "x" * 50_000}) for n in range(100)]
MANY = [Put("t", str(n), {}) for n in range(5_000)]
SMALL = [Put("t", "small", {"n": 1})]


class Line:
    """Calls that wait for the JournalWriter in the order in which they were added."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.receipts: dict[str, Receipt] = {}
        self.answered: list[str] = []
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()

    def write(self, name: str, branch: str, changes: Sequence[Put | Delete]) -> None:
        def call() -> None:
            receipt = self.engine.write(branch, list(changes), timeout_s=WAIT_S)
            with self._guard:
                self.receipts[name] = receipt
                self.answered.append(name)

        self.add(call)

    def add(self, call: Callable[[], object]) -> None:
        waiting = inside.journal_backlog(self.engine)
        self._threads.append(threading.Thread(target=call))
        self._threads[-1].start()
        wait_until(lambda: inside.journal_backlog(self.engine) > waiting, what="the call waits for the JournalWriter")

    def order(self) -> list[str]:
        """The names of the writes in the order of their LSNs, once all are answered."""
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        return sorted(self.receipts, key=lambda name: self.receipts[name].lsn)


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    engine = open_engine(queue_changes_max=100_000, janitor_interval_s=3600.0)
    for name in "abc":
        engine.create_branch(name)
    return engine


@contextmanager
def held(engine: Engine) -> Iterator[Line]:
    """The JournalWriter takes its messages at the end of the block."""
    busy, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        go_on.wait(WAIT_S)

    inside.hold_journal_writer(engine, hold)
    assert busy.wait(WAIT_S)
    try:
        yield Line(engine)
    finally:
        go_on.set()


@pytest.mark.parametrize("large", [LARGE, MANY], ids=["many bytes", "many changes"])
def test_a_small_batch_waits_for_one_large_batch_at_most(engine: Engine, large: list[Put]) -> None:
    with held(engine) as line:
        line.write("large a", "a", large)
        line.write("large b", "b", large)
        line.write("small", "c", SMALL)
    assert line.order() == ["small", "large a", "large b"]


def test_small_batches_before_a_large_one_are_answered_before_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[list[str]] = []
    line: Line

    def write(ordinary: Any, commit: Any, branch: int, batch: Any) -> Any:
        if len(batch) == len(LARGE):
            wait_until(lambda: "small" in line.answered, what="the answer to the small batch")
            during.append(list(line.answered))
        return ordinary(commit, branch, batch)

    inside.wrap(monkeypatch, inside.Step.TRANSACTION_WRITE, write)
    with held(engine) as line:
        line.write("small", "c", SMALL)
        line.write("large", "a", LARGE)
    assert line.order() == ["small", "large"]
    assert during == [["small"]]


def test_the_writes_of_a_branch_keep_their_order(engine: Engine) -> None:
    with held(engine) as line:
        line.write("a1", "a", LARGE)
        line.write("a2", "a", SMALL)
        line.write("b1", "b", LARGE)
        line.write("a3", "a", LARGE)
        line.write("b2", "b", [Delete("t", "large 0")])
        line.write("a4", "a", [Delete("t", "small")])
        line.write("c1", "c", SMALL)
    order = line.order()
    assert order[0] == "c1"
    for branch, count in (("a", 4), ("b", 2)):
        assert [name for name in order if name[0] == branch] == [f"{branch}{n}" for n in range(1, count + 1)]
    assert (engine.get("a", "t", "small"), engine.get("b", "t", "large 0")) == (None, None)


def test_metadata_stands_behind_all_that_was_sent_before(engine: Engine) -> None:
    seen: list[int] = []
    with held(engine) as line:
        line.write("large", "a", LARGE)
        line.write("larger", "b", LARGE)
        line.add(lambda: inside.transact(engine, lambda commit: seen.append(commit.last_lsn)))
    assert line.order() == ["large", "larger"]
    assert seen == [2 * len(LARGE)]


def test_a_large_batch_at_fault_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[BaseException] = []

    def write(ordinary: Any, commit: Any, branch: int, batch: Any) -> Any:
        if branch == 1:
            raise ValueError("this one")
        return ordinary(commit, branch, batch)

    inside.wrap(monkeypatch, inside.Step.TRANSACTION_WRITE, write)

    def fail() -> None:
        try:
            engine.write("a", list(LARGE), timeout_s=WAIT_S)
        except Exception as error:
            refused.append(error)

    with held(engine) as line:
        line.add(fail)
        line.write("large", "b", LARGE)
        line.write("small", "c", SMALL)
    assert line.order() == ["small", "large"]
    assert len(refused) == 1
    assert "groups_split" not in engine.stats()["counters"]
