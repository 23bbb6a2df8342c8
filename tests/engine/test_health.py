"""Health: ready while writes are taken, threads run and indexes are served. Each fault is a real one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pykka
import pytest

from shadowswitch import Config, CorruptData, Engine, ShadowSwitchError, StorageFull
from shadowswitch.storage.catalog import transitions
from tests.crash.disks import missing
from tests.support import inside
from tests.support.engine_helpers import KIND, attempt, fill, live, put, wait_until

Open = Callable[..., Engine]


def reasons(engine: Engine) -> str:
    found = engine.health()
    assert found.ready == (not found.reasons and not found.unserved)
    return "; ".join([*found.reasons, *found.unserved])


def test_an_engine_that_works_is_ready_and_a_closed_one_says_so(engine: Engine) -> None:
    assert reasons(engine) == ""
    live(engine)
    assert reasons(engine) == "", "an index that was never built is no fault, one that is live neither"
    engine.close()
    assert reasons(engine) == "the engine is closed"


def test_sound_indexes_cost_no_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    live(engine)

    def read(*_: object) -> None:
        raise AssertionError("a row of an index was read")

    for step in (inside.Step.READ_INDEX_ROW, inside.Step.READ_INDEX_ROWS):
        inside.replace(monkeypatch, step, read)
    assert reasons(engine) == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    reason = missing(("mount", "umount"))
    if reason:
        pytest.skip(reason)
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)


def fill_up(file: Path) -> None:
    """Write until there is no room."""
    with open(file, "wb", buffering=0) as opened, contextlib.suppress(OSError):
        while opened.write(b"x" * 65536):
            pass


def test_a_full_disk_is_not_ready_until_there_is_room_again(small_disk: Path) -> None:
    with Engine.open(small_disk / "data", Config(disk_reserve_bytes=1)) as engine:
        engine.create_branch("main")
        assert reasons(engine) == ""
        filler = small_disk / "filler"
        fill_up(filler)
        big = [put(str(number), "y" * 60_000) for number in range(100)]
        wait_until(lambda: isinstance(attempt(lambda: engine.write("main", big)), StorageFull))
        assert reasons(engine).startswith("writes are refused: ")
        filler.unlink()
        wait_until(lambda: engine.health().ready, what="room again")
        engine.write("main", [put("again")])
        assert reasons(engine) == ""


@pytest.mark.parametrize("how", ["moved", "removed file"])
def test_an_engine_that_lost_its_directory_is_not_ready_before_any_write_fails(
    open_engine: Open, data_dir: Path, how: str
) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    assert reasons(engine) == ""
    if how == "moved":
        shutil.move(data_dir, data_dir.with_name("elsewhere"))
    else:
        (data_dir / "LOCK").unlink()
    assert "was removed or renamed" in reasons(engine)
    wait_until(lambda: isinstance(attempt(lambda: engine.write("main", [put("late")])), ShadowSwitchError))
    assert "nothing is written until the directory is opened again" in reasons(engine)


def test_a_thread_that_ended_is_named_until_it_runs_again(engine: Engine) -> None:
    (janitor,) = pykka.ActorRegistry.get_by_class_name("Janitor")
    janitor.stop(block=True)
    assert reasons(engine) == "the thread of the janitor has ended"
    wait_until(lambda: reasons(engine) == "", what="the supervisor")


def test_an_index_that_cannot_be_served_is_named(open_engine: Open, data_dir: Path) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 50)
    live(engine)
    path = Path(engine.index("main", KIND).path)
    engine.close()
    for shard in path.glob("shard-???"):
        shutil.rmtree(shard)
    again = open_engine(sound=False)
    assert f"{KIND} of branch 'main': " in reasons(again)
    assert again.health().reasons == (), "writes are taken"
    with pytest.raises(CorruptData):
        again.reader("main", KIND)
    live(again)
    assert reasons(again) == ""


def test_a_live_index_that_was_found_unsound_is_named(engine: Engine) -> None:
    live(engine)
    id = engine.index("main", KIND).shadow_index_id
    inside.transact(engine, lambda commit: transitions.note_unsound(commit, id, "a byte flipped"))
    assert reasons(engine) == f"{KIND} of branch 'main': a byte flipped"
