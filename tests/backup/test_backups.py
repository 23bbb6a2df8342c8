"""A backup beside a running engine, and the data directory that a restore makes of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import (
    CorruptData,
    Delete,
    Engine,
    EngineClosed,
    InvalidConfig,
    Put,
    StoreUnavailable,
    Timeout,
    UnsupportedFormat,
    backups,
    prune_backups,
    restore,
    verify_backup,
)
from shadowswitch.storage.backup import creating
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.objects.opening import open_store
from tests.support.backup_helpers import objects, restored, serves, shown
from tests.support.damage import flip, record_key
from tests.support.engine_helpers import crew, fill, found, live, put, wait_until
from tests.support.moto_server import CREDENTIALS

KIND = "SEARCH_INDEX"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_restore_shows_what_the_backup_has_and_builds_its_indexes(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    fill(engine, 300)
    live(engine)
    engine.fork_branch("fork", "main")
    engine.fork_branch("following", "main", mode="following")
    engine.write("fork", [put("1", "changed"), Delete("object_type", "2")])
    engine.write("main", [put("3", "later"), Put("link_type", "l", {"title": "ünïcode ".ljust(3000, "x")})])
    before = shown(engine)
    made = engine.backup(str(store))
    head = engine.head("main")
    assert (made.last_lsn, made.branches) == (head, 3)
    engine.write("main", [put("r4", "not in it")])
    assert verify_backup(str(store), deep=True).findings == ()
    again = restored(open_engine, store, tmp_path)
    assert shown(again) == before
    assert again.head("main") == head
    assert again.write("main", [put("r5")]).lsn == head + 1
    wait_until(lambda: serves(again), what="the switch to what was built again")
    assert found(again, "later") == {"3"}
    assert [event.type for event in again.events() if "restored" in event.type] == ["com.shadowswitch.catalog.restored"]


def test_a_backup_has_one_moment_beside_writers(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    """Two records are always written together, so a backup that has them of different batches is torn."""
    engine.write("main", [put("a", "0"), put("b", "0")])
    count = iter(range(1, 1_000_000))
    with crew() as hands:
        hands.start(lambda: engine.write("main", [put("a", text := str(next(count))), put("b", text)]))
        made = [engine.backup(str(store)) for _ in range(3)]
    assert made[0].last_lsn < made[2].last_lsn
    for one in made:
        directory = tmp_path / one.id
        restore(str(store), directory, backup=one.id)
        with open_engine(directory) as again:
            a, b = again.get("main", "object_type", "a"), again.get("main", "object_type", "b")
            assert a is not None
            assert b is not None
            assert (str(a.fields["text"]).split()[0], a.lsn + 1) == (str(b.fields["text"]).split()[0], b.lsn)
            assert b.lsn == one.last_lsn


def test_what_a_backup_has_already_is_not_stored_again(engine: Engine, store: Path) -> None:
    for start in range(0, 20_000, 1000):
        engine.write("main", [put(f"r{n}", f"text {n}") for n in range(start, start + 1000)])
    first = engine.backup(str(store))
    pages = objects(store, "pages")
    second = engine.backup(str(store))
    assert second.stored_bytes < first.stored_bytes / 50
    engine.write("main", [put("r77", "changed")])
    third = engine.backup(str(store))
    assert third.stored_bytes < first.stored_bytes / 2
    assert pages.items() <= objects(store, "pages").items()


def test_a_store_of_another_directory_is_refused(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    engine.backup(str(store))
    other = open_engine(tmp_path / "other")
    with pytest.raises(InvalidConfig, match="backups of another data directory"):
        other.backup(str(store))
    again = restored(open_engine, store, tmp_path)
    assert again.backup(str(store)).branches == 1
    assert len(backups(str(store))) == 2
    with pytest.raises(InvalidConfig, match="backups of another data directory"):
        engine.backup(str(store))  # the restored one has its place


def test_a_time_and_a_backup_are_chosen(engine: Engine, store: Path, tmp_path: Path) -> None:
    made = []
    for number in range(3):
        engine.write("main", [put("r", str(number))])
        made.append(engine.backup(str(store)))
    assert [one.id for one in backups(str(store))] == [one.id for one in made]
    between = made[1].created_at + (made[2].created_at - made[1].created_at) / 2
    assert restore(str(store), tmp_path / "1", at=between).backup == made[1].id
    assert restore(str(store), tmp_path / "2", backup=made[0].id).last_lsn == 1
    assert restore(str(store), tmp_path / "3").backup == made[2].id
    refusals = {
        "has no time zone": {"at": datetime(2020, 1, 1)},
        "no backup as old as": {"at": datetime(2020, 1, 1, tzinfo=UTC)},
        "reach to LSN 4": {"at_lsn": 4},
        "no backup 'x'": {"backup": "x"},
        "at a time, at an LSN, or of one backup": {"at": between, "at_lsn": 1},
    }
    for says, how in refusals.items():
        with pytest.raises(InvalidConfig, match=says):
            restore(str(store), tmp_path / "4", **how)  # type: ignore[arg-type]
    assert not (tmp_path / "4").exists()


def test_a_restore_overwrites_nothing(engine: Engine, data_dir: Path, store: Path, tmp_path: Path) -> None:
    engine.backup(str(store))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for target in (data_dir, tmp_path / "full", tmp_path / "full" / "file", tmp_path / "link", tmp_path / "no" / "x"):
        with pytest.raises(InvalidConfig, match=r"is not empty|is no folder"):
            restore(str(store), target)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert restore(str(store), tmp_path / "empty").records == 0


def test_damage_of_a_store_is_found_and_never_restored(engine: Engine, store: Path, tmp_path: Path) -> None:
    fill(engine, 2000)
    engine.backup(str(store))
    sound = objects(store)
    assert verify_backup(str(store)).objects == len(sound)
    for path, data in sound.items():
        for damaged in (b"", data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1]), bytes([data[0]]) + b"\0" * 40):
            (store / path).write_bytes(damaged)
            assert verify_backup(str(store)).findings, path
            with pytest.raises((CorruptData, InvalidConfig)):
                restore(str(store), tmp_path / "restored")
            if not path.startswith("backups"):
                assert not list((tmp_path / "restored").glob("catalog*"))
        (store / path).unlink()
        if not path.startswith("backups"):
            assert verify_backup(str(store)).findings, path
            with pytest.raises(CorruptData, match="is missing"):
                restore(str(store), tmp_path / "restored")
        (store / path).write_bytes(data)
    assert restore(str(store), tmp_path / "restored").records == 2000


def test_a_row_that_was_damaged_before_is_said(engine: Engine, data_dir: Path, open_engine: Any, store: Path) -> None:
    fill(engine, 20)
    engine.close()
    flip(data_dir, "records", record_key("3"), 17)
    again = open_engine(sound=False)
    made = again.backup(str(store))
    assert ["'3'" in line for line in made.damaged] == [True]
    assert any("damaged before the backup" in line for line in verify_backup(str(store)).findings)


def test_a_prune_keeps_what_the_others_need(engine: Engine, store: Path, tmp_path: Path) -> None:
    fill(engine, 3000)
    made = []
    for number in range(4):
        engine.write("main", [put(f"{number}", "changed")])
        made.append(engine.backup(str(store)))
    done = prune_backups(str(store), keep=2, older_than=timedelta(days=1))
    assert (done.removed, len(done.kept)) == ((), 4)
    done = prune_backups(str(store), keep=2)
    assert done.removed == (made[0].id, made[1].id)
    assert done.objects_removed > 2
    assert verify_backup(str(store), deep=True).findings == ()
    assert restore(str(store), tmp_path / "again").records == 3000
    with pytest.raises(InvalidConfig, match="keep must be"):
        prune_backups(str(store), keep=0)


def test_a_prune_beside_a_backup_takes_nothing_from_it(
    engine: Engine, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup relies on pages of one that is removed meanwhile: it is made again, from its own."""
    fill(engine, 3000)
    engine.backup(str(store))
    engine.close()
    plain, pruned = open_store(str(store)), threading.Event()

    class Pruning:
        url = plain.url
        create, get, listed, delete, settle = plain.create, plain.get, plain.listed, plain.delete, plain.settle

        def put(self, path: str, data: bytes, settled: bool = True) -> None:
            if path.startswith("backups/") and not pruned.is_set():
                pruned.set()
                for manifest in store.glob("backups/*"):
                    manifest.unlink()
                for page in store.glob("pages/*/*"):
                    if page.parent.name not in path:
                        page.unlink()
            plain.put(path, data, settled)

    catalog = Catalog(tmp_path / "data" / "catalog", readonly=True)
    made = creating.create(catalog, Pruning())
    catalog.close()
    assert pruned.is_set()
    assert [one.id for one in backups(str(store))] == [made.id]
    assert verify_backup(str(store), deep=True).findings == ()


