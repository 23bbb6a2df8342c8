"""Few environments of `kv` shards stay open; the others open again for each transaction, and lose nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import DirectoryLost
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.kv import kept, store
from shadowswitch.storage.backends.kv.backend import KvBackend
from tests.support import inside

BACKEND = KvBackend()
OPTIONS = BACKEND.configure({"map_size_mib": 64})
SHARDS = 40
INDEX_KIB_MAX = 300
MEASURE = """
import sys
from pathlib import Path
from shadowswitch.storage.backends.kv.backend import KvBackend
backend, count, root = KvBackend(), int(sys.argv[1]), Path(sys.argv[2])
options = backend.configure({})

def anonymous_kib():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

held = []
for n in range(count + 1):
    if n == 1:
        before = anonymous_kib()
    path = root / str(n) / "shard-000"
    path.mkdir(parents=True)
    backend.create_shard(path, options)
    writer = backend.open_writer(path, options)
    writer.finish_load(1)
    writer.flush()
    held.append((writer, backend.open_reader([path], options)))
    assert held[-1][1].count() == 0
print((anonymous_kib() - before) / count)
"""


def put(lsn: int, id: str) -> Item:
    return Item(lsn, "t", id, key_hash("t", id), {"n": lsn})


def opened() -> int:
    """The environments of this process that are open."""
    return sum(environment.map.is_open for environment in store._open.values())


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[list[Path]]:
    found = [tmp_path / str(number) / "shard-000" for number in range(SHARDS)]
    for path in found:
        path.parent.mkdir()
        BACKEND.create_shard(path, OPTIONS)
    yield found
    assert (store._open, kept._used) == ({}, {})


def test_few_environments_stay_open_and_all_can_be_written_and_read(paths: list[Path]) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(BACKEND.open_writer(path, OPTIONS))) for path in paths]
        readers = [stack.enter_context(closing(BACKEND.open_reader([path], OPTIONS))) for path in paths]
        for lsn in (1, 2, 3):
            for writer in writers:
                writer.apply([put(lsn, f"id {lsn}")], lsn)
            assert [reader.count() for reader in readers] == [lsn] * SHARDS
            assert opened() <= kept.KEPT_MAX
        assert [writer.flush() for writer in writers] == [3] * SHARDS
    assert [BACKEND.check(path, OPTIONS) for path in paths] == [[]] * SHARDS


def test_a_scan_keeps_its_environment_open(paths: list[Path]) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(BACKEND.open_writer(path, OPTIONS))) for path in paths]
        writers[0].apply([put(n, str(n)) for n in range(1, 50)], 49)
        reader = stack.enter_context(closing(BACKEND.open_reader([paths[0]], OPTIONS)))
        scan = reader.scan()
        first = next(scan)
        for writer in writers:
            writer.apply([put(50, "50")], 50)
        assert len({first.id, *(record.id for record in scan)}) == 49, "as of the moment in which it began"
        assert reader.count() == 50


def test_threads_that_use_many_shards_at_once_lose_nothing(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.KV_KEPT, 1)
    inside.patch_limit(monkeypatch, inside.Limit.KV_KEPT_MAX, 2)
    wrong: list[str] = []
    own = SHARDS // 4

    def work(number: int) -> None:
        chance = random.Random(number)
        lsns = [0] * own
        try:
            with ExitStack() as stack:
                mine = paths[number * own : (number + 1) * own]
                writers = [stack.enter_context(closing(BACKEND.open_writer(path, OPTIONS))) for path in mine]
                others = [stack.enter_context(closing(BACKEND.open_reader([path], OPTIONS))) for path in paths]
                for _ in range(150):
                    n = chance.randrange(own)
                    lsns[n] += 1
                    writers[n].apply([put(lsns[n], str(lsns[n]))], lsns[n])
                    chance.choice(others).count()
                    assert others[number * own + n].count() == lsns[n]
        except BaseException as error:
            wrong.append(repr(error))
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_map_that_grew_is_as_large_when_it_opens_again(paths: list[Path]) -> None:
    small: dict[str, Any] = BACKEND.configure({"map_size_mib": 1})
    with ExitStack() as stack:
        writer = stack.enter_context(closing(BACKEND.open_writer(paths[0], small)))
        big = [Item(n, "t", str(n), key_hash("t", str(n)), {"text": "x" * 50_000}) for n in range(1, 100)]
        writer.apply(big, 100)
        for path in paths[1:]:
            with closing(BACKEND.open_reader([path], OPTIONS)) as other:
                other.count()
            stack.enter_context(closing(BACKEND.open_writer(path, OPTIONS)))
        assert not any(environment.map.is_open for environment in store._open.values() if environment.path == paths[0])
        writer.apply([put(101, "more")], 101)
        assert stack.enter_context(closing(BACKEND.open_reader([paths[0]], small))).count() == 100


def test_another_file_at_the_path_of_a_closed_environment_is_refused(paths: list[Path]) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(BACKEND.open_reader([path], OPTIONS))) for path in paths]
        shutil.move(paths[0], paths[0].with_name("moved"))
        shutil.copytree(paths[1], paths[0])
        with pytest.raises(DirectoryLost):
            readers[0].count()
        with closing(BACKEND.open_reader([paths[0]], OPTIONS)) as reader:
            assert reader.count() == 0


def test_an_open_index_takes_little_memory(tmp_path: Path) -> None:
    count = 200
    run = [sys.executable, "-c", MEASURE, str(count), str(tmp_path)]
    said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=200).stdout
    assert float(said) < INDEX_KIB_MAX, f"{said} KiB for each index"
