"""Readers: pins of this and other processes, own writes are visible, no reader goes back in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Engine, EngineClosed, InvalidConfig, Put, SwitchRequest, Timeout, UnknownIndex
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, crew, fill, found, live, outside_environment, put, wait_until

OUTSIDE_READER = """
import sys
from pathlib import Path
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import data_directory as layout
from shadowswitch.storage.catalog.environment import Catalog

data = Path(sys.argv[1])
catalog = Catalog(data / layout.CATALOG, readonly=True)
with outside_reader(data, catalog, "main", "SEARCH_INDEX") as reader:
    print("pinned", reader.generation, flush=True)
    for line in sys.stdin:
        print(*sorted(hit.id for hit in reader.search(line.strip(), limit=50)), flush=True)
"""


class OutsideReader:
    """A process that holds a reader of the live generation, beside the running engine."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OUTSIDE_READER, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=outside_environment(),
        )
        said = self._line().split()
        assert said[:1] == ["pinned"]
        self.generation = int(said[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def search(self, query: str) -> set[str]:
        """The ids of the hits."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{query}\n")
        self.process.stdin.flush()
        return set(self._line().split())

    def end(self) -> None:
        """Let the process close its reader and end."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def superseded(engine: Engine) -> None:
    """Switch twice, so that the generation that was live before is not the previous one."""
    live(engine)
    live(engine)


@pytest.mark.parametrize("ending", ["end", "kill"])
def test_a_reader_in_another_process_keeps_its_generation_until_it_ends_or_is_killed(
    filled: Engine, ending: str
) -> None:
    live(filled)
    path = filled.index("main", KIND).path
    outside = OutsideReader(filled.path)
    assert outside.generation == filled.index("main", KIND).generation
    superseded(filled)
    for _ in range(3):
        filled.clean_up()
    assert os.path.exists(path), "SW-5: another process has pinned it"
    assert outside.search("word7") == {"7"}
    getattr(outside, ending)()
    wait_until(lambda: not os.path.exists(path))


def test_a_reader_in_another_process_sees_later_writes(filled: Engine) -> None:
    live(filled)
    outside = OutsideReader(filled.path)
    receipt = filled.write("main", [put("0", "changed"), Delete("object_type", "1")])
    assert found(filled, "changed", min_lsn=receipt.lsn) == {"0"}
    assert outside.search("changed") == {"0"}
    assert outside.search("word1") == set()
    outside.end()


def test_an_unpinned_superseded_generation_is_removed_and_forgotten(filled: Engine) -> None:
    live(filled)
    first = filled.index("main", KIND)
    superseded(filled)
    wait_until(lambda: not os.path.exists(first.path))
    wait_until(lambda: inside.catalog(filled).generation(first.generation) is None)
    assert str(filled.shadow(first.shadow_index_id).state) == "CLEANUP"
    assert filled.stats()["generations_open"] == 2


def test_many_readers_share_one_generation_and_the_last_one_lets_it_go(filled: Engine) -> None:
    live(filled)
    path = filled.index("main", KIND).path
    readers = [filled.reader("main", KIND) for _ in range(20)]
    assert filled.stats()["pins"] == 20
    superseded(filled)
    for reader in readers:
        filled.clean_up()
        assert os.path.exists(path)
        assert [hit.id for hit in reader.search("word7")] == ["7"]
        reader.close()
    wait_until(lambda: not os.path.exists(path))
    assert filled.stats()["pins"] == 0


def test_readers_see_every_own_write_at_once_without_a_refresh(open_engine: Any) -> None:
    engine = open_engine(refresh_interval_ms=600_000)
    engine.create_branch("main")
    live(engine, shards=3)
    for n in range(60):
        receipt = engine.write("main", [put("a", f"edit{n}"), put(f"b{n % 7}", f"other{n}")])
        with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
            assert reader.lsn >= receipt.lsn
            held = reader.get("object_type", "a")
            assert held is not None
            assert held.lsn == receipt.lsn - 1
    receipt = engine.write("main", [Delete("object_type", "a")])
    with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert reader.get("object_type", "a") is None
        assert reader.search("edit59") == []


def test_a_reader_that_waits_in_vain_gets_a_timeout_and_leaves_no_pin(engine: Engine) -> None:
    fill(engine, 10)
    live(engine)
    with inside.pause_apply(engine, engine.index("main", KIND).generation):
        receipt = engine.write("main", [put("a")])
        with pytest.raises(Timeout, match=str(receipt.lsn)):
            engine.reader("main", KIND, min_lsn=receipt.lsn, timeout_s=0.05)
        assert engine.stats()["pins"] == 0
        assert len(found(engine, "hello")) == 10, "without min_lsn a reader does not wait"
    assert "a" in found(engine, "hello", min_lsn=receipt.lsn)


def test_a_reader_waits_for_a_durable_head_that_memory_does_not_have_yet(engine: Engine) -> None:
    fill(engine, 10)
    live(engine)
    before = engine.head("main")
    failpoints.plan_points("journal.committed=sleep:0.5")  # durable, and not yet acknowledged
    with crew() as hands:
        hands.start(lambda: engine.write("main", [put("late", "late")]))
        wait_until(lambda: engine.head("main") > before)
        assert found(engine, "late", min_lsn=engine.head("main"), timeout_s=30) == {"late"}


def test_min_lsn_of_another_branch_is_refused_rather_than_waited_for(engine: Engine) -> None:
    engine.create_branch("other")
    fill(engine, 10)
    live(engine)
    receipt = engine.write("other", [put("a")])
    with pytest.raises(InvalidConfig, match="beyond the head"):
        engine.reader("main", KIND, min_lsn=receipt.lsn)
    assert engine.stats()["pins"] == 0


def test_an_unknown_index_type_has_no_reader(filled: Engine) -> None:
    live(filled)
    with pytest.raises(UnknownIndex):
        filled.reader("main", "GRAPH_INDEX")


def test_after_a_restart_a_reader_waits_for_the_head_as_it_was(open_engine: Any) -> None:
    first = open_engine(refresh_interval_ms=600_000)
    first.create_branch("main")
    fill(first, 100)
    live(first)
    for n in range(40):
        receipt = first.write("main", [put("a", f"edit{n}")])
    first.close()
    second = open_engine(refresh_interval_ms=600_000)
    with second.reader("main", KIND) as reader:
        assert reader.lsn >= receipt.lsn, "SW-2: the reader has an older state than before the restart"
        held = reader.get("object_type", "a")
        assert held is not None
        assert held.lsn == receipt.lsn


def test_an_open_reader_goes_forward_over_switches_and_never_back(filled: Engine) -> None:
    live(filled)
    lsns: list[int] = []
    seen: list[int] = []

    def read() -> None:
        with filled.reader("main", KIND) as reader:
            held = reader.get("object_type", "0")
            assert held is not None
            lsns.append(reader.lsn)
            seen.append(held.lsn)

    def write() -> None:
        filled.write("main", [put("0", "again")])

    with crew() as hands:
        hands.start(read)
        hands.start(write)
        for number in range(3):
            live(filled, tokenizer=["porter", "unicode61", "ascii"][number], shards=number + 1)
            assert filled.rollback("main", KIND).success
    assert lsns == sorted(lsns), "SW-2"
    assert seen == sorted(seen), "SW-2"
    assert len(set(seen)) > 5


def test_two_threads_may_read_while_a_third_opens_and_closes_readers(filled: Engine) -> None:
    live(filled, shards=2)
    counted: list[int] = []
    with crew() as hands:
        hands.start(lambda: counted.append(len(found(filled, "hello"))), 3)
        wait_until(lambda: len(counted) > 100)
    assert set(counted) == {1000}


def test_a_reader_that_is_never_closed_does_not_keep_the_engine_from_closing(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    reader = engine.reader("main", KIND)
    engine.close()
    reader.close()
    again = open_engine()
    assert len(found(again, "hello")) == 10


@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_readers_that_are_open_when_the_engine_closes_hold_nothing_and_say_so(open_engine: Any, backend: str) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 10)
    live(engine, backend=backend)
    reader = engine.reader("main", KIND)
    scan = reader.scan()
    next(scan)
    engine.close()
    assert index_files_open(engine.path) == []
    calls: list[Callable[[], object]] = [
        lambda: reader.search("hello"),
        lambda: reader.get("object_type", "1"),
        reader.count,
        reader.applied_lsn,
        reader.scan,
        lambda: next(scan),
    ]
    for call in calls:
        with pytest.raises(EngineClosed, match="the engine is closed"):
            call()
    reader.close()


def index_files_open(data: Path) -> list[str]:
    """The files of generations that this process holds open or has mapped."""
    held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_link(name)]
    held += Path("/proc/self/maps").read_text().splitlines()
    return [name for name in held if f"{data}/generations" in name]


def _is_link(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_the_engine_closes_behind_the_search_that_runs(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    reader = engine.reader("main", KIND)
    begun, go_on = threading.Event(), threading.Event()
    found: list[object] = []

    def hold() -> None:
        begun.set()
        assert go_on.wait(30)

    inside.before_search(monkeypatch, reader, hold)
    searching = threading.Thread(target=lambda: found.append(len(reader.search("hello"))))
    closing = threading.Thread(target=engine.close)
    searching.start()
    assert begun.wait(30)
    closing.start()
    wait_until(lambda: inside.is_closing(engine))
    go_on.set()
    searching.join(30)
    closing.join(30)
    assert found == [10]
    with pytest.raises(EngineClosed):
        reader.count()


def test_records_that_an_index_does_not_cover_are_not_found_in_it(engine: Engine) -> None:
    engine.write("main", [put("a"), Put("link_type", "l", {"text": "hello"})])
    live(engine)
    with engine.reader("main", KIND) as reader:
        assert {hit.resource_type for hit in reader.search("hello")} == {"object_type"}
        assert reader.get("link_type", "l") is None
        assert reader.count() == 1
        assert reader.applied_lsn() == 2


def test_a_batch_is_seen_whole_or_not_at_all_in_an_index_of_one_shard(engine: Engine) -> None:
    engine.write("main", [put(str(n), "round0") for n in range(50)])
    live(engine, shards=1)
    torn: list[dict[str, int]] = []
    rounds = iter(range(1, 1_000_000))

    def read() -> None:
        with engine.reader("main", KIND) as reader:
            counts: dict[str, int] = {}
            for record in reader.scan():
                word = record.fields["text"].split()[0]
                counts[word] = counts.get(word, 0) + 1
        if len(counts) > 1:
            torn.append(counts)

    def write() -> None:
        round_ = next(rounds)
        engine.write("main", [put(str(n), f"round{round_}") for n in range(50)])

    with crew() as hands:
        hands.start(read, 2)
        hands.start(write)
        wait_until(lambda: next(rounds) > 60)
    assert torn == []


def test_searches_go_on_while_old_generations_are_removed_under_them(open_engine: Any) -> None:
    engine = open_engine(soak_s=0, janitor_interval_s=0.02)
    engine.create_branch("main")
    fill(engine, 200)
    live(engine)

    def read() -> None:
        assert found(engine, "word7") == {"7"}

    with crew() as hands:
        hands.start(read, 2)
        for _ in range(5):
            engine.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, SwitchRequest(backup_current=False))
        wait_until(lambda: engine.stats()["counters"].get("generations_removed", 0) >= 3)
