"""The Scrubber checks a waiting shadow again and again: the shadow is repaired once, or FAILED with a reason."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, ShadowIndex, SwitchRequest
from shadowswitch.model.digest import bucket_of, key_hash
from tests.actors.test_validation import damage
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, live, put, wait_until

OFTEN = 0.2
STALE = "UPDATE docs SET lsn = lsn - 1 WHERE id = '5'"


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    """An engine with 300 records, whose Scrubber checks waiting shadows five times a second."""
    engine: Engine = open_engine(recheck_interval_s=OFTEN)
    engine.create_branch("main")
    fill(engine, 300)
    return engine


def counted(engine: Engine, name: str) -> int:
    counters: dict[str, int] = engine.stats()["counters"]
    return counters.get(name, 0)


@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_a_sound_shadow_waits_and_is_scrubbed_while_writers_write(engine: Engine, backend: str) -> None:
    shadow = built(engine, backend=backend, shards=2)
    numbers = iter(range(1_000_000))
    with crew() as hands:
        hands.start(lambda: engine.write("main", [put(str(next(numbers) % 500), "edited")]), 2)
        wait_until(lambda: counted(engine, "rechecks") >= 5, 60)
    assert counted(engine, "buckets_repaired") == counted(engine, "rechecks_failed") == 0
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"
    assert engine.switch(shadow.shadow_index_id).success


@pytest.mark.usefixtures("planted_damage")
def test_rows_of_another_version_in_a_waiting_shadow_are_repaired(engine: Engine) -> None:
    shadow = built(engine, shards=1)
    damage(shadow, STALE)
    wait_until(lambda: counted(engine, "buckets_repaired") >= 1, 60)
    wait_until(lambda: counted(engine, "rechecks") >= 1, 60)
    wait_until(lambda: "shadow.repaired" in [entry.type for entry in engine.audit()])
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"
    assert engine.check() == []
    assert engine.switch(shadow.shadow_index_id).success
    assert found(engine, "word5") == {"5"}


@pytest.mark.usefixtures("planted_damage")
def test_counters_that_leave_their_source_while_a_shadow_waits_are_repaired(engine: Engine) -> None:
    shadow = built(engine, shards=1)
    writer: Any = inside.generation(engine, shadow.generation).writer
    shard = writer._shards[0]
    with writer.lock:  # rows and counters agree with each other, but not with the source
        shard.repair_bucket(bucket_of(key_hash("object_type", "5")), [])
    wait_until(lambda: counted(engine, "buckets_repaired") >= 1, 60)
    wait_until(lambda: counted(engine, "rechecks") >= 1, 60)
    assert engine.check() == []


def _bucket(key: tuple[str, str]) -> int:
    from shadowswitch.model.digest import bucket_of, key_hash

    return bucket_of(key_hash(*key))


@pytest.mark.usefixtures("planted_damage")
def test_a_shadow_that_cannot_be_repaired_fails_with_a_reason_and_can_be_built_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(engine)
    shadow = built(engine, shards=1)
    with monkeypatch.context() as patch:
        inside.without_repair(patch)
        damage(shadow, STALE)
        wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "FAILED", 60)
    error = engine.shadow(shadow.shadow_index_id).error
    assert error is not None
    assert "found unsound while it waited for its switch" in error
    assert "differed from their source, and after a repair" in error
    assert engine.index("main", KIND).generation == first
    assert found(engine, "word5") == {"5"}
    wait_until(lambda: shadow.generation not in inside.open_generations(engine))
    engine.retry_build(shadow.shadow_index_id)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.switch(shadow.shadow_index_id).success


def test_a_shadow_that_cannot_be_read_any_more_fails(open_engine: Any) -> None:
    engine = open_engine(recheck_interval_s=OFTEN, sound=False)
    engine.create_branch("main")
    fill(engine, 300)
    shadow = built(engine, shards=1)
    file = Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite"
    inside.generation(engine, shadow.generation).writer.flush()
    data = bytearray(file.read_bytes())
    data[4096:] = b"x" * (len(data) - 4096)
    file.write_bytes(data)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "FAILED", 60)
    assert engine.start_build("main", KIND, TYPES).state in ("PREPARING", "BUILDING", "BUILT")


def test_a_switch_or_a_cancellation_during_a_scrub_goes_first(open_engine: Any) -> None:
    engine = open_engine(recheck_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 300)
    for number in range(4):
        shadow = built(engine, shards=2)
        wait_until(lambda: engine.stats()["pins"] or engine.stats()["worker_pids"])
        if number % 2:
            engine.cancel_build(shadow.shadow_index_id, "no longer wanted")
        else:
            request = SwitchRequest(switch_timeout_seconds=60)
            assert engine.switch(shadow.shadow_index_id, request).success
    assert counted(engine, "rechecks_failed") == counted(engine, "buckets_repaired") == 0


def test_the_engine_closes_during_a_scrub(open_engine: Any) -> None:
    engine = open_engine(recheck_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 300)
    shadow: ShadowIndex = built(engine, shards=2)
    wait_until(lambda: inside.is_kept(engine, shadow.generation))
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    again = open_engine()
    assert again.shadow(shadow.shadow_index_id).state == "BUILT"
    assert again.switch(shadow.shadow_index_id).success
