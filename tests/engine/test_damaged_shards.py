"""A damaged shard is found by a process that may die of it, and never by the host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CorruptData, Engine, ShadowIndex, SwitchRequest
from tests.support.damage_helpers import DAMAGES, cut, deadly_backend, shorten, zero_leaves
from tests.support.engine_helpers import KIND, outside_environment, put, wait_until

OpenEngine = Callable[..., Engine]
REPAIRED = """
import logging, sys
sys.path.append(sys.argv[1])
from shadowswitch import Engine
logging.basicConfig()
with Engine.open(sys.argv[2]) as engine:
    print(*engine.check(repair=True), sep="\\n")
"""
pytestmark = pytest.mark.usefixtures("planted_damage")


def _filled(engine: Engine) -> Engine:
    engine.create_branch("main")
    engine.write("main", [put(str(n), "x" * 200) for n in range(1000)])
    return engine


def _built(engine: Engine, **config: Any) -> ShadowIndex:
    config = {"backend": "kv", "shards": 1, **config}
    shadow = engine.start_build("main", KIND, ["object_type"], config)
    return engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)


def _file(engine: Engine, shadow: ShadowIndex) -> Path:
    return Path(shadow.shadow_index_path) / "shard-000" / "kv" / "data.mdb"


def _switched(engine: Engine, **config: Any) -> ShadowIndex:
    shadow = _built(engine, **config)
    assert engine.switch(shadow.shadow_index_id).success
    return shadow


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "shadowswitch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_start_does_not_open_a_damaged_index_and_a_rebuild_replaces_it(
    open_engine: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = _filled(open_engine(sound=False))
    file = _file(engine, _switched(engine))
    engine.close()
    damage(file)
    again = open_engine(sound=False)
    with pytest.raises(CorruptData, match="shard-000"):
        again.reader("main", KIND)
    assert again.rebuild("main", KIND, ["object_type"], {"backend": "kv"}, timeout_s=60).success
    with again.reader("main", KIND) as reader:
        assert reader.count() == 1000


def test_a_start_survives_an_index_that_ends_its_readers(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _filled(open_engine(sound=False))
    backend = deadly_backend(tmp_path, monkeypatch)
    first, second = _switched(engine, backend=backend), _built(engine, backend=backend)
    engine.close()
    for shadow in (first, second):
        (Path(shadow.shadow_index_path) / "shard-000" / "DEADLY").touch()
    again = open_engine(sound=False)
    with pytest.raises(CorruptData, match=r"shard-000 is damaged: its reader ended by SIGABRT"):
        again.reader("main", KIND)
    failed = again.shadow(second.shadow_index_id)
    assert (failed.state, "SIGABRT" in str(failed.error)) == ("FAILED", True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_switch_to_a_damaged_shadow_is_refused_also_by_force(
    open_engine: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = _filled(open_engine(sound=False))
    shadow = _built(engine)
    damage(_file(engine, shadow))
    result = engine.switch(shadow.shadow_index_id, SwitchRequest(force_switch=True))
    assert not result.success, result.message
    assert result.validation_errors
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"


def test_a_live_index_that_ends_its_readers_does_not_refuse_the_switch_to_a_sound_one(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _filled(open_engine(sound=False))
    live = _switched(engine, backend=deadly_backend(tmp_path, monkeypatch))
    shadow = _built(engine)
    (Path(live.shadow_index_path) / "shard-000" / "DEADLY").touch()
    result = engine.switch(
        shadow.shadow_index_id, SwitchRequest(validation_checks=("QUERY_COMPARISON",), queries=("1",))
    )
    assert result.success, result.message
    assert "not checked: QUERY_COMPARISON, for the live index cannot be read" in result.message


@pytest.mark.parametrize("damage", [zero_leaves, shorten])
def test_a_recheck_fails_a_damaged_shadow_with_its_reason(
    open_engine: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = _filled(open_engine(sound=False, recheck_interval_s=0.2))
    shadow = _built(engine)
    damage(_file(engine, shadow))
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "FAILED", 60)
    assert "shard-000" in str(engine.shadow(shadow.shadow_index_id).error)


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_a_damaged_shard_and_goes_on(open_engine: OpenEngine, damage: Callable[[Path], None]) -> None:
    engine = _filled(open_engine(sound=False))
    file = _file(engine, _switched(engine))
    engine.create_branch("other")
    engine.write("other", [put(str(n)) for n in range(20)])
    assert engine.rebuild("other", KIND, ["object_type"], {"backend": "kv"}, timeout_s=60).success
    damage(file)
    findings = engine.check()
    assert findings
    assert {finding.where.split()[1] for finding in findings} == {"1"}, findings
    assert "shard-000" in str(findings[0])
    found = _command("check", "--data", engine.path)
    assert found.returncode == 1, found
    assert "shard-000" in found.stdout


def test_check_says_which_file_ends_its_reader_and_what_to_do(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _filled(open_engine(sound=False))
    shadow = _switched(engine, backend=deadly_backend(tmp_path, monkeypatch))
    (Path(shadow.shadow_index_path) / "shard-000" / "DEADLY").touch()
    (finding,) = engine.check()
    assert (finding.invariant, finding.where) == ("IX-4", f"generation {shadow.generation}")
    assert "shard-000 is damaged: its reader ended by SIGABRT" in finding.problem
    assert "rebuild the index" in finding.problem


def test_a_repair_opens_no_shard_that_ends_its_reader(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _filled(open_engine(sound=False))
    shadow = _switched(engine, backend=deadly_backend(tmp_path, monkeypatch))
    engine.close()
    (Path(shadow.shadow_index_path) / "shard-000" / "DEADLY").touch()
    command = [sys.executable, "-P", "-c", REPAIRED, str(tmp_path), str(engine.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=outside_environment())
    assert done.returncode == 0, done
    assert "shard-000 is damaged: its reader ended by SIGABRT" in done.stdout
    assert "is no source of a repair" in done.stderr


def _zero_catalog(file: Path) -> None:
    """Zero what is behind the two heads and the pages after them."""
    zero_leaves(file)


@pytest.mark.parametrize("damage", [_zero_catalog, cut, shorten])
def test_commands_say_what_is_wrong_with_a_damaged_catalog(
    open_engine: OpenEngine, damage: Callable[[Path], None]
) -> None:
    engine = _filled(open_engine(sound=False))
    _switched(engine)
    engine.close()
    catalog = engine.path / "catalog" / "data.mdb"
    damage(catalog)
    checked = _command("check", "--data", engine.path)
    assert checked.returncode == 1, checked
    assert "data.mdb" in checked.stdout + checked.stderr, checked
    for name in ("status", "events"):
        shown = _command(name, "--data", engine.path)
        assert shown.returncode in (0, 1), shown  # 0: what it reads is whole
        assert shown.returncode == 0 or "shadowswitch: " in shown.stderr, shown


def test_status_beside_a_shard_that_ends_its_reader_says_so(open_engine: OpenEngine) -> None:
    engine = _filled(open_engine(sound=False))
    file = _file(engine, _switched(engine))
    engine.close()
    cut(file)
    shown = _command("status", "--data", engine.path)
    assert shown.returncode in (0, 1), shown
    assert shown.returncode == 0 or "shadowswitch: " in shown.stderr, shown
