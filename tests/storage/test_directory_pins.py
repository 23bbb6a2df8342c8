"""Pins and shard locks: a file that is removed beside their holder frees nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Timeout
from shadowswitch.storage.generations.directory import PINS, pinned_elsewhere, shared_pin
from shadowswitch.storage.generations.worker import shard_lock
from tests.support import inside


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    path = tmp_path / "generation"
    path.mkdir()
    (path / PINS).touch()
    return path


def test_a_pin_holds_the_generation_without_its_file(generation: Path) -> None:
    with shared_pin(generation):
        (generation / PINS).unlink()
        assert pinned_elsewhere(generation)
        with shared_pin(generation):
            assert pinned_elsewhere(generation), "a second reader pins by the directory alone"
    assert not pinned_elsewhere(generation)


def test_a_generation_that_is_gone_has_no_pin_and_takes_none(generation: Path) -> None:
    assert not pinned_elsewhere(generation / "gone")
    with pytest.raises(FileNotFoundError), shared_pin(generation / "gone"):
        pass


def test_a_shard_is_held_without_its_lock_file(generation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.SHARD_LOCK_TIMEOUT_S, 0.05)
    shard = generation / "shard-000"
    shard.mkdir()
    with shard_lock(shard):
        shard.with_name("shard-000.lock").unlink()
        with pytest.raises(Timeout, match="still writing"), shard_lock(shard):
            pass
    with shard_lock(shard):
        pass
