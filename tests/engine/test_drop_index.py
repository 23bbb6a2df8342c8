"""drop_index: refused while in use, gone for every call afterwards, and its space comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, InUse, InvalidTransition, SwitchRequest, UnknownIndex
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill, found, live, wait_until
from tests.support.external_helpers import begin

OpenEngine = Callable[..., Engine]


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """An engine whose branch `main` has 20 records and a live index that soaks another."""
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    live(engine, tokenizer="porter")
    return engine


def generations(engine: Engine) -> list[Path]:
    """The directories of all generations."""
    return sorted((engine.path / "generations").glob("*/*/*"))


def test_a_dropped_index_is_unknown_and_its_files_go(engine: Engine) -> None:
    assert len(generations(engine)) == 2
    engine.drop_index("main", KIND, by="alice", reason="not used")
    for call in (engine.index, engine.rollback, engine.drop_index, engine.reader):
        with pytest.raises(UnknownIndex):
            call("main", KIND)
    assert engine.indexes() == []
    wait_until(lambda: generations(engine) == [])
    assert not os.path.lexists(engine.path / "published" / "main" / KIND)
    assert engine.count("main") == 20
    (said,) = [entry for entry in engine.audit() if entry.type == "index.dropped"]
    assert (said.data["by"], said.data["reason"], said.data["index_type"]) == ("alice", "not used", KIND)
    assert [event.subject for event in engine.events() if event.type.endswith("index.dropped")] == ["main"]
    assert engine.check() == []


def test_a_published_copy_goes_too(engine: Engine) -> None:
    shadow = built(engine)
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(strategy="COPY_AND_REPLACE")).success
    assert (engine.path / "published" / "main" / KIND).is_dir()
    engine.drop_index("main", KIND)
    wait_until(lambda: generations(engine) == [])
    assert not os.path.lexists(engine.path / "published" / "main")


def test_a_reader_goes_on_to_read_what_it_has_pinned(engine: Engine) -> None:
    with engine.reader("main", KIND) as reader:
        engine.drop_index("main", KIND)
        wait_until(lambda: [path.name for path in generations(engine)] == [f"{reader.generation:08d}"])
        engine.clean_up()
        assert len(reader.search("hello", limit=100)) == 20
    wait_until(lambda: generations(engine) == [])


def test_it_is_built_again_and_its_epoch_goes_on(engine: Engine) -> None:
    engine.drop_index("main", KIND)
    generation = live(engine)
    assert len(found(engine, "hello")) == 20
    assert engine.index("main", KIND).generation == generation
    engine.drop_index("main", KIND)
    live(engine)
    assert len(found(engine, "hello")) == 20
    with pytest.raises(UnknownIndex):
        engine.rollback("main", KIND)


def test_a_first_build_that_waits_for_its_switch_is_named(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    shadow = built(engine)
    with pytest.raises(InUse, match="cancel_build"):
        engine.drop_index("main", KIND)
    engine.cancel_build(shadow.shadow_index_id)
    with pytest.raises(UnknownIndex, match="it has no index at all"):
        engine.drop_index("main", KIND)
    live(engine)
    with pytest.raises(UnknownIndex, match=f"it has {KIND}"):
        engine.drop_index("main", "SEARCH_INDX")


@pytest.mark.parametrize("state", ["BUILDING", "BUILT"])
def test_it_is_refused_while_a_build_is_under_way(engine: Engine, state: str) -> None:
    shadow = built(engine) if state == "BUILT" else begin(engine)
    with pytest.raises(InUse, match=shadow.shadow_index_id) as caught:
        engine.drop_index("main", KIND)
    assert caught.value.uses == [f"shadow {shadow.shadow_index_id} of {KIND} is {state}"]
    assert isinstance(caught.value, InvalidTransition)
    assert len(found(engine, "hello")) == 20
    engine.cancel_build(shadow.shadow_index_id)
    engine.drop_index("main", KIND)


def test_it_is_refused_while_a_rollback_runs(engine: Engine) -> None:
    refused = []

    def look(reader: object) -> list[str]:
        with pytest.raises(InUse, match="switch") as caught:
            engine.drop_index("main", KIND)
        refused.append(caught.value)
        return []

    engine.add_validator("look", look)
    assert engine.rollback("main", KIND, SwitchRequest(validation_checks=("look",))).success
    assert refused


def test_an_index_that_cannot_be_opened_is_dropped(open_engine: OpenEngine) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    path = Path(engine.index("main", KIND).path)
    engine.close()
    for file in path.rglob("*"):
        if file.is_file() and "shard" in str(file):
            file.write_bytes(b"no index")
    engine = open_engine()
    engine.drop_index("main", KIND)
    with pytest.raises(UnknownIndex):
        engine.reader("main", KIND)
    wait_until(lambda: generations(engine) == [])
    assert engine.check() == []


def test_a_drop_that_was_cut_off_behind_its_commit_is_completed_at_the_next_start(open_engine: OpenEngine) -> None:
    engine = open_engine(janitor_interval_s=3600.0)
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    engine.drop_index("main", KIND)
    assert len(generations(engine)) == 1
    engine.close()
    engine = open_engine()
    wait_until(lambda: generations(engine) == [])
    assert not os.path.lexists(engine.path / "published" / "main" / KIND)
    with pytest.raises(UnknownIndex):
        engine.reader("main", KIND)
    assert inside.counter(engine, "cleanup_errors") == 0


def test_another_index_of_the_branch_stays(engine: Engine) -> None:
    assert engine.rebuild("main", "OTHER_INDEX", TYPES, {"backend": "kv"}).success
    engine.drop_index("main", KIND)
    wait_until(lambda: len(generations(engine)) == 1)
    assert [info.index_type for info in engine.indexes()] == ["OTHER_INDEX"]
    assert os.path.lexists(engine.path / "published" / "main" / "OTHER_INDEX")
