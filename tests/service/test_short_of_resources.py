"""Descriptors and threads that cannot be had: no event file is rejected, no record is deleted, no rule is forgotten."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, ResourceExhausted
from shadowswitch.service import host_file
from shadowswitch.service.daemon.daemon import read_settings
from shadowswitch.service.daemon.ignore import IgnoreRules
from shadowswitch.service.daemon.inbox import Inbox
from shadowswitch.service.daemon.mirror import Mirror
from shadowswitch.service.daemon.text_files import read_fields
from shadowswitch.service.http.problems import problem
from tests.support.engine_helpers import KIND, fill, outside_environment, wait_until
from tests.support.external_helpers import begin, delivered, incoming
from tests.support.refusing import refuse


def lacking(times: int, error: int, ordinary: Callable[..., Any], wanted: Callable[..., bool]) -> Callable[..., Any]:
    """A call that fails so often for the arguments that are `wanted`."""
    left = [times]

    def call(*given: Any, **how: Any) -> Any:
        if left[0] and wanted(*given):
            left[0] -= 1
            raise OSError(error, os.strerror(error), str(given[0]))
        return ordinary(*given, **how)

    return call


class Unseen:
    """An entry of a folder; `a.txt` cannot be looked at."""

    def __init__(self, entry: os.DirEntry[Any]) -> None:
        self.name, self._entry = entry.name, entry

    def stat(self, follow_symlinks: bool = True) -> os.stat_result:
        if self.name == "a.txt":
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), self.name)
        return self._entry.stat(follow_symlinks=follow_symlinks)


def test_an_event_file_that_cannot_be_opened_is_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    monkeypatch.setattr(os, "open", lacking(2, errno.EMFILE, os.open, lambda path, *_: "event.json" in str(path)))
    box = Inbox(engine, settle_s=0.1, rescan_s=0.2)
    box.start()
    try:
        event = incoming("com.oms.shadow.indexing.completed", shadow_index_id=shadow.shadow_index_id)
        (box.folder / ".event").write_text(json.dumps(event))
        (box.folder / ".event").rename(box.folder / "event.json")
        wait_until(lambda: box.taken + box.rejected)
        assert (box.taken, box.rejected) == (1, 0)
        assert engine.index("main", KIND).shadow_index_id == shadow.shadow_index_id
    finally:
        box.stop()


def test_a_file_that_cannot_be_looked_at_keeps_its_record(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name)
    mirror = Mirror(engine, "main", folder, quiet_s=0.02, rescan_s=0.1)
    mirror.start()
    try:
        wait_until(lambda: engine.count("main") == 2)
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda where: contextlib.nullcontext(map(Unseen, scandir(where))))
        scans = mirror.status().scans
        wait_until(lambda: mirror.status().scans > scans + 1)
        assert engine.count("main") == 2
        assert mirror.status().deletes == 0
    finally:
        mirror.stop()


@pytest.mark.parametrize("what", ["file", "rules", "settings"])
def test_what_cannot_be_read_now_is_a_shortage(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "settings.toml").write_text("")
    rules = IgnoreRules(tmp_path)
    look: dict[str, Callable[[], object]] = {
        "file": lambda: read_fields(tmp_path, tmp_path / "settings.toml", "settings.toml", 1 << 20),
        "rules": lambda: rules.ignored(tmp_path / "x.log", False),
        "settings": lambda: read_settings([], tmp_path / "settings.toml", tmp_path),
    }
    with monkeypatch.context() as patch:
        refuse(patch, "descriptor", 1)
        with pytest.raises(ResourceExhausted):
            look[what]()
    assert look[what]()


def test_a_mirror_without_a_thread_is_refused_and_the_next_one_starts(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a")
    ordinary, left = threading.Thread.start, [1]

    def start(thread: threading.Thread) -> None:
        if thread.name == "shadowswitch-mirror" and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        ordinary(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    mirrors = [Mirror(engine, "main", tmp_path / "docs", quiet_s=0.02) for _ in range(2)]
    with pytest.raises(ResourceExhausted, match="can't start new thread"):
        mirrors[0].start()
    mirrors[0].stop()
    mirrors[1].start()
    try:
        wait_until(lambda: engine.count("main") == 1)
    finally:
        mirrors[1].stop()


def test_a_command_without_a_thread_for_its_parent_runs() -> None:
    script = """
import sys, threading
from shadowswitch.service.cli.guard import guarded
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
sys.exit(guarded(lambda: 7, print))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=outside_environment())
    assert (done.returncode, done.stderr) == (7, "")


def test_a_client_is_asked_to_try_again() -> None:
    status, body, headers = problem(ResourceExhausted("a resource cannot be had", resource="threads", hint="wait"))
    assert (status, body["recoverable"]) == (503, True)
    assert body["type"].endswith(":resource-exhausted")
    assert headers["Retry-After"]


def test_a_full_disk_delays_the_file_of_a_server_and_not_the_server(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host_file.HostFile("http://127.0.0.1:1", "", os.getpid())

    announcement = host_file.Announcement(engine.path, found)
    for number in (errno.EACCES, errno.ENOSPC):
        refused = lacking(1, number, os.replace, lambda _, to: Path(to).name == host_file.NAME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refused)
            with pytest.raises(PermissionError) if number == errno.EACCES else contextlib.nullcontext():
                announcement.begin()
            assert host_file.read(engine.path) is None
    try:
        wait_until(lambda: host_file.read(engine.path) == found, what="the file, once there is room")
    finally:
        announcement.end()
    assert host_file.read(engine.path) is None
