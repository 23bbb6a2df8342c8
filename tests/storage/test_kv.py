"""The kv backend beyond the suite: prefix search, long keys, one environment for each process, a full map."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import CorruptData, InvalidConfig, ResourceExhausted, StorageFull
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.kv import store as kv_store
from shadowswitch.storage.backends.kv.backend import KvBackend

BACKEND = KvBackend()
OPTIONS = BACKEND.configure({"map_size_mib": 64})


def put(lsn: int, resource_type: str, id: str, **fields: Any) -> Item:
    return Item(lsn, resource_type, id, key_hash(resource_type, id), fields)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shard-000"
    BACKEND.create_shard(path, OPTIONS)
    yield path
    assert kv_store._open == {}


def test_a_query_finds_the_ids_that_begin_with_it_in_key_order(path: Path) -> None:
    seed = 71
    print(f"seed {seed}")
    source = random.Random(seed)
    ids = {"".join(source.choices("abé", k=source.randint(0, 5))) for _ in range(150)}
    ids |= {"x" * length + "".join(source.choices("abé", k=3)) for length in range(440, 510, 3) for _ in range(4)}
    ids |= {"x" * 600 + word for word in ("", "a", "b", "ab")}
    keys = sorted((resource_type, id) for resource_type in ("t", "tt", "u", "é" * 240) for id in ids)
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer, closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        writer.apply([put(lsn, *key) for lsn, key in enumerate(keys, 1)], len(keys))
        for query in (
            "",
            "a",
            "ab",
            "abab",
            "é",
            "b",
            "c",
            "x",
            "x" * 455,
            "x" * 459,
            "x" * 460 + "a",
            "x" * 600,
            "\0",
        ):
            expected = [key for key in keys if key[1].startswith(query)]
            hits = reader.search(query, 10_000)
            assert [(hit.resource_type, hit.id) for hit in hits] == expected
            assert {hit.score for hit in hits} <= {1.0}
            assert reader.search(query, 3) == hits[:3]
    assert BACKEND.check(path, OPTIONS) == []


def test_a_query_that_is_not_text_is_refused(path: Path) -> None:
    with closing(BACKEND.open_reader([path], OPTIONS)) as reader, pytest.raises(InvalidConfig):
        reader.search(None, 1)  # type: ignore[arg-type]


def test_only_the_configured_fields_are_stored(tmp_path: Path) -> None:
    options = BACKEND.configure({"fields": ["b", "a", "b"]})
    assert options == {"fields": ["a", "b"], "map_size_mib": 4096}
    assert BACKEND.project(options, {"b": [1], "c": 2}) == {"b": [1]}
    assert BACKEND.project(OPTIONS, {"b": [1], "c": 2}) == {"b": [1], "c": 2}


def test_the_map_is_sparse(path: Path) -> None:
    assert (path / "kv" / "data.mdb").stat().st_blocks * 512 < 1 << 20


def test_writer_and_readers_of_a_process_share_one_environment(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(BACKEND.open_writer(path, OPTIONS)))
        readers = [stack.enter_context(closing(BACKEND.open_reader([place], OPTIONS))) for place in (path, link)]
        assert len(kv_store._open) == 1
        writer.apply([put(1, "t", "a")], 1)
        writer.close()
        writer.close()
        assert [reader.count() for reader in readers] == [1, 1]
        assert BACKEND.check(link, OPTIONS) == []
        readers[0].close()
        readers[0].close()
        assert readers[1].count() == 1
        assert len(kv_store._open) == 1
    assert kv_store._open == {}


def test_environments_are_opened_and_closed_by_many_threads_at_once(path: Path) -> None:
    wrong: list[str] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        try:
            for _ in range(40):
                with closing(BACKEND.open_reader([path], OPTIONS)) as reader:
                    reader.count()
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_shard_created_again_is_another_one_than_that_of_an_old_reader(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(1, "t", "a")], 1)
    with closing(BACKEND.open_reader([path], OPTIONS)) as old:
        BACKEND.create_shard(path, OPTIONS)
        with closing(BACKEND.open_reader([path], OPTIONS)) as new:
            assert (old.count(), new.count()) == (1, 0)


def test_a_snapshot_outlives_its_reader_and_then_releases_the_environment(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, "t", f"id{lsn}") for lsn in range(1, 50)], 50)
    reader = BACKEND.open_reader([path], OPTIONS)
    _, records = reader.shard_snapshot(0)
    reader.close()
    assert len(list(records)) == 49


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), StorageFull),
        (lmdb.Error("mdb_txn_commit: Disk quota exceeded"), StorageFull),
        (lmdb.ReadersFullError("too many"), ResourceExhausted),
        (lmdb.CorruptedError("mdb_get"), CorruptData),
        (lmdb.Error("mdb_env_sync: Input/output error"), CorruptData),
    ],
)
def test_an_error_of_lmdb_becomes_an_error_of_the_library(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        with kv_store.translated("apply", Path("somewhere")):
            raise error


def test_other_options_than_those_of_the_build_are_refused(path: Path) -> None:
    other = BACKEND.configure({"fields": ["title"]})
    with pytest.raises(CorruptData):
        BACKEND.open_reader([path], other)
    larger = BACKEND.configure({"map_size_mib": 65})
    BACKEND.open_reader([path], larger).close()


def test_a_file_that_a_power_cut_truncated_is_an_error_and_does_not_end_the_process(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        for lsn in range(1, 2000, 100):
            writer.apply(
                [put(lsn + number, "t", f"id{lsn + number}", text="x" * 300) for number in range(100)], lsn + 99
            )
    data = path / "kv" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    assert BACKEND.check(path, OPTIONS)
