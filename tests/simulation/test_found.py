"""Defects that the simulation found, each in a world of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import ENOSPC

import pytest

from shadowswitch import EngineClosed, InvalidTransition, LockConflict, LockSpec, StorageFull, Timeout
from shadowswitch.actors.journal_writer import Transact
from shadowswitch.model.records import Put
from tests.simulation import runs, seams
from tests.simulation.host import Host, Store
from tests.simulation.waiting import VirtualReply
from tests.simulation.world import World
from tests.support import inside


@pytest.fixture
def store() -> Iterator[Store]:
    with runs.simulating() as store:
        yield store


class Disk:
    """A disk that is full when a test says so. At the other failpoints it lets other tasks run first."""

    def __init__(self, world: World) -> None:
        self.full = False
        self.stalls_s = self.slow_builder_s = 0.0
        self.shard_full = False
        self.failures = 0
        self._world = world

    def reached(self, name: str) -> None:
        if name == "journal.before_commit" and self.full:
            self.failures += 1
            raise OSError(ENOSPC, "injected")
        if name == "journal.before_commit" and self.stalls_s:
            self._world.sleep(self.stalls_s)
        if name == "follow.shard_applied" and self.shard_full:
            raise StorageFull("injected", operation="apply")
        if name == "build.built":
            self._world.sleep(self.slow_builder_s)
        if name == "copy.slice":
            self._world.sleep(0.1)


def live(
    store: Store, work: Callable[[Host, Disk, World], object], until: float, **settings: float
) -> tuple[Disk, World]:
    """Run `work` with an engine until a virtual time; raises the error of `work`."""
    world = World(0)
    disk, hosts = Disk(world), list[Host]()
    done: list[object] = []

    def run() -> None:
        hosts.append(Host(store, **settings))
        try:
            done.append(work(hosts[0], disk, world))
        except BaseException as error:
            done.append(error)

    with seams.inside(world):
        world.watcher, world.reached = runs.Unwatched(), disk.reached
        store.reset()
        world.spawn("work", run)
        world.run(lambda: world.now > 1000.0 + until, lambda: None)
        hosts[0].gone()
        if done and isinstance(done[0], BaseException):
            raise done[0]
        return disk, world


QUIET = {"branch_idle_s": 1000.0, "janitor_interval_s": 1000.0, "refresh_interval_ms": 1e9}


def alarms(world: World) -> int:
    return sum(bool(entry) for _, _, entry in world._timers)


def test_the_number_of_timers_of_locks_does_not_grow(store: Store) -> None:
    def work(host: Host, _: Disk, world: World) -> None:
        host.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "2", ttl_s=3600.0)
        for _number in range(100):
            host.acquire_lock("main", "MANUAL", "bob", "RESOURCE", "link_type", "1", ttl_s=0.01)
            world.sleep(0.5)

    assert alarms(live(store, work, 60.0, **QUIET)[1]) <= 7


def test_a_waiter_that_gives_up_names_no_holder_whose_grant_is_not_stored(store: Store) -> None:
    """Its deadline lets dave in; the commit of that lasts until alice's lock is over, behind which bob waits."""
    named: list[tuple[str, str]] = []

    def work(host: Host, disk: Disk, world: World) -> None:
        def wait(owner: str, wait_s: float, *wanted: LockSpec) -> None:
            world.spawn(owner, lambda: host.acquire_locks("main", wanted, owner, wait_s))
            world.sleep(0.1)

        def line() -> None:
            world.sleep(0.1)
            wait("bob", 60.0, all_of)
            wait("dave", 60.0, other)
            world.sleep(2.0)
            disk.stalls_s = 10.0

        one, all_of = LockSpec("MANUAL", "RESOURCE", "a", "1"), LockSpec("INDEXING", "RESOURCE_TYPE", "a")
        other = LockSpec("MANUAL", "RESOURCE", "b", "2")
        host.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "a", "1", ttl_s=5.0)
        world.spawn("line", line)
        with pytest.raises(LockConflict) as refused:
            host.acquire_locks("main", [one, other], "carol", 3.0)
        disk.stalls_s = 0.0
        named.append((refused.value.blocked.cause, refused.value.blocked.holder))

    live(store, work, 100.0, **QUIET)
    assert named == [("LOCK", "alice")]