def test_a_damaged_manifest_stops_a_prune_before_it_removes(engine: Engine, store: Path) -> None:
    made = [engine.backup(str(store)) for _ in range(3)]
    file = store / "backups" / made[0].id
    file.write_bytes(b"\1" + bytes(100))
    before = objects(store)
    with pytest.raises(CorruptData, match="is damaged"):
        prune_backups(str(store), keep=1)
    assert objects(store) == before


def test_what_a_backup_lacks_is_said_and_changes_nothing(engine: Engine, store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        engine.backup(str(tmp_path / "file"))
    with pytest.raises(InvalidConfig, match="is no folder"):
        engine.backup(str(store), scratch=tmp_path / "nothing")
    with pytest.raises(InvalidConfig, match="of the kind 'ftp'"):
        engine.backup("ftp://host/x")
    with pytest.raises(InvalidConfig, match="timeout_s"):
        engine.backup(str(store), timeout_s="x")  # type: ignore[arg-type]
    assert engine.backup(str(store)).branches == 1
    engine.close()
    with pytest.raises(EngineClosed):
        engine.backup(str(store))


def test_a_store_that_does_not_answer_is_waited_for_until_the_deadline(
    engine: Engine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*silent.getsockname()))
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Timeout, match="was not made in 1 s"):
            engine.backup("s3://bucket/x", timeout_s=1)
        assert engine.backup(str(store)).branches == 1


