"""One seed from beginning to end, and many of them: what happens, which faults there are, when all is over.

python -m tests.simulation.runs --seeds 10000 [--from 0]      exit status 1 at the first violation, with its trace
python -m tests.simulation.runs --seed 4711                   one seed, with its trace
"""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shadowswitch.actors import journal_writer, lock_keeper
from shadowswitch.storage import lock_rows
from shadowswitch.storage.commit import Commit
from tests.simulation import host as hosts
from tests.simulation import seams
from tests.simulation.clients import WEIGHTS, Client
from tests.simulation.host import GRACE_S, Host, Store
from tests.simulation.oracle import Oracle
from tests.simulation.world import Violation, World, present

OPERATIONS = 24
SETTLED_S = 40.0
"""All locks and waits of the clients are over after that."""


class Faults:
    """Which faults a seed has, and how often. Most have few of them: with all at once little else would happen."""

    def __init__(self, world: World) -> None:
        random = world.random
        self.full = random.choice((0, 0, 0, 0.05, 0.3))
        self.broken = random.choice((0, 0, 0, 0, 0.03))
        self.killed_before = random.choice((0, 0, 0.02))
        self.killed_after = random.choice((0, 0, 0.02))
        self.killed = random.choice((0, 0, 0, 0.002))
        self.delayed = random.choice((0, 0.2, 0.6))
        world.period_s = random.choice((3.0, 10.0))
        world.dawdling = random.choice((0, 0.1, 0.5))
        world.freezing = random.choice((0, 0, 0.004, 0.02))
        world.slow = frozenset(random.choice(((), (), ("shadowswitch-journal",), ("shadowswitch-branch-1",))))

    def stop(self, world: World) -> None:
        """From now on nothing goes wrong any more."""
        self.full = self.broken = self.killed_before = self.killed_after = self.killed = self.delayed = 0
        world.dawdling = world.freezing = 0.0


class Run:
    """One seed."""

    def __init__(self, seed: int, store: Store) -> None:
        self.world = World(seed)
        self.store = store
        self.oracle = Oracle(self.world, {name: number for number, name in enumerate(hosts.BRANCHES, 1)})
        self.faults = Faults(self.world)
        self.counts: Counter[str] = Counter()
        random = self.world.random
        self.idle_s = random.choice((0.05, 1.0, 10.0))
        self.janitor_s = random.choice((1.0, 3.0, 10.0))
        kinds = [kind for kind in WEIGHTS if kind in ("write", "acquire") or random.random() < 0.7]
        branches = random.choice((hosts.BRANCHES[:1], hosts.BRANCHES[:1], hosts.BRANCHES))
        names = ("alice", "bob", "carol", "dave")[: random.choice((2, 3, 4))]
        self.clients = [Client(name, self.world, self.oracle, kinds, branches) for name in names]
        for number in range(OPERATIONS):
            self.clients[number % len(names)].left += 1
        self.world.reached = self._reached
        self.host: Host | None = None

    # -- the process of the engine ---------------------------------------------------------------------------------

    def _open(self) -> None:
        """A task, while which nothing fails: what an Engine that cannot be opened leaves behind is tested for real."""
        world = self.world
        host = Host(self.store, self.idle_s, self.janitor_s)
        if self.counts["restarts"]:
            self.oracle.reopened(GRACE_S)
        world.note("the engine is open")
        self.host = host
        for client in self.clients:
            client.host = host
            world.spawn(client.name, client.run)

    def _die(self, why: str) -> None:
        """The process is gone, and comes again: perhaps later, perhaps after a reboot of the machine."""
        world, random = self.world, self.world.random
        assert self.host is not None
        world.note("the process dies (%s)", why)
        self.counts["restarts"] += 1
        self.host.gone()
        self.host = None
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
        """Raises Violation."""
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
            if not world.run(lambda: is_so() or self._must_reopen(), self._step):
                raise Violation("LK-6: nothing can happen any more, and calls are not answered")
            if world.crashed:
                self._die("in the middle")
            elif self._must_reopen():
                self._die("the disk failed")

    def _must_reopen(self) -> bool:
        return self.host is not None and self.host.failed and self.world.chance(0.02)

    def _step(self) -> None:
        if self.oracle.violation is not None:
            raise self.oracle.violation
        if self.host is None:
            return
        self.oracle.look(self.host.house)
        world = self.world
        if world.chance(self.faults.killed):
            world.crashed = True
        if world.random.random() < 0.005:
            world.wall_offset += world.random.choice((-3600.0, 3600.0, 0.5))
        if self.host.crashes and not self.host.failed:
            raise Violation(f"failed in an unforeseen way: {self.host.crashes[0]}")

    def _settle(self) -> None:
        """The faults are over. Every lock expires, every branch goes to sleep, and what was promised is there."""
        self.faults.stop(self.world)
        if self.host is not None and self.host.failed:
            self._die("the disk failed")
        until = self.world.now + SETTLED_S + self.idle_s
        self.world.at(until, lambda: None)
        self._until(lambda: self._settled() or self.world.now >= until)
        host, oracle = self.host, self.oracle
        assert host is not None
        for number, keeper in host.house.keepers.items():
            if keeper.held.table.locks or keeper.held.table.waiters:
                raise Violation(f"LK-3: branch {number} still has {keeper.held.table.dump(0)}")
        if host.awake():
            raise Violation(f"{host.awake()} branches do not go to sleep")
        findings = list(lock_rows.check_locks(host.house.catalog))
        if findings:
            raise Violation(f"fsck: {findings}")
        for name, number in oracle.numbers.items():
            journal = [(change.lsn, change.fields) for change in host.changes(name)]
            written = {fields["op"] for _, fields in journal if fields}
            expected = {op.number for op in oracle.ops if op.lsns and op.branch == name}
            if written != expected or host.head(name) != oracle.branches[number].last_lsn:
                raise Violation(f"ST-5: the journal of {name} holds {sorted(written)}, expected {sorted(expected)}")

    def _settled(self) -> bool:
        if self.host is None or self.host.awake():
            return False
        return not any(keeper.held.table.locks for keeper in self.host.house.keepers.values())