def test_while_the_disk_is_full_the_expiry_of_a_lock_is_retried_at_intervals(store: Store) -> None:
    def work(host: Host, disk: Disk, _: World) -> None:
        host.acquire_lock("main", "MANUAL", "alice", ttl_s=5.0)
        disk.full = True

    disk, world = live(store, work, 100.0, **QUIET)
    assert alarms(world) <= 7
    assert 50 <= disk.failures <= 250


def test_a_build_whose_cancellation_could_not_be_recorded_goes_on(store: Store) -> None:
    built: list[str] = []

    def work(host: Host, disk: Disk, world: World) -> None:
        host.write("main", [Put("object_type", "1", {"text": "one"})])
        shadow = host.start_build("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1}).shadow_index_id
        host.wait_for(shadow, "BUILDING", timeout_s=60)
        disk.full = True
        with pytest.raises(StorageFull):
            host.cancel_build(shadow)
        disk.full = False
        built.append(host.wait_for(shadow, "BUILT", timeout_s=60).state)

    live(store, work, 100.0)
    assert built == ["BUILT"]


def test_a_late_cancellation_of_a_built_shadow_does_not_close_the_live_generation(store: Store) -> None:
    outcomes: list[object] = []

    def work(host: Host, disk: Disk, world: World) -> None:
        disk.slow_builder_s = 5.0
        host.write("main", [Put("object_type", "1", {"text": "one"})])
        shadow = host.start_build("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1}).shadow_index_id
        host.wait_for(shadow, "BUILT", timeout_s=60)

        def cancel() -> None:
            with pytest.raises(InvalidTransition):
                host.cancel_build(shadow)
            outcomes.append("refused")

        world.spawn("cancel", cancel)
        outcomes.append(host.switch(shadow).success)
        world.sleep(60.0)
        with host.reader("main", "SEARCH_INDEX") as reader:
            outcomes.append(reader.count())

    live(store, work, 200.0, **QUIET)
    assert outcomes == [True, "refused", 1]


def test_a_reader_that_waits_while_the_engine_closes_gets_engine_closed(store: Store) -> None:
    outcomes: list[str] = []

    def work(host: Host, disk: Disk, world: World) -> None:
        host.write("main", [Put("object_type", "1", {"text": "one"})])
        shadow = host.start_build("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1}).shadow_index_id
        host.wait_for(shadow, "BUILT", timeout_s=60)
        host.switch(shadow)
        disk.shard_full = True
        lsn = host.write("main", [Put("object_type", "2", {"text": "two"})]).lsn

        def read() -> None:
            with pytest.raises(EngineClosed):
                host.reader("main", "SEARCH_INDEX", min_lsn=lsn, timeout_s=100)
            outcomes.append("closed")

        world.spawn("read", read)
        world.sleep(2.0)
        host.close()

    live(store, work, 60.0, **QUIET)
    assert outcomes == ["closed"]


def test_a_build_whose_claim_got_no_answer_and_is_durable_goes_on(store: Store) -> None:
    built: list[str] = []

    def work(host: Host, disk: Disk, world: World) -> None:
        disk.stalls_s = 100.0
        with pytest.raises(Timeout, match="whether it took effect is not known"):
            host.start_build("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1})
        disk.stalls_s = 0.0
        world.sleep(60.0)
        (shadow,) = host.shadows("main")
        built.append(host.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=200).state)

    live(store, work, 250.0, **QUIET)
    assert built == ["BUILT"]


def test_operations_gathered_when_the_journal_writer_is_stopped_are_committed(store: Store) -> None:
    answers: list[str] = []

    def work(host: Host, _: Disk, world: World) -> None:
        gathered = Transact(lambda commit: "committed", VirtualReply())
        inside.tell_journal_writer(host, gathered)
        inside.stop_journal_writer(host, 5.0)
        answers.append(gathered.reply.result(1.0))

    live(store, work, 100.0, **QUIET)
    assert answers == ["committed"]


def test_a_read_of_the_catalog_while_the_engine_closes_raises_engine_closed(store: Store) -> None:
    errors: list[str] = []

    def work(host: Host, _: Disk, world: World) -> None:
        catalog = inside.catalog(host)
        host.close()
        with pytest.raises(EngineClosed):
            catalog.branches()
        errors.append("closed")

    live(store, work, 100.0, **QUIET)
    assert errors == ["closed"]
