"""Opening and closing, other processes, supervision, events, the published path."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest

from shadowswitch import (
    Config,
    Engine,
    EngineClosed,
    Event,
    InternalFailure,
    InvalidConfig,
    Put,
    SwitchRequest,
    UnsupportedFilesystem,
)
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog
from tests.support import inside

Eventually = Callable[[Callable[[], bool]], None]
KIND = "SEARCH_INDEX"


def put(id: str, text: str = "hello") -> Put:
    return Put("object_type", id, {"text": text})


def run_python(script: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


# -- opening ---------------------------------------------------------------------------------------------------------


def test_a_symbolic_link_inside_the_data_directory_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "generations").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsupportedFilesystem, match="symbolic link"):
        Engine.open(tmp_path / "data")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"followers": 0},
        {"followers": 1.5},
        {"soak_s": -1},
        {"seal_budget_ms": float("nan")},
        {"map_size_bytes": 10},
        {"publish_strategy": "MOVE"},
        {"build_share": 2.0},
        {"record_size_max_bytes": 1 << 40},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        Config(**settings)


def test_a_closed_engine_says_so_and_closes_twice(engine: Engine) -> None:
    engine.close()
    engine.close()
    for call in (lambda: engine.write("main", [put("a")]), engine.branches, engine.check, engine.stats):
        with pytest.raises(EngineClosed):
            call()


# -- other processes -------------------------------------------------------------------------------------------------

SEARCH = """
import sys
from pathlib import Path
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage.catalog.environment import Catalog
data = Path(sys.argv[1])
catalog = Catalog(data / "catalog", readonly=True)
with outside_reader(data, catalog, "main", "SEARCH_INDEX") as reader:
    print(reader.generation, [hit.id for hit in reader.search("hello")], flush=True)
    sys.stdin.read()
"""


def test_a_directory_can_be_read_when_no_host_runs(engine: Engine) -> None:
    engine.write("main", [put("a")])
    engine.rebuild("main", KIND, ["object_type"])
    engine.close()
    catalog = Catalog(engine.path / data_directory.CATALOG, readonly=True)
    with outside_reader(engine.path, catalog, "main", KIND) as reader:
        assert [hit.id for hit in reader.search("hello")] == ["a"]
    catalog.close()


# -- supervision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, AssertionError])
def test_an_error_in_a_transaction_fails_its_caller_and_no_other(engine: Engine, error: type[BaseException]) -> None:
    def work(commit: Any) -> None:
        raise error("planted")

    with pytest.raises(InternalFailure, match="planted"):
        inside.transact(engine, work, "test", timeout_s=10)
    assert engine.write("main", [put("a")]).lsn == 1


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_actor_whose_handler_fails_mends_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("planted")

    inside.before(monkeypatch, inside.Step.BRANCH_HEAD, fail)  # the first step of a follower
    inside.kick_followers(engine)
    inside.before(monkeypatch, inside.Step.LIST_GENERATIONS, fail)  # the first step of the janitor
    inside.tick_janitor(engine)
    eventually(lambda: inside.crashes(engine) >= 2)
    monkeypatch.undo()
    assert inside.are_actors_alive(engine)
    engine.write("main", [put("a")])
    assert engine.rebuild("main", KIND, ["object_type"]).success


def test_a_host_that_stops_all_actors_hangs_no_call_and_the_engine_works_again(
    engine: Engine, eventually: Eventually
) -> None:
    engine.write("main", [put("a")])
    engine.rebuild("main", KIND, ["object_type"])
    pykka.ActorRegistry.stop_all()

    def works() -> bool:
        try:
            receipt = engine.write("main", [put("b", "again")], timeout_s=1)
            with engine.reader("main", KIND, min_lsn=receipt.lsn, timeout_s=1) as reader:
                return [hit.id for hit in reader.search("again")] == ["b"]
        except (InternalFailure, EngineClosed, TimeoutError):
            return False

    eventually(works)
    engine.clean_up()


def test_the_actors_of_the_host_live_on(engine: Engine) -> None:
    class Host(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message: object) -> object:
            return message

    host = Host.start()
    try:

        def work(commit: Any) -> None:
            raise SystemExit("planted")

        with pytest.raises(InternalFailure):
            inside.transact(engine, work, "test", timeout_s=10)
        engine.close()
        assert host.ask("still there", timeout=5) == "still there"
    finally:
        host.stop()


def test_messages_to_a_stopped_actor_are_answered(engine: Engine) -> None:
    inside.stop_janitor(engine)
    with pytest.raises(InternalFailure):
        inside.sweep(engine, 5)
    assert inside.journal_head(engine, 1, 5) == 0


# -- events ----------------------------------------------------------------------------------------------------------


def test_every_transition_is_an_event_and_subscribers_get_them_in_order(engine: Engine, eventually: Eventually) -> None:
    got: list[Event] = []
    failed = threading.Event()

    def callback(event: Event) -> None:
        if event.sequence == 2 and not failed.is_set():
            failed.set()
            raise RuntimeError("not now")  # the subscriber gets the same event again
        got.append(event)

    end = engine.subscribe(callback, after=0)
    engine.write("main", [put("a")])
    engine.rebuild("main", KIND, ["object_type"])
    engine.rollback  # noqa: B018  nothing to go back to yet: no event
    names = [event.type.removeprefix("com.shadowswitch.") for event in engine.events()]
    story = [
        "build.claimed",
        "build.started",
        "build.completed",
        "switch.started",
        "switch.committed",
        "switch.finished",
    ]
    assert names == ["branch.created", *story]
    eventually(lambda: [event.sequence for event in got] == [1, 2, 3, 4, 5, 6, 7])
    assert failed.is_set()
    assert len({event.id for event in got}) == 7
    assert engine.events(after=3)[0].sequence == 4
    end()


# -- the published path ----------------------------------------------------------------------------------------------


def test_the_published_path_is_never_absent_or_torn_through_many_switches(engine: Engine) -> None:
    engine.write("main", [put(str(n)) for n in range(20)])
    engine.rebuild("main", KIND, ["object_type"])
    engine.rebuild("main", KIND, ["object_type"])
    path = engine.path / "published" / "main" / KIND
    stop = threading.Event()
    failures: list[str] = []
    opened: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                manifest = (path / "manifest.json").read_text()
                opened.append(manifest)
            except OSError as error:
                failures.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(24):
            strategy = "COPY_AND_REPLACE" if number % 3 == 2 else "ATOMIC_RENAME"
            request = SwitchRequest(strategy=strategy, validation_checks=("DIGEST",))
            result = engine.rollback("main", KIND, request)
            assert result.success, result.message
            manifest = (path / "manifest.json").read_text()
            assert f'"generation": {result.generation},' in manifest
            assert path.is_symlink() == (strategy == "ATOMIC_RENAME")
    finally:
        stop.set()
        reader.join()
    assert failures == []
    assert all(manifest.endswith("}") for manifest in opened)


def test_an_outdated_published_path_is_repaired_at_the_next_start(engine: Engine, open_engine: Any) -> None:
    engine.write("main", [put("a")])
    engine.rebuild("main", KIND, ["object_type"])
    second = engine.rebuild("main", KIND, ["object_type"])
    path = engine.path / "published" / "main" / KIND
    engine.close()
    path.unlink()
    path.symlink_to("../../generations/main/SEARCH_INDEX/00000001")  # as before the second switch
    again = open_engine()
    assert os.path.realpath(path) == again.index("main", KIND).path == second.new_index_path
