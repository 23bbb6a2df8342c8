"""Many resource types: no call reads them all, and what is kept instead of added up is what adding up gives (ST-3)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Put
from shadowswitch.engine.encode import prepare
from shadowswitch.model.config import Config
from shadowswitch.model.errors import InvalidChange
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source import type_table
from shadowswitch.storage.catalog.source.kept_digest import KeptDigest
from shadowswitch.storage.catalog.source.type_lists import INLINE_MAX
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.fsck.tasks import check_all
from tests.support.damage import raw_catalog

KIND = "SEARCH_INDEX"
NAMES = [f"type_{n:03d}" for n in range(INLINE_MAX + 20)]


class Store:
    """A catalog with one branch."""

    def __init__(self, path: Path) -> None:
        self.catalog = Catalog(path)
        self.counters = Counters(self.catalog)
        self.run(lambda commit: commit.create_branch("main", 0.0))
        self.branch = self.catalog.branch("main").number

    def run(self, work: Any) -> None:
        Commit(self.catalog, self.counters).run(work)

    def write(self, *changes: Put | Delete) -> None:
        batch = prepare(changes, Config())
        self.run(lambda commit: commit.write(self.branch, batch))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.catalog.close()


def put(name: str, id: str = "a", text: str = "x") -> Put:
    return Put(name, id, {"text": text})


def test_the_table_of_types_is_read_again_only_when_a_type_came(store: Store) -> None:
    store.write(*map(put, NAMES))
    before = store.catalog.types()
    store.write(put(NAMES[0], "b"))
    assert store.catalog.types() is before
    assert store.catalog.type_numbers() is store.catalog.type_numbers()
    store.write(put("new"))
    assert store.catalog.types()[store.catalog.type_numbers()["new"]] == "new"
    assert sorted(store.catalog.types().values()) == ["new", *NAMES]


def test_a_type_that_was_named_again_is_seen_by_the_readers_of_this_and_of_other_processes(store: Store) -> None:
    store.write(put("one"), put("two"))
    assert store.catalog.types() == {1: "one", 2: "two"}
    store.run(lambda commit: commit.put_type(1, "first"))
    assert store.catalog.types() == {1: "first", 2: "two"}
    assert store.catalog.type_numbers() == {"first": 1, "two": 2}


def test_a_directory_that_an_older_version_filled_has_its_types(store: Store, tmp_path: Path) -> None:
    store.write(put("one"), put("two"))
    store.run(lambda commit: commit.put_number(type_table.VERSION, 0))
    store.catalog.close()
    store.catalog = Catalog(tmp_path)
    store.counters = Counters(store.catalog)
    assert store.catalog.types() == {1: "one", 2: "two"}
    store.write(put("three"))
    assert store.catalog.types() == {1: "one", 2: "two", 3: "three"}


def test_the_kept_count_and_the_kept_digest_are_what_adding_up_gives(store: Store) -> None:
    chance = random.Random(7)
    store.write(*map(put, NAMES[:40]))
    types = set(store.catalog.types()) - {3, 5}
    kept = KeptDigest(store.catalog, store.branch, types)
    for _ in range(60):
        change = [
            put(chance.choice(NAMES), str(chance.randrange(5)), str(chance.random()))
            if chance.random() < 0.6
            else Delete(chance.choice(NAMES), str(chance.randrange(5)))
            for _ in range(chance.randrange(1, 4))
        ]
        try:
            store.write(*change)
        except InvalidChange:
            continue  # the same record twice
        if chance.random() < 0.3:
            assert kept.look() == store.catalog.source_digest(store.branch, types)
        counts = store.catalog.counts(store.branch)
        assert store.catalog.record_count(store.branch) == sum(counts.values())
        assert {store.catalog.count(store.branch, store.catalog.types()[n]) for n in counts} == set(counts.values())
    assert kept.look() == store.catalog.source_digest(store.branch, types)
    kept.close()


class NotedDigest(KeptDigest):
    """Notes the types whose digests it reads."""

    def __init__(self, *given: Any) -> None:
        self.read: list[int] = []
        super().__init__(*given)

    def _add(self, txn: Any, number: int) -> None:
        self.read.append(number)
        super()._add(txn, number)


def test_a_look_reads_only_the_types_that_were_written_to(store: Store) -> None:
    store.write(*map(put, NAMES))
    kept = NotedDigest(store.catalog, store.branch, store.catalog.types())
    assert len(kept.read) == len(NAMES)
    kept.read.clear()
    store.write(put(NAMES[4], "b"), put(NAMES[4], "c"))
    kept.look()
    kept.look()
    assert kept.read == [5]
    kept.close()
    store.write(put(NAMES[4], "d"))
    kept.look()
    assert kept.read == [5], "a digest that is closed notes no commit"


def test_a_transaction_that_failed_leaves_count_and_digest_as_they_were(store: Store) -> None:
    store.write(put("one"))
    kept = KeptDigest(store.catalog, store.branch, store.catalog.types())

    def fail(commit: Commit) -> None:
        commit.write(store.branch, prepare([put("one", "b"), put("two")], Config()))
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        store.run(fail)
    store.write(put("one", "c"))
    assert store.catalog.record_count(store.branch) == 2
    assert kept.look() == store.catalog.source_digest(store.branch, [1])


def test_a_branch_of_an_older_version_has_its_count_and_keeps_it_from_the_next_write_on(
    data_dir: Path, open_engine: Any
) -> None:
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [put(name) for name in NAMES])
    with raw_catalog(data_dir) as (txn, db):
        head = bytes(txn.get(keys.BRANCH.pack(1), db=db["heads"]) or b"")
        txn.put(keys.BRANCH.pack(1), head[: keys.HEAD.size], db=db["heads"])
    with open_engine() as engine:
        assert engine.branch("main").record_count == engine.count("main") == len(NAMES)
        engine.write("main", [put("new"), Delete(NAMES[0], "a"), put(NAMES[1])])
        assert engine.branch("main").record_count == engine.count("main") == len(NAMES)
    with raw_catalog(data_dir) as (txn, db):
        assert bytes(txn.get(keys.BRANCH.pack(1), db=db["heads"]) or b"")[keys.HEAD.size :] == keys.COUNT.pack(
            len(NAMES)
        )


def test_a_wrong_count_is_found_and_derived_again(data_dir: Path, open_engine: Any) -> None:
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [put(name) for name in NAMES])
    with raw_catalog(data_dir) as (txn, db):
        head = bytes(txn.get(keys.BRANCH.pack(1), db=db["heads"]) or b"")
        txn.put(keys.BRANCH.pack(1), head[: keys.HEAD.size] + keys.COUNT.pack(7), db=db["heads"])
    engine = open_engine(sound=False)
    assert [finding.invariant for finding in engine.check()] == ["ST-3"]
    assert [finding.repaired for finding in engine.check(repair=True)] == ["the digests"]
    assert engine.check() == []
    assert engine.count("main") == len(NAMES)


def test_an_index_of_many_types_is_built_switched_and_found_again_after_a_restart(
    data_dir: Path, open_engine: Any
) -> None:
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [put(name) for name in NAMES])
        for _ in range(2):
            assert engine.rebuild("main", KIND, NAMES, {"backend": "kv"}).success
        engine.write("main", [put(NAMES[0], "b"), Delete(NAMES[1], "a")])
        assert engine.rollback("main", KIND).success
        assert sorted(engine.index("main", KIND).resource_types) == NAMES
    with raw_catalog(data_dir) as (txn, db):
        for database in ("shadows", "generations"):
            assert all(len(value) < 1500 for _, value in txn.cursor(db[database])), "a row does not hold the names"
    with open_engine() as engine:
        assert sorted(engine.index("main", KIND).resource_types) == NAMES
        assert {tuple(sorted(shadow.resource_types)) for shadow in engine.shadows()} == {tuple(NAMES)}
        assert engine.rollback("main", KIND).success
        assert engine.index("main", KIND).record_count == engine.count("main") == len(NAMES)
        with engine.reader("main", KIND, min_lsn=engine.head("main")) as reader:
            assert reader.count() == len(NAMES)


def test_a_missing_list_of_types_is_found(data_dir: Path, open_engine: Any) -> None:
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [put(name) for name in NAMES])
        assert engine.rebuild("main", KIND, NAMES, {"backend": "kv"}).success
    with raw_catalog(data_dir) as (txn, db):
        cursor = txn.cursor(db["meta"])
        assert cursor.set_range(b":type list ")
        assert cursor.delete()
    catalog = Catalog(data_dir / "catalog", readonly=True)
    found = check_all(catalog, data_dir)
    catalog.close()
    assert any("list of resource types" in finding.problem for finding in found)
