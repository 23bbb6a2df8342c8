"""Writes: an acknowledged write is on disk, a batch is all or nothing, writers share commits, limits are errors."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import (
    CorruptData,
    Delete,
    Engine,
    EngineClosed,
    InvalidChange,
    InvalidConfig,
    InvalidName,
    Put,
    StorageFull,
    Timeout,
)
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import crew, fill, live, outside_environment, put, wait_until

CATALOG_READER = """
import sys
from pathlib import Path
from shadowswitch.storage import data_directory as layout
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import get_record

catalog = Catalog(Path(sys.argv[1]) / layout.CATALOG, readonly=True)
number = catalog.branch("main").number
for line in sys.stdin:
    record = get_record(catalog, number, "object_type", line.strip().encode())
    print(record.lsn if record else 0, flush=True)
"""


class CatalogReader:
    """Another process, which reads records from the catalog itself."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CATALOG_READER, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=outside_environment(),
        )

    def lsn_of(self, id: str) -> int:
        """The LSN of a record, 0 if there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{id}\n")
        return int(self.process.stdout.readline())

    def end(self) -> None:
        """Let it end."""
        self.process.communicate(timeout=60)


def test_an_acknowledged_write_is_visible_to_another_process_at_once(engine: Engine) -> None:
    reader = CatalogReader(engine.path)
    for n in range(100):
        receipt = engine.write("main", [put(f"a{n}")])
        assert reader.lsn_of(f"a{n}") == receipt.lsn
        receipt = engine.write("main", [Delete("object_type", f"a{n}"), put("counter", str(n))])
        assert (reader.lsn_of(f"a{n}"), reader.lsn_of("counter")) == (0, receipt.lsn)
    reader.end()


def test_a_write_is_not_acknowledged_before_its_commit(engine: Engine) -> None:
    failpoints.plan_points("journal.before_commit=sleep:1.0@1")
    acked = threading.Event()

    def write() -> None:
        engine.write("main", [put("a")])
        acked.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not acked.wait(0.01):
        assert engine.get("main", "object_type", "a") is None or acked.wait(30), "visible, and not acknowledged"
    thread.join()
    assert engine.get("main", "object_type", "a") is not None


def test_a_batch_is_seen_whole_or_not_at_all(engine: Engine) -> None:
    engine.write("main", [put(str(n), "0") for n in range(200)])
    torn: list[int] = []
    rounds = iter(range(1, 1_000_000))

    def write() -> None:
        text = str(next(rounds))
        engine.write("main", [put(str(n), text) for n in range(200)])

    def read() -> None:
        changes = engine.changes("main", after=max(0, engine.head("main") - 150), limit=1000)
        last = changes[-1].lsn if changes else 200
        if last % 200:
            torn.append(last)

    with crew() as hands:
        hands.start(write)
        hands.start(read, 2)
        wait_until(lambda: next(rounds) > 100)
    assert torn == []


def test_many_threads_share_commits_and_their_fsyncs(engine: Engine) -> None:
    failpoints.plan_points("journal.before_commit=sleep:0.005")
    before = engine.stats()["counters"]["commits"]
    threads = [
        threading.Thread(target=lambda k=k: [engine.write("main", [put(f"{k}-{n}")]) for n in range(20)])
        for k in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert engine.count("main") == 400
    assert engine.stats()["counters"]["commits"] - before < 200


def test_the_guilty_write_of_a_shared_commit_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(ordinary: Any, commit: Any, branch: int, batch: Any) -> Any:
        if any(change.id == b"guilty" for change in batch.changes):
            raise ValueError("guilty")
        return ordinary(commit, branch, batch)

    inside.wrap(monkeypatch, inside.Step.TRANSACTION_WRITE, write)
    failpoints.plan_points("journal.before_commit=sleep:0.2@1")
    outcomes: dict[str, object] = {}

    def one(id: str) -> None:
        try:
            outcomes[id] = engine.write("main", [put(id)]).lsn
        except Exception as error:
            outcomes[id] = type(error).__name__

    threads = [threading.Thread(target=one, args=(id,)) for id in ["first", *"abcdefgh", "guilty"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes.pop("guilty") == "InternalFailure"
    assert sorted(int(str(lsn)) for lsn in outcomes.values()) == list(range(1, 10))
    assert engine.get("main", "object_type", "guilty") is None


def test_the_writes_of_one_thread_come_in_its_order(engine: Engine) -> None:
    orders: dict[int, list[int]] = {}

    def write(number: int) -> None:
        orders[number] = [engine.write("main", [put(f"{number}"), put(f"{number}-{n}")]).lsn for n in range(30)]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, lsns in orders.items():
        assert lsns == sorted(lsns)
        changes = [c.lsn for c in engine.changes("main", limit=10_000) if c.id.startswith(f"{number}-")]
        assert changes == lsns


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [100, 5000, 1 << 20])
def test_a_record_of_the_largest_size_is_stored_and_one_byte_more_is_refused(open_engine: Any, size_bytes: int) -> None:
    engine = open_engine(record_size_max_bytes=size_bytes)
    engine.create_branch("main")
    empty = len(msgspec.msgpack.encode({"text": "x" * (size_bytes - 15)})) - (size_bytes - 15)
    largest = "x" * (size_bytes - empty)
    engine.write("main", [Put("object_type", "a", {"text": largest})])
    with pytest.raises(InvalidChange, match=f"more than {size_bytes}"):
        engine.write("main", [Put("object_type", "a", {"text": largest + "x"})])
    record = engine.get("main", "object_type", "a")
    assert record is not None
    assert record.fields == {"text": largest}
    live(engine)


def test_a_batch_larger_than_the_limit_is_refused_whole(open_engine: Any) -> None:
    engine = open_engine(batch_size_max_bytes=1 << 20, batch_changes_max=50)
    engine.create_branch("main")
    with pytest.raises(InvalidChange, match="split"):
        engine.write("main", [Put("object_type", str(n), {"text": "x" * 300_000}) for n in range(4)])
    with pytest.raises(InvalidChange, match="split"):
        engine.write("main", [put(str(n)) for n in range(51)])
    assert engine.head("main") == 0
    assert engine.write("main", [put(str(n)) for n in range(50)]).count == 50


def test_a_writer_waits_for_room_in_the_queue_and_gives_up_at_its_deadline(open_engine: Any) -> None:
    engine = open_engine(queue_changes_max=10)
    engine.create_branch("main")
    failpoints.plan_points("journal.before_commit=sleep:1.0@1")
    first = threading.Thread(target=lambda: engine.write("main", [put(f"a{n}") for n in range(10)]))
    first.start()
    wait_until(lambda: engine.stats()["queued_changes"] == 10)
    with pytest.raises(Timeout, match="nothing of this batch was written"):
        engine.write("main", [put("b")], timeout_s=0.05)
    engine.write("main", [put("c")])  # waits until there is room
    first.join()
    assert engine.get("main", "object_type", "b") is None
    assert engine.count("main") == 11
    assert engine.stats()["queued_changes"] == 0


def test_a_batch_larger_than_the_queue_is_written_when_the_queue_is_empty(open_engine: Any) -> None:
    engine = open_engine(queue_changes_max=10)
    engine.create_branch("main")

    def write() -> None:
        fill(engine, 5)

    with crew() as hands:
        hands.start(write, 3)
        assert engine.write("main", [put(f"a{n}") for n in range(100)], timeout_s=60).count == 100
    assert engine.count("main") == 105


def test_a_full_map_refuses_the_write_and_everything_before_it_is_kept(open_engine: Any) -> None:
    engine = open_engine(map_size_bytes=2 << 20)
    engine.create_branch("main")
    written = 0

    def write_on() -> None:
        nonlocal written
        for _ in range(1000):
            engine.write("main", [Put("object_type", f"a{written}", {"text": "x" * 20_000})])
            written += 1

    with pytest.raises(StorageFull, match="full"):
        write_on()
    assert engine.count("main") == written
    for _ in range(3):
        with pytest.raises(StorageFull):
            engine.write("main", [Put("object_type", "more", {"text": "x" * 100_000})])
    engine.close()
    larger = open_engine(map_size_bytes=64 << 20)
    assert larger.count("main") == written
    larger.write("main", [Put("object_type", "more", {"text": "x" * 100_000})])


# -- refusals --------------------------------------------------------------------------------------------------------


def test_deeply_nested_fields_are_stored_up_to_a_limit_and_refused_beyond(engine: Engine) -> None:
    def nested(depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"leaf": [1, 2.5, None, True, "x"]}
        for _ in range(depth):
            fields = {"in": fields}
        return fields

    engine.write("main", [Put("object_type", "a", nested(60))])
    record = engine.get("main", "object_type", "a")
    assert record is not None
    assert record.fields == nested(60)
    for depth in (64, 100_000):
        with pytest.raises(InvalidChange, match="nested deeper"):
            engine.write("main", [Put("object_type", "a", nested(depth))])
    live(engine)


def test_a_record_that_holds_itself_is_refused(engine: Engine) -> None:
    fields: dict[str, Any] = {}
    fields["me"] = fields
    with pytest.raises(InvalidChange):
        engine.write("main", [Put("object_type", "a", fields)])


def kind(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", [(1, 2), b"bytes", {1, 2}, object(), 1j, float("inf"), -(1 << 64)], ids=kind)
def test_values_that_json_cannot_carry_are_refused(engine: Engine, value: Any) -> None:
    with pytest.raises(InvalidChange):
        engine.write("main", [put("before"), Put("object_type", "a", {"deep": {"er": [value]}})])
    assert engine.head("main") == 0


def test_a_change_instead_of_a_list_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidChange, match="list"):
        engine.write("main", put("a"))  # type: ignore[arg-type]


def test_every_kind_of_json_value_comes_back_as_it_was(engine: Engine) -> None:
    fields = {
        "": "empty key", "text": "한글 🦊 \n\t\"", "int": -(1 << 63), "big": (1 << 64) - 1, "float": 1e-300, "no": None,
        "yes": True, "list": [[], {}, [None]], "nul\0": "\0", "long": "x" * 70_000,
    }  # fmt: skip
    engine.write("main", [Put("object_type", "a", fields)])
    record = engine.get("main", "object_type", "a")
    assert record is not None
    assert record.fields == fields
    assert engine.changes("main")[0].fields == fields
    live(engine)


def test_names_that_cannot_be_used_are_refused_when_reading_as_well(engine: Engine) -> None:
    with pytest.raises(InvalidName):
        engine.get("main", "object_type", "")
    with pytest.raises(InvalidName):
        engine.count("main", "")
    with pytest.raises(InvalidConfig):
        engine.changes("main", after=-1)
    with pytest.raises(InvalidConfig):
        engine.changes("main", limit=0)


def test_a_closed_engine_refuses_writes_and_an_open_scan_ends(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 2000)
    records = engine.scan("main")
    next(records)
    engine.close()
    with pytest.raises(EngineClosed):
        engine.write("main", [put("a")])
    with pytest.raises(EngineClosed):
        list(records)


def test_an_io_error_ends_all_writing(engine: Engine) -> None:
    """A full disk is no such error; tests/crash/test_io_errors.py tests it on a real one."""
    engine.write("main", [put("before")])
    failpoints.plan_points("journal.before_commit=raise:EIO@1")
    with pytest.raises(CorruptData):
        engine.write("main", [put("refused")])
    failpoints.plan_points("")
    assert engine.get("main", "object_type", "refused") is None
    with pytest.raises(CorruptData, match="close and open the engine again"):
        engine.write("main", [put("after")])
