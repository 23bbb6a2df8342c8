"""Files that are shorter than they say: refused where they are opened, with a reason, and no process dies of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from shadowswitch import CorruptData, Engine
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage import cut_file
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.fsck.tasks import check_all
from tests.support.engine_helpers import KIND, TYPES, built, fill, live, outside_environment, put

Open = Callable[..., Engine]
COMMAND = "import sys; from shadowswitch.service.cli.app import main; sys.exit(main())"


def cut(file: Path, share: float = 2 / 3) -> None:
    """Keep only the beginning of a file."""
    os.truncate(file, int(file.stat().st_size * share))


def shard_file(data: Path, name: str) -> Path:
    """The file of the one shard of the newest generation."""
    return sorted(data.glob(f"generations/main/{KIND}/*/shard-000/{name}"))[-1]


@pytest.fixture
def left(open_engine: Open, data_dir: Path) -> Callable[[str], Path]:
    """Makes a closed data directory with an index of 2,000 records."""

    def leave(backend: str) -> Path:
        engine = open_engine(sound=False)
        engine.create_branch("main")
        fill(engine, 2000)
        live(engine, backend=backend, shards=1)
        engine.close()
        return data_dir

    return leave


@pytest.mark.parametrize("share", [2 / 3, 0.9, 0.05])
def test_a_catalog_that_is_cut_off_is_refused_by_host_and_commands(left: Callable[[str], Path], share: float) -> None:
    data = left("fts5")
    cut(data / "catalog" / "data.mdb", share)
    size = (data / "catalog" / "data.mdb").stat().st_size
    with pytest.raises(CorruptData, match="is cut off") as caught:
        Engine.open(data)
    assert "backup" in caught.value.hint
    for command in (["status"], ["check"], ["search", "main", "hello"], ["events"]):
        words = [sys.executable, "-c", COMMAND, *command, "--data", str(data)]
        done = subprocess.run(words, capture_output=True, text=True, env=outside_environment(), timeout=120)
        assert done.returncode in (1, 2), (command, done)
        assert "is cut off" in done.stdout + done.stderr, (command, done)
    assert (data / "catalog" / "data.mdb").stat().st_size == size, "what was refused was left as it is"


@pytest.mark.parametrize("share", [2 / 3, 0.9])
@pytest.mark.parametrize(("backend", "name"), [("kv", "kv/data.mdb"), ("fts5", "shard.sqlite")])
def test_a_live_index_that_is_cut_off_is_not_served_until_it_is_rebuilt(
    left: Callable[[str], Path], open_engine: Open, backend: str, name: str, share: float
) -> None:
    data = left(backend)
    cut(shard_file(data, name), share)
    for _ in range(2):  # the reason does not go away by looking at it
        engine = open_engine(sound=False)
        with pytest.raises(CorruptData, match="is cut off"):
            engine.reader("main", KIND)
        assert any("is cut off" in finding.problem for finding in engine.check())
        assert engine.write("main", [put("new")]).lsn
        engine.close()
    again = open_engine()
    assert again.rebuild("main", KIND, TYPES, {"backend": backend}).success
    with again.reader("main", KIND) as reader:
        assert reader.count() == 2001


@pytest.mark.parametrize(("backend", "name"), [("kv", "kv/data.mdb"), ("fts5", "shard.sqlite")])
def test_a_waiting_shadow_that_is_cut_off_is_given_up(
    open_engine: Open, data_dir: Path, backend: str, name: str
) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 2000)
    shadow = built(engine, backend=backend, shards=1)
    engine.close()
    cut(shard_file(data_dir, name))
    again = open_engine()
    failed = again.shadow(shadow.shadow_index_id)
    assert failed.state == "FAILED"
    assert "is cut off" in str(failed.error) or "malformed" in str(failed.error), "SQLite finds the plain case itself"


def test_pages_that_only_the_log_has_are_not_missing(tmp_path: Path) -> None:
    """A host that was killed before its log was copied into the file."""
    backend = registry.backend("fts5")
    options = backend.configure({})
    backend.create_shard(tmp_path / "shard", options)
    writer = backend.open_writer(tmp_path / "shard", options)
    fields = {"text": "many words " * 50}
    writer.load([Item(n, "t", str(n), key_hash("t", str(n)), fields) for n in range(1, 1000)], b"")
    left = shutil.copytree(tmp_path / "shard", tmp_path / "left")
    writer.close()
    assert (left / "shard.sqlite").stat().st_size < (left / "shard.sqlite-wal").stat().st_size, "the case that is meant"
    with contextlib.closing(backend.open_writer(left, options)) as again:
        assert again.state().digest.count == 999


def test_a_file_that_ends_before_a_free_page_is_whole(tmp_path: Path) -> None:
    """LMDB never writes a page that was taken and freed in one transaction."""
    with lmdb.open(str(tmp_path), map_size=1 << 30, lib_version=0) as env:
        for size, count in ((100, 5000), (100, 5000), (100_000, 50)):
            with env.begin(write=True) as txn:
                for number in range(count):
                    txn.put(b"%06d" % number, bytes(size))
                for number in range(count):
                    txn.delete(b"%06d" % number)
        size_bytes, last_page = (tmp_path / "data.mdb").stat().st_size, env.info()["last_pgno"]
        assert size_bytes < (last_page + 1) * env.stat()["psize"], "the case that is meant"
        cut_file.refuse_cut(tmp_path / "data.mdb")
        with env.begin(write=True) as txn:
            txn.put(b"a", b"b")
        cut_file.refuse_cut(tmp_path / "data.mdb")


def test_a_catalog_that_ends_before_a_free_page_opens(open_engine: Open) -> None:
    engine = open_engine()
    engine.create_branch("main")
    texts = [put(str(number), "x" * 500_000) for number in range(20)]
    for _ in range(3):
        engine.write("main", texts)
        engine.write("main", texts)
    engine.close()
    assert open_engine().get("main", "object_type", "7") is not None


def test_a_closed_file_that_is_cut_off_is_refused_when_the_generation_is_opened(
    left: Callable[[str], Path], open_engine: Open
) -> None:
    """A backend of a user may have files that never change after the build."""
    data = left("kv")
    extra = shard_file(data, "kv").with_name("extra.bin")
    extra.write_bytes(b"0123456789")
    manifest = extra.parents[1] / "manifest.json"
    stored = json.loads(manifest.read_bytes())
    stored["built"]["files"] = {"shard-000/extra.bin": {"size_bytes": 10, "blake2b": ""}}
    manifest.write_text(json.dumps(stored))
    cut(extra)
    engine = open_engine(sound=False)
    with pytest.raises(CorruptData, match=r"extra\.bin is cut off"):
        engine.reader("main", KIND)


def test_one_id_that_is_not_utf8_is_a_finding_and_does_not_end_the_check(
    left: Callable[[str], Path], open_engine: Open
) -> None:
    data = left("fts5")
    spoiled = 0
    with lmdb.open(str(data / "catalog"), max_dbs=20, map_size=64 << 30, lib_version=0) as env:
        records = env.open_db(b"records")
        with env.begin(write=True, db=records) as txn:
            for key, value in list(txn.cursor()):
                lsn, id, fields = keys.split_record(key, value)
                if id == "777":
                    spoilt = b"\xff77"
                    body = keys.body_checksum(spoilt, bytes(fields))
                    txn.put(key, keys.record_value(key, lsn, spoilt, bytes(fields), body))
                    spoiled += 1
    assert spoiled == 1
    engine = open_engine(sound=False)
    findings = engine.check()
    assert any("its id is no text" in finding.problem for finding in findings)
    assert not any("not whole" in finding.problem for finding in findings), "the index is not to blame"
    with pytest.raises(CorruptData, match="its id is no text"):
        list(engine.scan("main"))


@pytest.mark.parametrize("database", ["types", "branches", "shadows", "generations", "indexes", "outbox", "audit"])
def test_a_row_that_does_not_decode_is_a_finding_and_does_not_end_the_check(
    left: Callable[[str], Path], database: str
) -> None:
    data = left("fts5")
    with lmdb.open(str(data / "catalog"), max_dbs=20, map_size=64 << 30, lib_version=0) as env:
        opened = env.open_db(database.encode())
        with env.begin(write=True, db=opened) as txn:
            first = next(iter(txn.cursor()))[0]
            txn.put(first, b"\xff\xfe")
    with contextlib.closing(Catalog(data / "catalog", readonly=True)) as catalog:
        findings = check_all(catalog, data)
    assert any("does not decode" in finding.problem for finding in findings)
