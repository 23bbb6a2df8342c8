"""A backup without room: for the copy of the catalog, in the store, or for a restored catalog. Nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Engine, StorageFull, backups, restore, verify_backup
from tests.crash import disks
from tests.support.backup_helpers import shown
from tests.support.engine_helpers import fill, put

NO_DISK = disks.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(NO_DISK), reason=NO_DISK), pytest.mark.timeout(300)]
DISK_BYTES = 64 << 20


def fill_up(disk: Path) -> Path:
    """Leave a few pages free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65_536)):
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - 40_000))
    return ballast


def test_a_full_disk_refuses_backup_and_restore_and_breaks_none(engine: Engine, tmp_path: Path) -> None:
    for start in range(0, 4000, 500):
        engine.write("main", [put(f"r{n}", f"{n} " * 60) for n in range(start, start + 500)])
    with disks.small_disk(tmp_path, DISK_BYTES) as disk:
        store, url = disk / "store", str(disk / "store")
        first = engine.backup(url)
        for n in range(0, 4000, 10):
            engine.write("main", [put(f"r{n}", "changed " * 80)])
        ballast = fill_up(disk)
        with pytest.raises(StorageFull):
            engine.backup(url)
        with pytest.raises(StorageFull, match="a copy of the catalog needs"):
            engine.backup(str(tmp_path / "other"), scratch=disk)
        with pytest.raises(StorageFull):
            restore(url, disk / "restored")
        assert not list((disk / "restored").glob("catalog*"))
        assert [one.id for one in backups(url)] == [first.id]
        assert verify_backup(url).findings == ()
        ballast.unlink()
        engine.backup(url)
        assert verify_backup(url, deep=True).findings == ()
        assert not list((store / ".parts").iterdir())
        restore(url, disk / "restored")
        with Engine.open(disk / "restored") as again:
            assert shown(again) == shown(engine)
    assert fill(engine, 1) > first.last_lsn
