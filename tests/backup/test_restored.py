"""What a restored data directory is: numbers, builds, events and indexes of the backup it was made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import (
    Engine,
    SwitchRequest,
    restore,
)
from tests.support.backup_helpers import restored, serves
from tests.support.engine_helpers import built, fill, found, live, put, wait_until
from tests.support.external_helpers import begin, complete, delivered

KIND = "SEARCH_INDEX"
JUMP = 1 << 32


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_no_token_and_no_number_is_given_twice(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    engine.backup(str(store))
    lock = engine.acquire_lock("main", "MANUAL", "me", "RESOURCE", "object_type", "a test", ttl_s=60)
    newest, uuid = engine.events()[-1], engine.events()[-1].id.split("-")[0]
    again = restored(open_engine, store, tmp_path)
    other = again.acquire_lock("main", "MANUAL", "me", "RESOURCE", "object_type", "a test", ttl_s=60)
    assert other.token > lock.token
    events = again.events(after=newest.sequence)
    assert [event.sequence > JUMP for event in events] == [True] * len(events)
    assert events[-1].id.split("-")[0] != uuid


def test_builds_that_were_under_way_are_cancelled(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    fill(engine, 50)
    live(engine)
    shadow = built(engine)
    engine.backup(str(store))
    again = restored(open_engine, store, tmp_path)
    row = again.shadow(shadow.shadow_index_id)
    assert (row.state, "restored from backup" in (row.error or "")) == ("CANCELLED", True)
    wait_until(lambda: serves(again))


def test_the_history_of_events_stays_bounded_behind_a_restore(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    for number in range(60):
        engine.create_branch(f"b{number}")
    engine.backup(str(store))
    restore(str(store), tmp_path / "again")
    again = open_engine(tmp_path / "again", events_keep=50)
    wait_until(lambda: len(again.events(limit=1000)) == 50)
    assert len(again.audit(limit=1000)) > 50
    restore(str(store), tmp_path / "kept")
    kept = open_engine(tmp_path / "kept", events_keep=1000)
    assert len(kept.events(limit=1000)) > 60


def test_a_retuned_index_answers_as_before(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    engine.write("main", [put("1", "car")])
    live(engine)
    engine.retune("main", KIND, {"synonyms": [["car", "automobile"]]})
    assert found(engine, "automobile") == {"1"}
    engine.backup(str(store))
    again = restored(open_engine, store, tmp_path)
    wait_until(lambda: serves(again))
    assert found(again, "automobile") == {"1"}


def test_an_index_of_an_outside_format_is_said_to_need_its_builder(
    engine: Engine, open_engine: Callable[..., Engine], store: Path, tmp_path: Path
) -> None:
    fill(engine, 5)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    assert engine.switch(shadow.shadow_index_id, SwitchRequest()).success
    engine.backup(str(store))
    done = restore(str(store), tmp_path / "again")
    assert (done.indexes, done.unserved) == ((), ("main SEARCH_INDEX",))
    assert open_engine(tmp_path / "again").check() == []
