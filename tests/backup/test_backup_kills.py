"""Real processes that are killed in a backup, a prune, a restore: what is there stays whole; the next call goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from shadowswitch import Engine, backups, restore, verify_backup
from tests.support.backup_helpers import shown
from tests.support.cli_helpers import spawn
from tests.support.engine_helpers import fill, put

pytestmark = pytest.mark.slow
KILLS = 12


def killed(chance: random.Random, longest_s: float, *arguments: object) -> bool:
    """Run a command and kill it at a random moment; False if it had ended by then."""
    process = spawn(*arguments)
    try:
        process.wait(chance.uniform(0.1, longest_s))
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate(timeout=60)
    return process.returncode == -9


def took_s(*arguments: object) -> float:
    begun = time.monotonic()
    process = spawn(*arguments)
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return time.monotonic() - begun


@pytest.mark.timeout(600)
def test_killed_backups_prunes_and_restores(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    store, scratch, chance = tmp_path / "store", tmp_path / "scratch", random.Random(1)
    scratch.mkdir()
    fill(engine, 20_000)
    create = ("backup", "create", store, "--data", data_dir, "--scratch", scratch)
    longest = took_s(*create)
    kills = 0
    for number in range(KILLS):
        engine.write("main", [put(str(number), "changed")])
        kills += killed(chance, longest, *create)
        assert verify_backup(str(store)).findings == ()
    for file in scratch.iterdir():  # only of a kill while LMDB copied
        file.unlink()
    engine.backup(str(store))
    expected = shown(engine)
    prune = ("backup", "prune", store, "--keep", 1)
    kills += killed(chance, 0.5, *prune)
    assert verify_backup(str(store)).findings == ()
    assert took_s(*prune) > 0
    assert len(backups(str(store))) == 1
    target = tmp_path / "restored"
    again = ("restore", store, "--data", target, "--no-wait")
    longest = took_s(*again)
    for _ in range(KILLS):
        shutil.rmtree(target)
        kills += killed(chance, longest, *again)
        if not (target / "catalog").exists():
            restore(str(store), target)
        with Engine.open(target) as restored:
            assert shown(restored) == expected
            assert restored.check() == []
    assert kills > KILLS / 2
