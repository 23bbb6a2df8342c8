"""The folder of the inbox: only its user may write it, and no link leads out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shadowswitch import Engine, UnsupportedFilesystem
from shadowswitch.service.daemon.inbox import Inbox
from tests.support.engine_helpers import wait_until


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder outside of the data directory, with nothing in it."""
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


@pytest.mark.parametrize("made", ["new", "by an older version"])
def test_only_the_user_of_the_server_may_write_it(engine: Engine, made: str) -> None:
    before = os.umask(0)
    try:
        box = Inbox(engine)
        if made != "new":
            (box.folder / "rejected").mkdir(parents=True)
        box.start()
        box.stop()
        named = Inbox(engine, engine.path.parent / "named")
        named.start()
        named.stop()
    finally:
        os.umask(before)
    assert [mode(box.folder), mode(box.folder / "rejected")] == [0o700, 0o700]
    assert [mode(named.folder), mode(named.folder / "rejected")] == [0o700, 0o700]


@pytest.mark.parametrize("link", ["inbox", "inbox/rejected"])
def test_a_link_in_its_place_is_refused(engine: Engine, outside: Path, link: str) -> None:
    (engine.path / link).parent.mkdir(exist_ok=True)
    (engine.path / link).symlink_to(outside)
    with pytest.raises(UnsupportedFilesystem, match="is a symbolic link"):
        Inbox(engine).start()
    assert list(outside.iterdir()) == []


def test_a_link_that_takes_the_place_of_rejected_leads_nothing_elsewhere(
    engine: Engine, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Inbox(engine, settle_s=0.01, rescan_s=0.05)
    box.start()
    rejected = box.folder / "rejected"
    rejected.rmdir()
    rejected.symlink_to(outside)
    (box.folder / "bad.json").write_text("[]")
    (box.folder / "worse.json").write_text("[]")
    try:
        wait_until(lambda: caplog.text.count("is tried again") >= 2)
    finally:
        rejected.unlink()
        rejected.mkdir()
        wait_until(lambda: box.rejected == 2)
        box.stop()
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in rejected.glob("*.json")) == ["bad.json", "worse.json"]


def test_a_reason_is_never_written_through_a_planted_name(engine: Engine, outside: Path) -> None:
    box = Inbox(engine, settle_s=0.01, rescan_s=0.05)
    box.start()
    for planted in ("bad.json.reason.txt", "bad.json.reason.txt.new"):
        (box.folder / "rejected" / planted).symlink_to(outside / planted)
    (box.folder / "bad.json").write_text("[]")
    wait_until(lambda: box.rejected)
    box.stop()
    assert list(outside.iterdir()) == []
    assert (box.folder / "rejected" / "2-bad.json").exists()


def test_a_named_folder_that_others_may_write_is_reported(
    engine: Engine, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside.chmod(0o777)
    box = Inbox(engine, outside)
    box.start()
    box.stop()
    assert f"every user of this machine may write {outside} (mode 0777)" in caplog.text
    assert f"chmod go-w {outside}" in caplog.text
