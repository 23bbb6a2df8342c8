"""One seed from beginning to end: its clients, its faults, and the invariants at the end."""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

from shadowswitch.model.errors import StorageFull, Timeout
from shadowswitch.storage.catalog import locks as lock_rows
from tests.simulation import host as hosts
from tests.simulation import seams
from tests.simulation.clients import Client
from tests.simulation.host import Host, Store
from tests.simulation.oracle import Oracle
from tests.simulation.rebuilders import Rebuilder
from tests.simulation.switches import Switches
from tests.simulation.world import Violation, World
from tests.support import inside

SETTLED_S = 40.0
"""After this time all locks and waits of the clients have ended."""

AT_WORK = ("PREPARING", "BUILDING", "SWITCHING")
"""States of a shadow on which an actor is at work."""
WORKING = ("build.shard_opened", "copy.slice", "copy.loaded", "catchup.slice")
"""Failpoints in the work of a worker process."""


class Faults:
    """The faults of a seed, and their frequency. Most seeds have few: with all of them little else would happen."""

    def __init__(self, world: World) -> None:
        random = world.random
        self.full = random.choice((0, 0, 0, 0.05, 0.3))
        self.broken = random.choice((0, 0, 0, 0, 0.03))
        self.killed_before = random.choice((0, 0, 0.02))
        self.killed_after = random.choice((0, 0, 0.02))
        self.killed = random.choice((0, 0, 0, 0.002))
        self.closed = random.choice((0, 0, 0, 0.002))
        self.delayed = random.choice((0, 0.2, 0.6))
        self.worker_dies = random.choice((0, 0, 0.1))
        world.period_s = random.choice((3.0, 4.0))  # within the time after which the host takes itself for paused
        world.dawdling = random.choice((0, 0.1, 0.5))
        world.freezing = random.choice((0, 0, 0.004, 0.02))
        world.slow = frozenset(random.choice(((), (), ("shadowswitch-journal",), ("shadowswitch-branch-1",))))

    def stop(self, world: World) -> None:
        """From now on there are no faults."""
        self.full = self.broken = self.killed_before = self.killed_after = self.killed = self.delayed = 0
        self.closed = 0
        self.worker_dies = 0
        world.dawdling = world.freezing = 0.0


