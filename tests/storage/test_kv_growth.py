"""The map of a `kv` shard grows by itself, beside readers of this and of other processes; and says why it cannot."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import StorageFull
from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.kv.backend import KvBackend
from tests.support.engine_helpers import ROOT

BACKEND = KvBackend()
OPTIONS = BACKEND.configure({"map_size_mib": 1})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    BACKEND.create_shard(tmp_path / "shard", OPTIONS)
    return tmp_path / "shard"


def batch(first: int, last: int, text: str = "x" * 5000) -> list[Item]:
    return [Item(lsn, "t", f"id{lsn}", key_hash("t", f"id{lsn}"), {"text": text}) for lsn in range(first, last + 1)]


@pytest.fixture
def child(path: Path) -> Iterator[Any]:
    """A function that has a line of Python run in another process, which has a reader of the shard open."""
    code = f"""
import sys, resource
from pathlib import Path
from shadowswitch.storage.backends.kv.backend import KvBackend
reader = KvBackend().open_reader([Path({str(path)!r})], {OPTIONS!r})
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(line: str) -> str:
        process.stdin.write(line + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline().strip()  # type: ignore[union-attr]

    yield ask
    process.kill()
    process.communicate()


def test_a_full_map_grows_and_the_batch_is_applied(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer, closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        writer.apply(batch(1, 1), 1)
        assert reader.count() == 1
        assert writer.apply(batch(2, 3000), 3000) == 2999  # 15 MB
        writer.flush()
        assert (reader.count(), reader.applied_lsn()) == (3000, 3000)
        assert reader.get("t", "id3000").lsn == 3000  # type: ignore[union-attr]
    assert BACKEND.check(path, OPTIONS) == []
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:  # opened again with the size of the options
        writer.apply(batch(3001, 6000), 6000)
        assert writer.state().digest.count == 6000
    assert BACKEND.check(path, OPTIONS) == []


def test_a_load_and_a_repair_grow_it_as_well(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.load(batch(1, 500), b"cursor")
        writer.finish_load(500)
        bucket = bucket_of(key_hash("t", "id1"))
        grown = [item for item in batch(1, 20_000, "y" * 5000) if bucket_of(item.key_hash) == bucket]
        writer.repair_bucket(bucket, grown)
        assert writer.state().digest.count > 500


def test_an_open_scan_keeps_it_from_growing_and_is_named(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer, closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        writer.apply(batch(1, 50), 50)
        before = writer.state()
        _, rows = reader.shard_snapshot(0)
        next(rows)
        with pytest.raises(
            StorageFull, match="cannot grow now: a scan or a copy of it is open in this process"
        ) as full:
            writer.apply(batch(51, 1000), 1000)
        assert "end the scans" in full.value.hint
        assert writer.state() == before
        assert reader.count() == 50
        assert len(list(rows)) == 49
        writer.apply(batch(51, 1000), 1000)
        assert reader.count() == 1000
    assert BACKEND.check(path, OPTIONS) == []


def test_it_grows_beside_readers_on_other_threads(path: Path) -> None:
    ended, failed = threading.Event(), []

    def read() -> None:
        with closing(BACKEND.open_reader([path], OPTIONS)) as reader:
            while not ended.is_set():
                try:
                    reader.get("t", "id7")
                    reader.search("id1", 5)
                    assert reader.count() <= reader.applied_lsn()
                except Exception as error:
                    failed.append(error)
                    return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        for first in range(1, 1500, 100):
            writer.apply(batch(first, first + 99), first + 99)
    ended.set()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert BACKEND.check(path, OPTIONS) == []


def test_another_process_goes_on_reading_what_has_grown_beyond_its_map(path: Path, child: Any) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply(batch(1, 50), 50)
        assert child("reader.count()") == "50"
        writer.apply(batch(51, 3000), 3000)
        assert child("reader.count(), reader.get('t', 'id3000').lsn") == "(3000, 3000)"
        assert child("globals().update(snapshot=reader.shard_snapshot(0)[1])") == "None"
        writer.apply(batch(3001, 9000), 9000)
        assert child("reader.count()").startswith("ResourceExhausted")
        assert child("sum(1 for _ in snapshot), reader.count()") == "(3000, 9000)"


def test_without_address_space_it_stays_as_it_is(path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
from shadowswitch import ResourceExhausted
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.kv.backend import KvBackend
backend, path, options = KvBackend(), Path({str(path)!r}), {OPTIONS!r}
writer, reader = backend.open_writer(path, options), backend.open_reader([path], options)
def apply(first):
    last, text = first + 9, {{"text": "x" * 500_000}}
    writer.apply([Item(n, "t", f"id{{n}}", key_hash("t", f"id{{n}}"), text) for n in range(first, last + 1)], last)
used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), resource.RLIM_INFINITY))
refused = 0
for first in range(1, 200, 10):
    try:
        apply(first)
    except ResourceExhausted as error:
        assert "RLIMIT_AS" in error.resource, error
        refused = first
        break
assert refused > 1, refused
assert reader.count() == writer.state().digest.count == refused - 1
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
apply(refused)
assert reader.count() == refused + 9
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
