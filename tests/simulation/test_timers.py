"""The timers of a branch's locks do not multiply, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOSPC

import pytest

from tests.simulation import runs, seams
from tests.simulation.host import Host, Store
from tests.simulation.world import World


@pytest.fixture
def store() -> Iterator[Store]:
    with runs.simulating() as store:
        yield store


def alarms_after(store: Store, *, full: bool) -> tuple[int, int]:
    """After a hundred locks, or a hundred seconds of a full disk: timers that wait, transactions that failed."""
    world = World(0)
    locked: list[object] = []
    hosts: list[Host] = []
    failures = 0

    def reached(name: str) -> None:
        nonlocal failures
        if full and locked and name == "journal.before_commit":
            failures += 1
            raise OSError(ENOSPC, "injected")

    def work() -> None:
        host = Host(store, branch_idle_s=1000.0, janitor_interval_s=1000.0, refresh_interval_ms=1e9)
        hosts.append(host)
        host.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "1", ttl_s=5.0)
        locked.append(host.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "2", ttl_s=3600.0))
        for _ in range(0 if full else 100):
            host.acquire_lock("main", "MANUAL", "bob", "RESOURCE", "link_type", "1", ttl_s=0.01)
            world.sleep(0.5)

    with seams.inside(world):
        world.watcher = runs.Unwatched()
        store.reset()
        world.period_s = 1000.0
        world.reached = reached
        world.spawn("work", work)
        world.run(lambda: world.now > 1100.0, lambda: None)
        hosts[0].gone()
        return sum(bool(entry) for _, _, entry in world._timers), failures


def test_the_timers_of_locks_do_not_become_more_and_more(store: Store) -> None:
    alarms, failures = alarms_after(store, full=False)
    assert (alarms <= 7, failures) == (True, 0)


def test_while_the_disk_is_full_an_expired_lock_is_tried_again_once_in_a_while(store: Store) -> None:
    alarms, failures = alarms_after(store, full=True)
    assert alarms <= 7
    assert 50 <= failures <= 250
