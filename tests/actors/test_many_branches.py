"""Branches whose actors stop and start: nothing is lost, no branch delays another, and no round walks all branches."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, InvalidConfig, LockConflict, Timeout, WriteBlocked
from shadowswitch.engine.admission import AdmissionQueue
from shadowswitch.model.locks.records import LockTableState
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import SYSTEM
from tests.support import inside
from tests.support.engine_helpers import fill, live, wait_until
from tests.support.engine_lock_helpers import Eventually, OpenEngine, put


class Starts:
    """Counts how often actors start, and notes when a branch has two at work at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.twice: list[int] = []
        self._at_work: dict[int, int] = {}
        self._lock = threading.Lock()
        inside.before(monkeypatch, inside.Step.BRANCH_START, self._started)
        inside.on_branch_message(monkeypatch, self._at_work_on)

    def _started(self) -> None:
        self.count += 1

    @contextmanager
    def _at_work_on(self, number: int) -> Iterator[None]:
        with self._lock:
            self._at_work[number] = self._at_work.get(number, 0) + 1
            if self._at_work[number] > 1:
                self.twice.append(number)
        try:
            yield
        finally:
            with self._lock:
                self._at_work[number] -= 1


@pytest.mark.parametrize(
    "settings",
    [{"branch_idle_s": 0.0005, "janitor_interval_s": 0.001}, {"branch_actors_max": 2}],
    ids=["asleep as soon as idle", "two threads for all"],
)
def test_nothing_is_lost_while_actors_stop_and_start_again(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    starts = Starts(monkeypatch)
    engine = open_engine(**settings)
    names = [f"b{n}" for n in range(30)]
    for name in names:
        engine.create_branch(name)
    holders: dict[str, str] = {}
    written: dict[str, set[str]] = {name: set() for name in names}

    def work(worker: int) -> None:
        chance, owner = random.Random(worker), f"worker {worker}"
        for turn in range(25):
            name = chance.choice(names)
            lock = engine.acquire_lock(name, "MANUAL", owner, wait_s=100, heartbeat_s=30)
            assert holders.setdefault(name, owner) == owner, "LK-1"
            engine.heartbeat(lock.lock_id, lock.token, turn)
            engine.write(name, [put(f"{worker}-{turn}")], owner=owner, tokens=[lock.token], timeout_s=60)
            written[name].add(f"{worker}-{turn}")
            assert engine.confirm_lock(lock.lock_id, lock.token).progress_percent == turn
            del holders[name]
            engine.release_lock(lock.lock_id, lock.token)
            threading.Event().wait(chance.random() * 0.002)

    with ThreadPoolExecutor(12) as pool:
        for task in [pool.submit(work, worker) for worker in range(12)]:
            task.result(120)
    assert (engine.locks(), engine.lock_waiters(), starts.twice) == ([], [], [])
    assert starts.count > 50, "the actors hardly ever stopped"
    for name in names:
        assert {record.id for record in engine.scan(name)} == written[name]
        assert engine.acquire_lock(name, "MANUAL", "last").token == len(written[name]) + 1, "LK-2"


def test_a_message_that_meets_an_actor_that_stops_is_served_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop of the old actor is unhandled in its mailbox while the next actor works."""
    held, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        held.set()
        assert go_on.wait(60)

    lock = engine.acquire_lock("main", "MANUAL", "alice", heartbeat_s=1000)
    engine.heartbeat(lock.lock_id, lock.token, 33)
    inside.before(monkeypatch, inside.Step.BRANCH_STOP, stop)
    try:
        wait_until(lambda: inside.stop_idle_branches(engine) == 1)
        assert held.wait(60)
        assert engine.confirm_lock(lock.lock_id, lock.token).progress_percent == 33
        engine.write("main", [put("a")], owner="alice", tokens=[lock.token])
        with pytest.raises(LockConflict):
            engine.acquire_lock("main", "MANUAL", "bob")
    finally:
        go_on.set()
    engine.release_lock(lock.lock_id, lock.token)


def test_a_hundred_branches_with_locks_need_only_the_threads_that_are_allowed(open_engine: OpenEngine) -> None:
    engine = open_engine(branch_actors_max=4)
    for n in range(100):
        engine.create_branch(f"b{n}")
        engine.acquire_lock(f"b{n}", "MANUAL", "alice", "RESOURCE", "object_type", "a", ttl_s=100)
        engine.write(f"b{n}", [put("b")])
    assert engine.stats()["branch_actors"] <= 4
    assert len(engine.locks()) == 100


def test_writes_and_checks_beyond_the_allowed_actors_start_no_thread(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch)
    engine = open_engine(branch_actors_max=2)
    for n in range(40):
        engine.create_branch(f"b{n}")
    for turn in range(3):
        for n in range(40):
            engine.write(f"b{n}", [put(f"{turn}")])
            assert engine.check_write(f"b{n}", "update", "object_type", "a").allowed
    assert starts.count == 2
    assert [engine.count(f"b{n}") for n in range(40)] == [3] * 40
    with pytest.raises(InvalidConfig, match="unknown action"):
        engine.check_write("b39", "polish", "object_type")
    engine.archive_branch("b38", by="alice")
    engine.acquire_lock("b37", "MANUAL", "alice", reason="mine")
    for n in range(10):  # the actors of b37 and b38 stop
        engine.acquire_lock(f"b{n}", "MANUAL", "alice")
    for name in ("b37", "b38"):
        assert not engine.check_write(name, "update", "object_type", "a").allowed
        with pytest.raises(WriteBlocked):
            engine.write(name, [put("late")])


def test_a_write_beyond_the_allowed_actors_stands_in_the_line_of_its_branch(open_engine: OpenEngine) -> None:
    """While a branch is locked as a whole, its head does not move: no write was admitted before and comes later."""
    engine = open_engine(branch_actors_max=1)
    names = [f"b{n}" for n in range(3)]
    for name in names:
        engine.create_branch(name)
    over = threading.Event()
    written = dict.fromkeys(range(4), 0)

    def write(own: int) -> None:
        chance = random.Random(own)
        while not over.is_set():
            try:
                engine.write(chance.choice(names), [put(f"{own}-{written[own]}")], timeout_s=60)
                written[own] += 1
            except WriteBlocked:
                threading.Event().wait(0.001)

    def lock(own: int) -> None:
        chance = random.Random(own)
        for _ in range(40):
            name = chance.choice(names)
            held = engine.acquire_lock(name, "MANUAL", f"holder {own}", wait_s=60, heartbeat_s=60)
            head = engine.head(name)
            threading.Event().wait(chance.random() * 0.004)
            assert engine.head(name) == head
            engine.release_lock(held.lock_id, held.token)

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, own) for own in range(4)]
        try:
            for holder in [pool.submit(lock, 10 + own) for own in range(2)]:
                holder.result(120)
        finally:
            over.set()
        for writer in writers:
            writer.result(60)
    assert sum(engine.count(name) for name in names) == sum(written.values()) > 0


def test_locks_of_many_branches_that_expire_at_one_moment_are_swept_with_few_threads(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(branch_actors_max=8)
    for n in range(150):
        engine.create_branch(f"b{n}")
        engine.acquire_lock(f"b{n}", "MANUAL", "alice", heartbeat_s=100)
    engine.close()
    most = 0

    def start() -> None:
        nonlocal most
        most = max(most, sum(t.name.startswith("shadowswitch-branch-") for t in threading.enumerate()))

    inside.before(monkeypatch, inside.Step.BRANCH_START, start)
    inside.wrap(monkeypatch, inside.Step.LOAD_LOCKS, _expiring)
    engine = open_engine(branch_actors_max=8)
    expired = "com.shadowswitch.lock.expired"
    wait_until(lambda: sum(event.type == expired for event in engine.events(limit=10_000)) == 150, 60)
    assert engine.locks() == []
    assert 0 < most <= 75, "on a loaded machine stopping actors may not have ended yet"


def _expiring(load: Any, state: LockTableState, now: float, grace_s: float, **more: Any) -> LockTable:
    """Load the locks so that each of them expires at once."""
    gone = [msgspec.structs.replace(lock, expires_at=now + 0.2) for lock in state.locks]
    table: LockTable = load(msgspec.structs.replace(state, locks=tuple(gone)), now, grace_s, **more)
    return table


# -- one branch and the others -------------------------------------------------------------------------------------


def test_a_branch_that_stands_still_does_not_take_the_room_of_the_others(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(queue_changes_max=10)
    for name in ("stuck", "other"):
        engine.create_branch(name)
    go_on = threading.Event()

    def write(branch: str) -> None:
        assert branch != "stuck" or go_on.wait(120)

    inside.before_branch_write(monkeypatch, write)
    with ThreadPoolExecutor(5) as pool:
        tasks = [pool.submit(engine.write, "stuck", [put(str(n))], "", 120) for n in range(4)]
        wait_until(lambda: engine.stats()["queued_changes"] >= 4)
        tasks.append(pool.submit(engine.write, "stuck", [put(f"m{n}") for n in range(4)], "", 120))
        try:
            engine.write("other", [put(str(n)) for n in range(5)], timeout_s=60)
            assert engine.check_write("other", "update", "object_type").allowed
            assert not any(task.done() for task in tasks), "no write of the stuck branch ended, so it stood still"
        finally:
            go_on.set()
        for task in tasks:
            task.result(120)


def test_a_writer_that_waits_for_the_share_of_its_branch_is_passed_and_not_starved() -> None:
    room, served = AdmissionQueue(SYSTEM), []
    room.take(1, 5, 10, 0)

    def wait() -> None:
        room.take(1, 3, 10, 1e9)
        served.append(1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: len(room._line) == 1)
    for _ in range(3):
        room.take(2, 5, 10, 0)
        room.give(2, 5)
    with pytest.raises(Timeout):
        room.take(1, 1, 10, 0)
    assert served == []
    room.give(1, 5)
    waiting.join(60)
    assert (served, room.queued) == ([1], 3)


def test_a_broken_branch_is_not_in_the_way_of_another(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.create_branch("broken")

    def write(branch: str) -> None:
        if branch == "broken":
            raise RuntimeError("on purpose")

    inside.before_branch_write(monkeypatch, write)
    for n in range(20):
        with pytest.raises(Exception, match="on purpose"):
            engine.write("broken", [put("a")])
        engine.write("main", [put(str(n))])
    assert engine.count("main") == 20


# -- the janitor ---------------------------------------------------------------------------------------------------


def test_a_round_of_the_janitor_looks_only_at_branches_that_are_due(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    engine = open_engine(journal_keep_changes=50, recheck_interval_s=0)  # without the Scrubber, which walks
    for n in range(50):
        engine.create_branch(f"b{n}")
        engine.write(f"b{n}", [put("a")])
    engine.clean_up()

    def walk(*_: Any) -> Any:
        raise AssertionError("a walk over everything")

    read: list[int] = []
    for step in (inside.Step.LIST_BRANCHES, inside.Step.LIST_GENERATIONS, inside.Step.LIST_SHADOWS):
        inside.replace(monkeypatch, step, walk)

    def noted(ordinary: Any, catalog: Catalog, branch: int) -> Any:
        read.append(branch)
        return ordinary(catalog, branch)

    inside.wrap(monkeypatch, inside.Step.STORED_HEAD, noted)
    for start in range(0, 1000, 100):
        engine.write("b7", [put(str(n)) for n in range(start, start + 100)])
    engine.clean_up()
    assert set(read) == {8}, "the janitor read only the branch with new writes"
    monkeypatch.undo()
    assert engine.branch("b7").oldest_lsn > 100
    assert engine.branch("b6").oldest_lsn == 1
    assert engine.stats()["counters"].get("cleanup_errors", 0) == 0
    assert engine.stats()["crashes"] == []


def test_what_cannot_be_removed_is_in_the_log_once_until_the_reason_changes(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(janitor_interval_s=3600.0, soak_s=0.0)
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    failpoints.plan_points("retire.removed=raise:EIO")
    live(engine)
    for _ in range(4):
        engine.clean_up()
    said = [entry.getMessage() for entry in caplog.records if "clean-up did not finish" in entry.getMessage()]
    assert len(said) == 1, said
    assert engine.stats()["counters"]["cleanup_errors"] >= 4
    failpoints.plan_points("retire.removed=raise:EACCES")
    engine.clean_up()
    said = [entry.getMessage() for entry in caplog.records if "clean-up did not finish" in entry.getMessage()]
    assert len(said) == 2, said
    failpoints.plan_points("")
    engine.clean_up()
    assert engine.stats()["counters"]["generations_removed"] == 1
