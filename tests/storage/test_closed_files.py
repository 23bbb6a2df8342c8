"""Closed files, which a backend never changes again: validation and fsck check them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, ShadowIndex, ShadowState, SwitchRequest
from shadowswitch.storage.generations.directory import MANIFEST
from tests.support.engine_helpers import KIND, TYPES, built, fill, put, wait_until

CLOSED = "shard-001/terms.bin"
BACKEND = """
import os
from shadowswitch.storage.backends.kv.backend import KvBackend
from shadowswitch.storage.backends.kv.writer import KvWriter

class Writer(KvWriter):
    def finish_load(self, applied_lsn):
        super().finish_load(applied_lsn)
        with open(self._path / "terms.bin", "wb") as file:
            file.write(bytes(range(256)) * 20)
            os.fsync(file.fileno())

class Closed(KvBackend):
    name = "closed"
    def open_writer(self, path, options):
        writer = super().open_writer(path, options)
        writer.__class__ = Writer
        return writer
    def closed_files(self, path, options):
        return ["terms.bin"]
"""


@pytest.fixture(autouse=True)
def _backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "closed_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(tmp_path / "modules")


@pytest.fixture
def waiting(open_engine: Callable[..., Engine]) -> tuple[Engine, ShadowIndex]:
    """An engine with a BUILT shadow that has closed files."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 200)
    return engine, built(engine, backend="closed_backend:Closed", shards=2)


def flip(file: Path) -> None:
    """One bit of one byte is another."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_the_manifest_of_a_build_has_its_counts_and_checksums(waiting: tuple[Engine, ShadowIndex]) -> None:
    engine, shadow = waiting
    said = json.loads((Path(shadow.shadow_index_path) / MANIFEST).read_text())["built"]
    assert (said["record_count"], said["applied_lsn"]) == (200, 200)
    assert set(said["files"]) == {"shard-000/terms.bin", "shard-001/terms.bin"}
    assert {file["size_bytes"] for file in said["files"].values()} == {5120}
    engine.write("main", [put("more")])
    assert engine.switch(shadow.shadow_index_id).success
    assert engine.check() == []


@pytest.mark.parametrize(
    ("harm", "name"),
    [(cut, CLOSED), (Path.unlink, CLOSED), (flip, MANIFEST), (cut, MANIFEST), (Path.unlink, MANIFEST)],
)
def test_a_closed_file_that_changed_refuses_the_switch_and_is_found_by_fsck(
    waiting: tuple[Engine, ShadowIndex], harm: Callable[[Path], None], name: str
) -> None:
    engine, shadow = waiting
    file = Path(shadow.shadow_index_path) / name
    harm(file)
    result = engine.switch(shadow.shadow_index_id)
    assert not result.success
    assert [error for error in result.validation_errors if "INTEGRITY_CHECK" in error and name in error]
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    found = {finding.invariant for finding in engine.check()}
    assert found == {"IX-8"} or (found == {"IX-1"} and (name == MANIFEST or harm != flip))  # IX-1: it is not whole


@pytest.mark.parametrize("is_live", [False, True])
def test_a_closed_file_with_another_bit_is_found_when_it_is_read(
    open_engine: Callable[..., Engine], is_live: bool
) -> None:
    """A switch compares sizes only: its time does not grow with the index."""
    engine = open_engine(sound=False, recheck_interval_s=3600.0 if is_live else 0.2)
    engine.create_branch("main")
    fill(engine, 200)
    shadow = built(engine, backend="closed_backend:Closed", shards=2)
    flip(Path(shadow.shadow_index_path) / CLOSED)
    if is_live:
        assert engine.switch(shadow.shadow_index_id).success
    wait_until(lambda: "has other content" in (engine.shadow(shadow.shadow_index_id).error or ""), 60.0)
    assert {event.type for event in engine.audit()} & {"index.unsound" if is_live else "build.failed"}


def test_a_closed_file_that_changes_under_a_live_index_is_found(waiting: tuple[Engine, ShadowIndex]) -> None:
    engine, shadow = waiting
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=("INTEGRITY_CHECK",))).success
    assert engine.check() == []
    flip(Path(shadow.shadow_index_path) / "shard-000" / "terms.bin")
    (finding,) = engine.check()
    assert finding.invariant == "IX-8"
    assert "shard-000/terms.bin has other content" in finding.problem


def test_the_manifest_of_any_backend_is_compared_with_the_catalog(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 20)
    assert engine.rebuild("main", KIND, TYPES).success
    file = Path(engine.index("main", KIND).path) / MANIFEST
    said = json.loads(file.read_text())
    said["built"]["record_count"] += 1
    file.write_text(json.dumps(said))
    assert [finding.invariant for finding in engine.check()] == ["IX-8"]