# -- many seeds --------------------------------------------------------------------------------------------------------


class WatchedCommit(Commit):
    """A transaction that the oracle sees."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        present().watcher.begun()

    def write(self, branch: int, batch: Any, *more: Any, **named: Any) -> Any:
        receipt = super().write(branch, batch, *more, **named)
        present().watcher.wrote(branch, batch, receipt.lsn)
        return receipt


class Unwatched:
    """For a world without an oracle."""

    def begun(self) -> None: ...

    def wrote(self, branch: int, batch: Any, lsn: int) -> None: ...

    def stored(self, row: Any, events: Any) -> None: ...


@contextmanager
def simulating() -> Iterator[Store]:
    """The library is in virtual reality, and watched."""
    folder = hosts.scratch()
    replaced = seams.Replaced()
    save = lock_rows.save_locks

    def watched_save(commit: Commit, branch: Any, row: Any, events: Any, audit: Any) -> None:
        save(commit, branch, row, events, audit)
        present().watcher.stored(row, events)

    try:
        store = Store(folder)
        replaced.put(lock_keeper, "save_locks", watched_save)
        replaced.put(journal_writer, "Commit", WatchedCommit)
        with seams.virtual_reality():
            yield store
    finally:
        replaced.put_back()
        hosts.remove(folder)


def run_seed(seed: int, store: Store) -> Run:
    """Runs one seed; raises Violation with its number and its trace."""
    run = Run(seed, store)
    run.world.watcher = run.oracle
    try:
        run.go()
    except Exception as error:
        what = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-4:])
        run.world.note("%s", what)
        told = "\n".join(run.world.told())
        raise Violation(f"seed {seed}: {error}\n{told}\nagain: make simulate SEED={seed}") from error
    return run


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    with simulating() as store:
        try:
            if options.seed is not None:
                run = run_seed(options.seed, store)
                print("\n".join(run.world.told()))
                return 0
            counts: Counter[str] = Counter()
            for seed in range(options.first, options.first + options.seeds):
                counts += run_seed(seed, store).counts
        except Violation as violation:
            print(violation)
            return 1
    happened = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{options.seeds} seeds from {options.first}: no violation; {happened}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