def test_a_catalog_of_a_later_version_is_refused(engine: Engine, data_dir: Path, store: Path) -> None:
    engine.close()
    env = lmdb.open(str(data_dir / "catalog"), max_dbs=40)
    env.open_db(b"of the future")
    env.close()
    catalog = Catalog(data_dir / "catalog", readonly=True)
    with pytest.raises(UnsupportedFormat, match="of the future"):
        creating.create(catalog, open_store(str(store)))
    catalog.close()
    assert not store.exists()


class SetBack(Clock):
    """A clock that an operator sets back by an hour with each look."""

    def __init__(self) -> None:
        self._at = 2e9

    def wall(self) -> float:
        self._at -= 3600
        return self._at


def test_the_newest_backup_is_that_of_the_highest_lsn(
    engine: Engine, store: Path, data_dir: Path, tmp_path: Path
) -> None:
    clock, made = SetBack(), []
    for number in range(3):
        last = engine.write("main", [put("r", str(number))]).lsn
        engine.close()
        catalog = Catalog(data_dir / "catalog", readonly=True, clock=clock)
        made.append(creating.create(catalog, open_store(str(store))))
        catalog.close()
        engine = Engine.open(data_dir)
    engine.close()
    assert made[0].created_at > made[2].created_at
    assert [one.id for one in backups(str(store))] == [one.id for one in made]
    assert restore(str(store), tmp_path / "newest").last_lsn == last
    assert restore(str(store), tmp_path / "middle", at_lsn=2).last_lsn == 2
    assert prune_backups(str(store), keep=1).kept == (made[2].id,)


def test_backups_of_one_host_take_turns(engine: Engine, store: Path, tmp_path: Path) -> None:
    fill(engine, 2000)
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(engine.backup(str(store)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 4
    assert sorted(one.stored_bytes > 10_000 for one in made) == [False, False, False, True]
    assert restore(str(store), tmp_path / "again").records == 2000
