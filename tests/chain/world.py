"""A simulated store, and hosts, followers and a collector that share it: one schedule by seed.

Each task is a greenlet that runs until its next request. The store does one request at a time, and each is whole. Its
faults: an answer that is lost behind the request, or before it; a request that lands much later; a conflict that
stores nothing; a task that stands still for a long time. The oracle knows the first content that a number ever had:
that is the chain. What a host has the answer for that it committed, and what a follower read, has to be of that.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from greenlet import greenlet

from shadowswitch import CorruptData, Fenced, StaleReplica, StoreUnavailable
from shadowswitch.storage.chain.chain import CLAIM, FOLDER, GONE, Chain, Entry, Link, decoded
from shadowswitch.storage.objects.store import Listed

STEPS = 300
SLEEPS = (0.02, 0.05, 0.1)
BLOCK, KEEP = 2, 3
"""Entries that the collector leaves: so few, that hosts and followers fall behind."""


class Broken(AssertionError):
    """A promise of the chain was broken."""


class World:
    """One schedule."""

    url = "simulated:"

    def __init__(self, seed: int, chain: type[Chain] = Chain) -> None:
        self.chance = random.Random(seed)
        self.chain_of = chain
        self.sleepy = self.chance.choice(SLEEPS)
        self.objects: dict[str, bytes] = {}
        self.truth: dict[int, Entry] = {}
        self.late: list[tuple[str, bytes]] = []
        """Requests to make an object that land later."""
        self.acknowledged = self.followed = self.fenced = self.stale = self.made_again = 0
        self.step = 0
        self.tasks: list[greenlet] = []
        self.sleeps: dict[greenlet, int] = {}
        self.hub = greenlet.getcurrent()

    # -- the schedule ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play hosts, followers and a collector against each other."""
        for _ in range(self.chance.choice((1, 2, 3))):
            self.tasks.append(greenlet(self._host, self.hub))
        self.tasks += [greenlet(self._follower, self.hub), greenlet(self._follower, self.hub)]
        self.tasks.append(greenlet(self._collector, self.hub))
        for self.step in range(STEPS):
            awake = [task for task in self.tasks if self.sleeps.get(task, 0) <= self.step] or self.tasks
            task = self.chance.choice(awake)
            if self.chance.random() < self.sleepy:
                self.sleeps[task] = self.step + self.chance.randrange(10, 200)
            elif self.late and self.chance.random() < 0.05:
                self._land_late()
            task.switch()
        self._check_truth()

    def _land_late(self) -> None:
        """One of the late requests; mostly one that finds its place free again."""
        free = [one for one in self.late if one[0] not in self.objects]
        one = self.chance.choice(free if free and self.chance.random() < 0.8 else self.late)
        self.late.remove(one)
        self._make(*one)

    def _wait(self) -> None:
        self.hub.switch()

    def _host(self) -> None:
        chain = self.chain_of(self, BLOCK)
        while True:
            try:
                last = chain.claim()
            except StoreUnavailable:
                continue
            self._acknowledge(last)
            while self.chance.random() < 0.95:
                entry = chain.next_entry(last, "segment")
                try:
                    last = self._committed(chain, last, entry)
                except Fenced:
                    self.fenced += 1
                    self._check_fenced(last, entry)
                    break
                self._acknowledge(last)

    def _committed(self, chain: Chain, last: Link, entry: Entry) -> Link:
        while True:
            try:
                return chain.append(last, entry)
            except StoreUnavailable:
                self._wait()

    def _follower(self) -> None:
        chain = self.chain_of(self, BLOCK)
        last: Link | None = None
        while True:
            try:
                last = last or chain.newest()
                for link in chain.follow(last, self.chance.choice((1, 2, 10))):
                    self._compare(link, "was followed")
                    self.followed += 1
                    last = link
            except StaleReplica:
                self.stale += 1
                last = None
            except CorruptData as error:
                raise Broken(f"a follower took another entry for one of the chain: {error.message}") from error
            except StoreUnavailable:
                pass
            self._wait()

    def _collector(self) -> None:
        chain = self.chain_of(self, BLOCK)
        while True:
            try:
                newest = chain.newest()
                if newest is not None:
                    chain.remove_below(newest.number - KEEP)
            except StoreUnavailable:
                pass
            self.sleeps[greenlet.getcurrent()] = self.step + self.chance.randrange(60)
            self._wait()

    # -- the oracle ------------------------------------------------------------------------------------------------

    def _acknowledge(self, link: Link) -> None:
        self.acknowledged += 1
        self._compare(link, "was acknowledged")

    def _compare(self, link: Link, what: str) -> None:
        if self.truth[link.number].nonce != link.entry.nonce:
            raise Broken(f"entry {link.number} {what}, and is not that of the chain")

    def _check_fenced(self, last: Link, entry: Entry) -> None:
        mine = self.truth.get(last.number + 1)
        if mine is not None and mine.nonce == entry.nonce and last.number + 1 not in self.marked():
            raise Broken(f"a host was fenced by its own entry {last.number + 1}")

    def marked(self) -> set[int]:
        """The numbers of the blocks that are marked as removed."""
        blocks = [int(path.rpartition("/")[2]) for path in self.objects if path.startswith(GONE)]
        return {block * BLOCK + place for block in blocks for place in range(BLOCK)}

    def _check_truth(self) -> None:
        before: Entry | None = None
        for number in range(1, len(self.truth) + 1):
            entry = self.truth.get(number)
            if entry is None:
                raise Broken(f"the chain has a hole at {number}")
            if before is not None:
                if entry.before != before.nonce:
                    raise Broken(f"entry {number} is behind another one than the one before it")
                if entry.epoch != before.epoch + (entry.kind == CLAIM):
                    raise Broken(f"entry {number} of kind {entry.kind} is of epoch {entry.epoch} behind {before.epoch}")
            before = entry

    # -- the store -------------------------------------------------------------------------------------------------

    def _fault(self, share: float) -> bool:
        return self.chance.random() < share

    def _make(self, path: str, data: bytes) -> bool:
        if path in self.objects:
            return False
        self.objects[path] = data
        if not path.startswith(FOLDER):
            return True
        number = int(path.rpartition("/")[2])
        if number in self.truth:
            self.made_again += 1
        self.truth.setdefault(number, decoded(data, path))
        return True

    def create(self, path: str, data: bytes) -> bool:
        """As `ObjectStore.create`."""
        self._wait()
        if self._fault(0.05):
            return False  # a conflict with no other request
        if self._fault(0.05):
            self.late.append((path, data))
            raise StoreUnavailable("lands later, or never")
        made = self._make(path, data)
        self._wait()
        if self._fault(0.1):  # on its way the request was doubled
            self.late.append((path, data))
        if self._fault(0.05):
            raise StoreUnavailable("the answer was lost")
        return made

    def settle(self, paths: Iterable[str]) -> None:
        """As `ObjectStore.settle`."""

    def put(self, path: str, data: bytes, settled: bool = True) -> None:
        """As `ObjectStore.put`: a chain has no use for it."""
        raise AssertionError("an entry is never replaced")

    def get(self, path: str) -> bytes | None:
        """As `ObjectStore.get`."""
        self._wait()
        if self._fault(0.03):
            raise StoreUnavailable("no answer")
        return self.objects.get(path)

    def listed(self, folder: str) -> Iterator[Listed]:
        """As `ObjectStore.listed`."""
        self._wait()
        return iter([Listed(path, len(data), 0.0) for path, data in self.objects.items() if path.startswith(folder)])

    def delete(self, path: str) -> None:
        """As `ObjectStore.delete`."""
        self._wait()
        if self._fault(0.03):
            raise StoreUnavailable("no answer")
        self.objects.pop(path, None)
