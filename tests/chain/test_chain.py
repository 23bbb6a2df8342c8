"""The chain: in a simulation with every fault of a store, with planted bugs, and in real stores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import CorruptData, Fenced, StaleReplica, StoreUnsafe, UnsupportedFormat
from shadowswitch.storage.chain.chain import CLAIM, FOLDER, Chain, Entry, Link, encoded, entry_path, gone_path
from shadowswitch.storage.chain.probe import probe
from shadowswitch.storage.objects.opening import open_store
from shadowswitch.storage.objects.store import ObjectStore
from tests.chain.world import Broken, World
from tests.support.moto_server import BUCKET, moto

SEEDS = 10_000
BUG_SEEDS = 5_000


def play(seeds: range, chain: type[Chain] = Chain) -> dict[str, int]:
    counts = {"acknowledged": 0, "followed": 0, "fenced": 0, "stale": 0, "made_again": 0}
    for seed in seeds:
        world = World(seed, chain)
        try:
            world.run()
        except Broken as broken:
            raise Broken(f"seed {seed}: {broken}") from broken
        for name in counts:
            counts[name] += getattr(world, name)
    return counts


@pytest.mark.timeout(600)
def test_ten_thousand_schedules_keep_every_promise() -> None:
    counts = play(range(SEEDS))
    print(counts)
    assert min(counts.values()) > SEEDS / 100, f"something hardly ever happens: {counts}"


class NoLook(Chain):
    """Does not look whether the number was removed."""

    def append(self, last: Link | None, entry: Entry) -> Link:
        self.was_removed = lambda number: False  # type: ignore[method-assign]
        try:
            return super().append(last, entry)
        finally:
            del self.was_removed


class LooksAtTheEntryBefore(Chain):
    """Takes the entry before for a proof: a request to make it may land a second time, behind its removal."""

    def append(self, last: Link | None, entry: Entry) -> Link:
        def gone(number: int) -> bool:
            before = self.read(number - 1)
            return last is not None and (before is None or before.nonce != last.entry.nonce)

        self.was_removed = gone  # type: ignore[method-assign]
        try:
            return super().append(last, entry)
        finally:
            del self.was_removed


class Believes(Chain):
    """Takes a conflict for another host without a look."""

    def append(self, last: Link | None, entry: Entry) -> Link:
        number = last.number + 1 if last is not None else 1
        if not self._store.create(entry_path(number), encoded(entry)) or self.was_removed(number):
            raise Fenced("taken")
        return Link(number, entry)


class ByEpoch(Chain):
    """Takes an entry of its own epoch for its own."""

    at = 0

    def read(self, number: int) -> Entry | None:
        found = super().read(number)
        if found is not None and number == self.at and found.epoch == self.mine.epoch:
            return self.mine
        return found

    def append(self, last: Link | None, entry: Entry) -> Link:
        self.mine, self.at = entry, last.number + 1 if last is not None else 1
        return super().append(last, entry)


class FollowsOn(Chain):
    """Follows without a look whether its entries were removed."""

    def follow(self, last: Link | None, limit: int) -> list[Link]:
        self.was_removed = lambda number: False  # type: ignore[method-assign]
        try:
            return super().follow(last, limit)
        finally:
            del self.was_removed


class MarksLater(Chain):
    """Marks a block behind the removal of its entries."""

    def remove_below(self, number: int) -> int:
        there = sorted(self._numbers())
        old = [one for one in there[:-1] if one // self.block < min(number, there[-1]) // self.block]
        for one in old:
            self._store.delete(entry_path(one))
        for one in old:
            self._store.create(gone_path(one // self.block), b"")
        return len(old)


class NewestFirst(Chain):
    """Removes the newest of the old blocks first."""

    def remove_below(self, number: int) -> int:
        there = sorted(self._numbers())
        old = [one for one in there[:-1] if one // self.block < min(number, there[-1]) // self.block]
        for one in reversed(old):
            self._store.create(gone_path(one // self.block), b"")
            if self.was_removed(one):
                self._store.delete(entry_path(one))
        return len(old)


class SameEpoch(Chain):
    """Claims without a new epoch."""

    def next_entry(self, last: Link | None, kind: str, body: bytes = b"") -> Entry:
        return super().next_entry(last, "segment" if kind == CLAIM and last is not None else kind, body)

    def claim(self, body: bytes = b"") -> Link:
        link = super().claim(body)
        if link.entry.kind != CLAIM:
            raise Broken("a claim that is none")
        return link


BUGS = [NoLook, LooksAtTheEntryBefore, Believes, ByEpoch, FollowsOn, MarksLater, NewestFirst, SameEpoch]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: type[Chain]) -> None:
    with pytest.raises(Broken):
        play(range(BUG_SEEDS), bug)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with moto() as environment:
        yield environment


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")


def test_hosts_on_threads_append_to_one_chain(store: ObjectStore) -> None:
    """Each host claims and appends; what was acknowledged is in the chain, in the order of its numbers."""
    acknowledged: dict[int, Entry] = {}
    problems: list[BaseException] = []

    def host() -> None:
        chain = Chain(store)
        try:
            for _ in range(3):
                last = chain.claim()
                acknowledged[last.number] = last.entry
                try:
                    for _ in range(4):
                        last = chain.append(last, chain.next_entry(last, "segment", b"body"))
                        acknowledged[last.number] = last.entry
                except Fenced:
                    continue
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=host) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    links = Chain(store).follow(None, 1000)
    assert {link.number: link.entry for link in links} == acknowledged
    assert [link.number for link in links] == list(range(1, len(links) + 1))
    newest = Chain(store).newest()
    assert newest == links[-1]


def test_what_was_removed_is_said(store: ObjectStore) -> None:
    chain = Chain(store, block=2)
    links = [chain.claim()]
    for _ in range(6):
        links.append(chain.append(links[-1], chain.next_entry(links[-1], "segment")))
    assert chain.follow(links[2], 2) == links[3:5]
    assert chain.remove_below(5) == 3  # 4 is in a block with 5
    assert [chain.was_removed(number) for number in (1, 3, 4, 7)] == [True, True, False, False]
    with pytest.raises(Fenced, match="entry 3 was made and removed"):
        chain.append(links[1], chain.next_entry(links[1], "segment"))
    with pytest.raises(StaleReplica, match="entry 3 of the chain was removed"):
        chain.follow(links[1], 10)
    with pytest.raises(Fenced, match="entry 1 was made and removed"):
        chain.append(None, chain.next_entry(None, CLAIM))
    with pytest.raises(StaleReplica):
        chain.follow(None, 10)
    assert chain.follow(links[2], 10) == links[3:]
    assert chain.remove_below(1000) == 4  # 1 and 3, which the fenced hosts have made again; 4 and 5
    assert chain.newest() == links[-1]


class Ignoring:
    """A store that ignores conditions, as some servers do."""

    def __init__(self, store: ObjectStore) -> None:
        self.url, self.put, self.settle = store.url, store.put, store.settle
        self.get, self.listed, self.delete = store.get, store.listed, store.delete

    def create(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True


def test_a_number_that_was_listed_may_be_another_entry_by_now(tmp_path: Path) -> None:
    """Between the list and the look the chain goes on, the entry is removed, and a late request makes it again."""
    store = open_store(str(tmp_path / "store"))
    chain = Chain(store, block=1)
    first = chain.claim()

    class Meanwhile(Chain):
        def _numbers(self) -> Iterator[int]:
            found = list(super()._numbers())
            if found == [1]:
                second = chain.append(first, chain.next_entry(first, "segment"))
                chain.append(second, chain.next_entry(second, "segment"))
                assert chain.remove_below(3) == 2
                store.put(entry_path(1), encoded(first.entry))
            return iter(found)

    newest = Meanwhile(store, block=1).newest()
    assert newest == chain.newest()
    assert newest is not None
    assert newest.number == 3


def test_damage_is_no_entry(store: ObjectStore) -> None:
    chain = Chain(store)
    last = chain.claim()
    path = entry_path(last.number)
    data = store.get(path) or b""
    for damaged, error in ((b"", CorruptData), (data[:-1], CorruptData), (b"\2" + data[1:], UnsupportedFormat)):
        store.put(path, damaged)
        with pytest.raises(error):
            chain.read(last.number)
    store.put(path, data)
    store.put(entry_path(2), data)
    with pytest.raises(CorruptData, match="does not follow the entry before"):
        chain.follow(None, 5)
    assert f"{FOLDER}/00000000000000000001" == path


def test_a_store_that_keeps_conditions_passes_the_probe(store: ObjectStore) -> None:
    probe(store, rounds=3)
    assert list(store.listed("probe")) == []


class LooksFirst(Ignoring):
    """A store that looks, and writes in a second step."""

    def create(self, path: str, data: bytes) -> bool:
        return self.get(path) is None and super().create(path, data)


@pytest.mark.parametrize("kind", [Ignoring, LooksFirst])
def test_a_store_that_ignores_conditions_is_refused(kind: type[Ignoring], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(StoreUnsafe, match="cannot hold a chain"):
        probe(kind(store))
    assert list(store.listed("probe")) == []