class Run:
    """One seed."""

    client: type[Client] = Client
    oracle_of: type[Oracle] = Oracle
    refresh_interval_ms = 1e9
    operations = 24
    branches: tuple[tuple[str, ...], ...] = (hosts.BRANCHES[:1], hosts.BRANCHES[:1], hosts.BRANCHES)
    again = ""

    def __init__(self, seed: int, store: Store) -> None:
        self.world = World(seed)
        self.store = store
        self.oracle = self.oracle_of(self.world, {name: number for number, name in enumerate(hosts.BRANCHES, 1)})
        self.faults = Faults(self.world)
        self.counts: Counter[str] = Counter()
        random = self.world.random
        self.idle_s = random.choice((0.05, 1.0, 10.0))
        self.janitor_s = random.choice((1.0, 3.0, 10.0))
        kinds = [kind for kind in self.client.weights if kind in ("write", "acquire") or random.random() < 0.7]
        branches = random.choice(self.branches)
        names = ("alice", "bob", "carol", "dave")[: random.choice((2, 3, 4))]
        self.clients = [self.client(name, self.world, self.oracle, kinds, branches) for name in names]
        for number in range(self.operations):
            self.clients[number % len(names)].left += 1
        self.world.reached = self._reached
        self.closing = self.closed = False
        self.host: Host | None = None

    # -- the process of the engine ---------------------------------------------------------------------------------

    def _open(self) -> None:
        """A task. No transaction fails in it; but when the machine stands still, it may end in a timeout."""
        world = self.world
        try:
            host = Host(
                self.store,
                branch_idle_s=self.idle_s,
                janitor_interval_s=self.janitor_s,
                refresh_interval_ms=self.refresh_interval_ms,
            )
        except Timeout as error:
            world.note("the engine does not open: %s", error)
            world.spawn("opening", self._open)
            return
        if self.counts["restarts"]:
            self.oracle.reopened()
        world.note("the engine is open")
        self._engine(host)
        self.oracle.engine = host
        for client in self.clients:
            client.host = host
            world.spawn(client.name, client.run)

    def _engine(self, host: Host | None) -> None:
        """Set the engine that is open now."""
        self.host = host

    def _stop_faults(self) -> None:
        self.faults.stop(self.world)

    def _close(self) -> None:
        """A task: close the engine in good order. Every call that waits for an answer gets one."""
        host, world, troubles = self.host, self.world, self.world.troubles
        assert host is not None
        world.note("the engine is being closed")
        host.close()
        world.sleep(1.0)
        waiting = [str(op) for op in self.oracle.ops if not op.over and op.kind != "read"]  # a reader may stay open
        if waiting and world.troubles == troubles and not world.broken:
            self.oracle.fail("LK-6", f"the engine was closed, and not answered: {waiting}")
        self.counts["closed"] += 1
        self.closed = True

    def _die(self, why: str) -> None:
        """The process is gone. It starts again: at once or later, perhaps after a reboot of the machine."""
        world, random = self.world, self.world.random
        assert self.host is not None
        world.note("the process dies (%s)", why)
        self.counts["restarts"] += 1
        self.host.gone()
        self._engine(None)
        self.closing = self.closed = False
        world.bury()
        world.broken = False
        self.oracle.died()
        world.now += random.choice((0.0, 0.1, 3.0, 60.0))
        if random.random() < 0.3:
            self.counts["reboots"] += 1
            world.booted, world.boot = world.now - random.choice((1.0, 500.0)), f"boot-{world.next_id()}"
            world.note("the machine has booted")
        world.spawn("opening", self._open)

    def _reached(self, name: str) -> None:
        world, faults = self.world, self.faults
        world.current()
        if name == "journal.committed":
            self.oracle.committed()
        if self.host is None:
            return
        if name == "journal.committed":
            if world.chance(faults.killed_after):
                world.die()
        elif name == "journal.before_commit":
            self._disk()
        if name in WORKING and world.chance(faults.worker_dies):
            self.counts["worker deaths"] += 1
            world.workers.die(world.current())
        if world.chance(faults.delayed):
            world.pause()

    def _disk(self) -> None:
        world, faults = self.world, self.faults
        if world.chance(faults.killed_before):
            world.die()
        if world.chance(faults.full):
            self._fails(errno.ENOSPC)
        if world.chance(faults.broken):
            self._fails(errno.EIO)

    def _fails(self, code: int) -> None:
        self.world.troubles += 1
        self.world.broken |= code == errno.EIO
        self.world.note("the disk fails: %s", errno.errorcode[code])
        self.counts[errno.errorcode[code]] += 1
        raise OSError(code, "injected")

    # -- from beginning to end -------------------------------------------------------------------------------------

    def go(self) -> None:
        """Run the seed. Raises Violation."""
        with seams.inside(self.world):
            self.store.reset()
            self.world.spawn("opening", self._open)
            try:
                self._until(self._all_answered)
                self._settle()
            finally:
                if self.host is not None:
                    self.host.gone()
        self.counts["steps"] += self.world.steps
        self.counts["operations"] += len(self.oracle.ops)
        self.counts += self.oracle.counts

    def _all_answered(self) -> bool:
        return self.oracle.pending == 0 and not any(client.left > 0 for client in self.clients)

    def _until(self, is_so: Any) -> None:
        world = self.world
        while not is_so():
            if not world.run(lambda: is_so() or self._must_reopen() or self.closed, self._step):
                raise Violation("LK-6: nothing can happen any more, and calls are not answered")
            if world.crashed:
                self._die("in the middle")
            elif self.closed:
                self._die("it is closed")
            elif self._must_reopen():
                self._die("the disk failed")

    def _must_reopen(self) -> bool:
        return self.host is not None and self.host.failed and self.world.chance(0.02)

    def _step(self) -> None:
        if self.oracle.violation is not None:
            raise self.oracle.violation
        if self.host is None:
            return
        self.oracle.look(self.host)
        world = self.world
        if world.chance(self.faults.killed):
            world.crashed = True
        if not self.closing and world.chance(self.faults.closed):
            self.closing = True
            world.spawn("closing", self._close)
        if world.random.random() < 0.005:
            world.wall_offset += world.random.choice((-3600.0, 3600.0, 0.5))
        if self.host.crashes and not self.host.failed:
            raise Violation(f"failed in an unforeseen way: {self.host.crashes[0]}")

    def _settle(self) -> None:
        """The faults are over. Every lock expires, the actor of every branch stops, and every promise is kept."""
        self._stop_faults()
        if self.closing:
            self._until(lambda: not self.closing)
        if self.host is not None and self.host.failed:
            self._die("the disk failed")
        until = self.world.now + SETTLED_S + self.idle_s
        self.world.at(until, lambda: None)
        self._until(lambda: self._settled() or self.world.now >= until)
        assert self.host is not None
        self._audit(self.host)

    def _audit(self, host: Host) -> None:
        for locks in inside.branch_locks(host):
            if locks.held.table.locks or locks.held.table.waiters:
                raise Violation(f"LK-3: branch {locks.row.number} still has {locks.held.table.dump(0)}")
        if host.awake():
            raise Violation(f"{host.awake()} branches do not go to sleep")
        findings = list(lock_rows.check_locks(inside.catalog(host)))
        if findings:
            raise Violation(f"fsck: {findings}")
        self._audit_records(host)

    def _audit_records(self, host: Host) -> None:
        oracle = self.oracle
        for name, number in oracle.numbers.items():
            journal = [(change.lsn, change.fields) for change in host.changes(name)]
            written = {fields["op"] for _, fields in journal if fields}
            expected = {op.number for op in oracle.ops if op.lsns and op.branch == name}
            if written != expected or host.head(name) != oracle.branches[number].last_lsn:
                raise Violation(f"ST-5: the journal of {name} holds {sorted(written)}, expected {sorted(expected)}")

    def _checked(self, host: Host) -> list[Any]:
        """The findings of fsck."""
        found: list[Any] = []
        self.world.spawn("fsck", lambda: found.append(list(host.check())))
        self._until(lambda: bool(found))
        findings: list[Any] = found[0]
        return findings

    def _settled(self) -> bool:
        if self.host is None or self.host.awake():
            return False
        return not any(locks.held.table.locks for locks in inside.branch_locks(self.host))


