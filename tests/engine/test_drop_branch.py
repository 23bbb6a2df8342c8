"""drop_branch: refused while in use, unknown to every call afterwards, and removed in slices behind it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InUse, InvalidTransition, SwitchRequest, UnknownBranch, UnknownShadow
from shadowswitch.storage.catalog import transitions
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, live, put, wait_until
from tests.support.external_helpers import begin

OpenEngine = Callable[..., Engine]
OF_BRANCHES = ("journal", "records", "heads", "indexes", "shadows", "generations", "holds", "locks", "branches")


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """An engine with the branches `main` and `other`, each with 1,000 records and a live index."""
    engine = open_engine()
    for branch in ("other", "main"):
        engine.create_branch(branch)
        fill(engine, 1000, branch)
        live(engine, branch)
    return engine


def rows(engine: Engine) -> dict[str, int]:
    """How many rows there are of what belongs to branches."""
    entries = engine.stats()["catalog"]["entries"]
    return {name: entries[name] for name in OF_BRANCHES}


def removed(engine: Engine) -> bool:
    """Is nothing of any dropped branch left?"""
    kinds = [event.type.rpartition(".")[2] for event in engine.events(limit=10_000) if "branch." in event.type]
    return kinds.count("dropped") == kinds.count("removed")


def test_a_dropped_branch_is_unknown_to_every_call_at_once(engine: Engine) -> None:
    shadow = engine.shadows("main")[0].shadow_index_id
    engine.drop_branch("main", by="alice", reason="merged")
    calls: list[Callable[[], Any]] = [
        lambda: engine.branch("main"),
        lambda: engine.write("main", [put("1")]),
        lambda: engine.get("main", "object_type", "1"),
        lambda: list(engine.scan("main")),
        lambda: engine.count("main"),
        lambda: engine.head("main"),
        lambda: engine.changes("main"),
        lambda: engine.reader("main", KIND),
        lambda: engine.index("main", KIND),
        lambda: engine.start_build("main", KIND, TYPES),
        lambda: engine.rollback("main", KIND),
        lambda: engine.acquire_lock("main", "MANUAL", "bob"),
        lambda: engine.hold_changes("me", "main", 0),
        lambda: engine.archive_branch("main"),
        lambda: engine.drop_branch("main"),
        lambda: engine.shadows("main"),
    ]
    for call in calls:
        with pytest.raises(UnknownBranch):
            call()
    with pytest.raises(UnknownShadow):
        engine.shadow(shadow)
    assert [info.name for info in engine.branches()] == ["other"]
    assert [info.branch_name for info in engine.indexes()] == ["other"]
    assert [shadow.branch_name for shadow in engine.shadows()] == ["other"]
    assert [entry["branch"] for entry in engine.stats()["journal"]] == ["other"]
    (said,) = [entry for entry in engine.audit() if entry.type == "branch.dropped"]
    assert (said.data["by"], said.data["reason"], said.data["indexes"]) == ("alice", "merged", [KIND])
    assert engine.check() == []


def test_its_rows_and_files_go_and_those_of_others_stay(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("other")
    fill(engine, 500, "other")
    live(engine, "other")
    before = rows(engine)
    engine.create_branch("main")
    fill(engine, 1000)
    live(engine), live(engine)
    failing = begin(engine)
    engine.fail_build(failing.shadow_index_id, "no room")
    engine.hold_changes("me", "main", 10)
    engine.drop_branch("main")
    wait_until(lambda: removed(engine))
    assert rows(engine) == before
    assert not (engine.path / "generations" / "main").exists()
    assert not os.path.lexists(engine.path / "published" / "main")
    assert engine.count("other") == 500
    assert len(found(engine, "hello", "other")) == 500
    assert engine.check() == []


def test_its_name_is_free_at_once(engine: Engine) -> None:
    number = engine.branch("main").number
    engine.drop_branch("main")
    engine.create_branch("main")
    assert engine.branch("main").number > number
    assert (engine.count("main"), engine.head("main"), engine.shadows("main")) == (0, 0, [])
    engine.write("main", [put("new", "fresh")])
    live(engine)
    assert found(engine, "fresh") == {"new"}
    wait_until(lambda: removed(engine))
    assert engine.count("main") == 1
    assert found(engine, "fresh") == {"new"}
    assert (engine.path / "published" / "main" / KIND).exists()
    assert engine.check() == []


def test_a_reader_goes_on_to_read_what_it_has_pinned(engine: Engine) -> None:
    with engine.reader("main", KIND) as reader:
        engine.drop_branch("main")
        engine.clean_up()
        engine.clean_up()
        assert reader.count() == 1000
        assert engine.stats()["catalog"]["entries"]["branches"] == 2
    wait_until(lambda: removed(engine))


@pytest.mark.parametrize("state", ["BUILDING", "BUILT"])
def test_it_is_refused_while_a_build_is_under_way(engine: Engine, state: str) -> None:
    shadow = built(engine) if state == "BUILT" else begin(engine)
    with pytest.raises(InUse, match=shadow.shadow_index_id) as caught:
        engine.drop_branch("main")
    assert caught.value.uses == [f"shadow {shadow.shadow_index_id} of {KIND} is {state}"]
    assert isinstance(caught.value, InvalidTransition)
    engine.write("main", [put("later")])
    engine.cancel_build(shadow.shadow_index_id)
    engine.drop_branch("main")


def test_it_is_refused_while_a_lock_of_another_is_held_or_awaited(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "bob", "RESOURCE_TYPE", "object_type")
    with pytest.raises(InUse, match="bob holds the lock"):
        engine.drop_branch("main", by="alice")
    with crew() as hands:
        waiting = threading.Event()

        def wait() -> None:
            if not waiting.is_set():
                waiting.set()
                engine.acquire_lock("main", "MANUAL", "carol", wait_s=60)

        hands.start(wait)
        wait_until(lambda: engine.lock_waiters("main"))
        with pytest.raises(InUse, match="carol waits for a lock"):
            engine.drop_branch("main", by="bob")
        engine.release_lock(lock.lock_id, lock.token)
        wait_until(lambda: [held.owner for held in engine.locks("main")] == ["carol"])
        engine.drop_branch("main", by="carol")


def test_it_is_refused_while_it_is_indexed(engine: Engine) -> None:
    engine.start_indexing("main", "indexer", TYPES, shadow=True)
    with pytest.raises(InUse, match="indexer indexes object_type"):
        engine.drop_branch("main")
    engine.complete_indexing("main", "indexer", TYPES)
    engine.drop_branch("main")


def test_it_is_refused_while_a_rollback_runs(engine: Engine) -> None:
    live(engine)
    refused = []

    def look(reader: object) -> list[str]:
        with pytest.raises(InUse, match="a switch") as caught:
            engine.drop_branch("main")
        refused.append(caught.value)
        return []

    engine.add_validator("look", look)
    assert engine.rollback("main", KIND, SwitchRequest(validation_checks=("look",))).success
    assert refused


def test_no_write_beside_a_drop_is_lost_or_left(engine: Engine) -> None:
    """A write is acknowledged before the drop, or the branch is unknown; nothing of it is left in either case."""
    with crew() as hands:
        begun, ended = threading.Event(), threading.Event()

        def write() -> None:
            try:
                engine.write("main", [put("beside")])
                begun.set()
            except UnknownBranch:
                ended.set()

        hands.start(write, 4)
        assert begun.wait(30)
        engine.drop_branch("main")
        assert ended.wait(30)
    wait_until(lambda: removed(engine))
    assert rows(engine)["heads"] == 2
    assert engine.check() == []


def test_a_caller_with_a_row_from_before_the_drop_writes_nothing(engine: Engine) -> None:
    scan = engine.scan("main")
    next(scan)
    engine.drop_branch("main")
    wait_until(lambda: removed(engine))
    with pytest.raises(UnknownBranch):
        list(scan)
    assert rows(engine)["heads"] == 2


def test_a_drop_goes_on_after_a_restart(open_engine: OpenEngine) -> None:
    engine = open_engine(janitor_interval_s=3600.0)
    engine.create_branch("main")
    fill(engine, 3000)
    live(engine)
    engine.drop_branch("main")
    engine.close()
    engine = open_engine()
    with pytest.raises(UnknownBranch):
        engine.branch("main")
    assert engine.check() == []
    wait_until(lambda: removed(engine))
    assert set(rows(engine).values()) == {0}
    assert not list((engine.path / "generations").iterdir())
    assert inside.counter(engine, "cleanup_errors") == 0


def test_the_check_understands_a_branch_that_is_half_gone(open_engine: OpenEngine) -> None:
    engine = open_engine(janitor_interval_s=3600.0)
    engine.create_branch("main")
    fill(engine, 3000)
    live(engine)
    number = engine.branch("main").number
    engine.drop_branch("main")
    for _ in range(3):
        inside.transact(engine, partial(transitions.remove_slice, number=number))
        assert engine.check() == []
    assert rows(engine)["records"] + rows(engine)["journal"] > 0
    engine.close()
    engine = open_engine()
    assert engine.check() == []
    wait_until(lambda: removed(engine))


def test_rows_that_are_left_of_a_branch_are_found(open_engine: OpenEngine, data_dir: Path) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    inside.transact(engine, partial(transitions.forget_branch, number=engine.branch("main").number))
    assert {finding.where for finding in engine.check()} >= {"records", "journal", "heads"}


def test_a_refused_drop_names_builds_and_locks_at_once(engine: Engine) -> None:
    shadow = built(engine).shadow_index_id
    lock = engine.acquire_lock("main", "MIGRATION", "ann")
    with pytest.raises(InUse) as refused:
        engine.drop_branch("main")
    uses = "; ".join(refused.value.uses)
    assert (shadow in uses, lock.lock_id in uses) == (True, True), uses
    engine.write("main", [put("goes on")], "ann", tokens=[lock.token])
