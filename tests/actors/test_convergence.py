"""Writers that are faster than the catch-up; builds that pause on a full disk; copies on another file system."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shadowswitch import BuildFailed, Engine, NotConverging, Put, ShadowState, StorageFull, SwitchRequest
from shadowswitch.storage import failpoints
from tests.support import inside

Eventually = Callable[[Callable[[], bool]], None]
KIND = "SEARCH_INDEX"


@pytest.fixture(autouse=True)
def _no_points_left() -> Iterator[None]:
    yield
    failpoints.plan_points("")


class Flood:
    """Writers without a pause: each edits the same records again and again."""

    writers, batch = 2, 300

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(n,)) for n in range(self.writers)]

    def _write(self, number: int) -> None:
        n = 0
        while not self.stop.is_set():
            n += 1
            self.engine.write("main", [self.change(number, n, m) for m in range(self.batch)])

    def change(self, writer: int, n: int, place: int) -> Put:
        return Put("object_type", f"{writer}-{n % 50}-{place}", {"text": f"e{n}"})

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=30)


def test_a_build_that_cannot_keep_up_slows_writers_a_little_and_then_says_so(open_engine: Any) -> None:
    engine = open_engine(catchup_rounds_max=6, catchup_residual_changes=10, builds_max=1)
    for branch in ("main", "other"):
        engine.create_branch(branch)
        engine.write(branch, [Put("object_type", "a", {"text": "x"})])
    failpoints.plan_points("follow.applied=sleep:0.15")  # slows the catch-up of the host; workers are at full speed
    with Flood(engine):
        shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
        waiting = engine.start_build("other", KIND, ["object_type"], {"parallel_workers": 1})
        with pytest.raises(NotConverging, match="NOT_CONVERGING") as caught:
            engine.wait_for(shadow.shadow_index_id, timeout_s=100)
    failpoints.plan_points("")
    failed_at = next(event.time for event in engine.events() if event.type.endswith("build.failed"))
    begun_at = engine.wait_for(waiting.shadow_index_id, timeout_s=60).started_at
    assert begun_at is not None
    assert begun_at < failed_at, "it has given its place to the next one"
    assert re.search(r" \d+ changes a second still come in, \d+ a second are replayed", str(caught.value))
    assert engine.stats()["counters"]["writes_slowed"] > 0
    assert inside.write_delays(engine) == {}
    engine.retry_build(shadow.shadow_index_id)  # the writers have stopped
    engine.wait_for(shadow.shadow_index_id, timeout_s=60)
    assert engine.switch(shadow.shadow_index_id).success


class Import(Flood):
    """Writers that add record after record, a page of text each."""

    writers, batch = 3, 50
    letters = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyz ", k=100_000))

    def change(self, writer: int, n: int, place: int) -> Put:
        return Put("object_type", f"{writer}-{n}-{place}", {"text": self.letters[place * 1900 :][:1600]})


@pytest.mark.slow
def test_writers_that_are_too_fast_for_a_tokenizer_end_its_build_and_are_not_refused(open_engine: Any) -> None:
    """The test slows nothing down. Without a limit of its own the copy would never end."""
    engine = open_engine(catchup_rounds_max=4)
    engine.create_branch("main")
    with Import(engine):
        shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1, "tokenizer": "trigram"})
        with pytest.raises(NotConverging) as caught:
            engine.wait_for(shadow.shadow_index_id, timeout_s=120)
        before = engine.head("main")
        assert engine.write("main", [Put("object_type", "after", {"text": "x"})]).lsn > before
    rates = re.search(r" (\d+) changes a second still come in, (\d+) a second are replayed", str(caught.value))
    assert rates is not None
    assert int(rates[1]) > int(rates[2])
    assert engine.stats()["counters"]["writes_slowed"] > 0, "the engine slowed the writers first"
    assert inside.write_delays(engine) == {}


def test_a_build_is_refused_when_there_is_no_room_for_it(open_engine: Any) -> None:
    engine = open_engine(disk_reserve_bytes=1 << 60)
    engine.create_branch("main")
    assert engine.write("main", [Put("object_type", "a", {"text": "x"})]).lsn == 1  # writes are still accepted
    with pytest.raises(StorageFull, match="must stay in reserve"):
        engine.start_build("main", KIND, ["object_type"])
    assert engine.shadows() == []


def test_a_build_stands_still_on_a_full_disk_and_goes_on_when_there_is_room(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": "x"}) for n in range(2000)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.3")
    shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    reserve = engine.config.disk_reserve_bytes
    # tests/crash/test_io_errors.py uses a disk that is really full
    inside.replace(monkeypatch, inside.Step.FREE_BYTES, lambda path: reserve - 1)
    eventually(lambda: engine.shadow(shadow.shadow_index_id).phase == "paused")
    stands = engine.shadow(shadow.shadow_index_id)
    assert f"{reserve - 1} bytes are free, and {reserve} must stay free" in (stands.stands_still or "")
    assert stands.paused_by is None, "no caller paused it"
    engine.write("main", [Put("object_type", "meanwhile", {"text": "y"})])
    inside.replace(monkeypatch, inside.Step.FREE_BYTES, lambda path: 10 * reserve)
    done = engine.wait_for(shadow.shadow_index_id, timeout_s=60)
    assert (done.state, done.stands_still) == (ShadowState.BUILT, None)


def test_a_build_is_given_up_when_the_disk_is_nearly_full(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": "x"}) for n in range(2000)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.3")
    shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    inside.replace(monkeypatch, inside.Step.FREE_BYTES, lambda path: 10)
    with pytest.raises(BuildFailed, match="gave way to the writers"):
        engine.wait_for(shadow.shadow_index_id, timeout_s=60)
    monkeypatch.undo()
    engine.retry_build(shadow.shadow_index_id)
    assert engine.wait_for(shadow.shadow_index_id, timeout_s=60).state == ShadowState.BUILT


def test_a_copy_is_published_on_another_file_system(open_engine: Any) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        engine = open_engine(published_path=folder, publish_strategy="COPY_AND_REPLACE")
        engine.create_branch("main")
        path = Path(folder) / "main" / KIND
        for n in range(3):
            engine.write("main", [Put("object_type", str(n), {"text": "hello"})])
            result = engine.rebuild("main", KIND, ["object_type"])
            assert result.success, result.message
            assert f'"generation": {result.generation},' in (path / "manifest.json").read_text()
            assert not path.is_symlink()
        assert (
            len(list((Path(folder) / ".staging").iterdir())) == 1
        )  # the previous copy stays for programs that read it
        request = SwitchRequest(strategy="ATOMIC_RENAME")
        assert engine.rollback("main", KIND, request).success
        assert os.path.realpath(path) == engine.index("main", KIND).path
        assert engine.check() == []
        engine.close()