class Rebuilding(Run):
    """One seed with builds and switches."""

    client = Rebuilder
    oracle_of = Switches
    refresh_interval_ms = 1000.0
    operations = 48
    branches = (hosts.BRANCHES[:1],)
    again = " ARGS=--builds"

    oracle: Switches

    def __init__(self, seed: int, store: Store) -> None:
        super().__init__(seed, store)
        random = self.world.random
        self.unanswered = random.choice((0, 0, 0, 0.1))
        """The chance that the disk fails between the commit of a switch and its answer."""
        self.unverified = random.choice((0, 0, 0, 0.2))
        """The chance that the first read from the new live generation fails."""
        self.lossy = random.choice((0, 0, 0.3))
        """The chance that a shadow loses a record between its validation and its switch."""
        self.unapplied = random.choice((0, 0, 0, 0.02, 0.2))
        """The chance that the disk of a shard is full when changes are applied to it."""
        self._damaged: set[int] = set()

    def _engine(self, host: Host | None) -> None:
        super()._engine(host)
        self.oracle.engine = host

    def _reached(self, name: str) -> None:
        super()._reached(name)
        if self.host is None:
            return
        if name == "switch.near" and self.world.chance(self.lossy):
            self._lose_a_record(self.host)
        elif name == "follow.shard_applied" and self.world.chance(self.unapplied):
            self.world.troubles += 1
            self.world.note("the disk of a shard is full")
            raise StorageFull("injected", operation="apply")
        elif name == "switch.committed" and self.world.chance(self.unanswered):
            self._fails(errno.EIO)
        elif name == "switch.verify" and self.world.chance(self.unverified):
            self.world.note("the first read fails")
            raise OSError(errno.EIO, "injected")

    def _lose_a_record(self, host: Host) -> None:
        for shadow in self.oracle.shadows.values():
            if shadow.state == "SWITCHING" and inside.lose_a_record(host, shadow.generation, shadow.branch):
                self.world.note("generation %d loses a record", shadow.generation)
                self.counts["records lost"] += 1
                self._damaged.add(shadow.generation)

    def _stop_faults(self) -> None:
        super()._stop_faults()
        self.unanswered = self.unverified = self.lossy = self.unapplied = 0

    def _settled(self) -> bool:
        return super()._settled() and not any(s.state in AT_WORK for s in self.host.shadows())  # type: ignore[union-attr]

    def _audit(self, host: Host) -> None:
        """Besides the promises of locks: every index holds exactly its source, by fsck."""
        super()._audit(host)
        busy = [(shadow.shadow_index_id, str(shadow.state)) for shadow in host.shadows() if shadow.state in AT_WORK]
        if busy:
            raise Violation(f"IX-6: builds and switches do not end: {busy}")
        found = self._checked(host)
        waiting = {row.number for row in self.oracle.generations.values() if row.role == "standby"}
        known = tuple(f"generation {number} (" for number in self._damaged & waiting)  # a switch would repair it first
        findings = [finding for finding in found if not finding.where.startswith(known)]
        if findings:
            raise Violation(f"fsck: {findings}")
        if not self._damaged and inside.counter(host, "buckets_repaired"):
            raise Violation("SW-3: buckets were repaired; a sound build never needs it")
