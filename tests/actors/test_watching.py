"""Watched folders: notices are gathered until they are quiet; after a lost notice a watch is called for everything."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pykka
import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.actors.maintenance.watcher import Watcher
from tests.support import inside
from tests.support.engine_helpers import wait_until


class Seen:
    """A watch that keeps the names of its calls, and counts its calls for everything."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.everything = 0

    def __call__(self, paths: frozenset[Path] | None) -> None:
        if paths is None:
            self.everything += 1
        else:
            self.paths |= {path.name for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "watched"
    made.mkdir()
    return made


def test_a_watch_is_called_for_everything_first_and_then_for_changes(engine: Engine, folder: Path) -> None:
    seen = Seen()
    engine.watch_folder(folder, seen, quiet_s=0.01)
    wait_until(lambda: seen.everything == 1)
    (folder / "deep").mkdir()
    wait_until(lambda: "deep" in seen.paths)
    (folder / "deep" / "new.txt").write_text("x")
    (folder / "deep" / "new.txt").rename(folder / "moved.txt")
    wait_until(lambda: {"new.txt", "moved.txt"} <= seen.paths)
    assert seen.everything == 1


def test_a_watch_is_called_for_everything_again_and_again(engine: Engine, folder: Path) -> None:
    seen = Seen()
    engine.watch_folder(folder, seen, rescan_s=0.05)
    wait_until(lambda: seen.everything >= 3)


def test_a_watch_that_has_left_is_not_called_any_more(engine: Engine, folder: Path) -> None:
    seen, stays = Seen(), Seen()
    leave = engine.watch_folder(folder, seen, quiet_s=0.01)
    engine.watch_folder(folder, stays, quiet_s=0.01)
    wait_until(lambda: seen.everything and stays.everything)
    leave()
    leave()
    (folder / "new.txt").write_text("x")
    wait_until(lambda: "new.txt" in stays.paths)
    assert seen.paths == set()


def test_after_lost_notices_a_watch_is_called_for_everything(engine: Engine, folder: Path) -> None:
    seen = Seen()
    engine.watch_folder(folder, seen)
    wait_until(lambda: seen.everything == 1)
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    wait_until(lambda: seen.everything == 2)


def test_too_many_paths_are_a_call_for_everything(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.WATCHED_PATHS_MAX, 3)
    seen = Seen()
    engine.watch_folder(folder, seen, quiet_s=0.1)
    wait_until(lambda: seen.everything == 1)
    for n in range(10):
        (folder / str(n)).write_text("x")
    wait_until(lambda: seen.everything >= 2)


def test_a_watch_that_raises_is_called_for_everything_again_and_disturbs_no_other(engine: Engine, folder: Path) -> None:
    calls: list[Any] = []
    seen = Seen()

    def clumsy(paths: frozenset[Path] | None) -> None:
        calls.append(paths)
        if len(calls) < 3:
            raise ValueError("not yet")

    engine.watch_folder(folder, clumsy, quiet_s=0.01)
    engine.watch_folder(folder, seen, quiet_s=0.01)
    wait_until(lambda: len(calls) >= 3 and seen.everything)
    assert calls[:3] == [None, None, None]


def test_a_folder_that_cannot_be_watched_is_scanned_at_intervals(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
    seen = Seen()
    engine.watch_folder(folder, seen, rescan_s=0.05)
    wait_until(lambda: seen.everything >= 2)
    assert "only looked at now and then" in caplog.text


def test_a_watcher_that_is_replaced_goes_on_with_the_watches(engine: Engine, folder: Path) -> None:
    seen = Seen()
    engine.watch_folder(folder, seen, quiet_s=0.01)
    wait_until(lambda: seen.everything == 1)
    (ref,) = pykka.ActorRegistry.get_by_class(Watcher)
    ref.stop()
    wait_until(lambda: seen.everything >= 2, 60)
    (folder / "new.txt").write_text("x")
    wait_until(lambda: "new.txt" in seen.paths)


def test_a_closed_engine_leaves_no_observer_behind(open_engine: Any, folder: Path) -> None:
    before = threading.active_count()
    engine = open_engine()
    engine.watch_folder(folder, Seen())
    assert any("Inotify" in thread.name or "Observer" in type(thread).__name__ for thread in threading.enumerate())
    engine.close()
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("how", [{"quiet_s": 0}, {"rescan_s": -1}])
def test_wrong_times_are_refused(engine: Engine, folder: Path, how: Any) -> None:
    with pytest.raises(InvalidConfig, match="above 0"):
        engine.watch_folder(folder, Seen(), **how)


def test_a_path_without_a_folder_cannot_be_watched(engine: Engine, folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="is not a folder"):
        engine.watch_folder(folder / "absent", Seen())
