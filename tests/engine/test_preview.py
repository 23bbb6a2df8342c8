"""Preview: a shadow that waits or soaks is read on purpose, by its id, here and in other processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from shadowswitch import (
    Engine,
    EngineClosed,
    InvalidConfig,
    InvalidTransition,
    Put,
    Reader,
    ShadowSwitchError,
    SwitchRequest,
    Timeout,
    UnknownShadow,
)
from shadowswitch.engine.reader import outside_reader
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, attempt, built, fill, found, live, put, wait_until
from tests.support.external_helpers import begin, complete, delivered
from tests.support.group_helpers import BRANCHES, branches_with_indexes, started

FINAL = SwitchRequest(backup_current=False)
OTHER = {"tokenizer": "porter"}


@pytest.fixture
def waiting(filled: Engine) -> tuple[Engine, str]:
    """A live index, and a BUILT shadow of other options."""
    live(filled)
    return filled, built(filled, **OTHER).shadow_index_id


def preview(engine: Engine, id: str, query: str, branch: str = "main", **how: Any) -> set[str]:
    """The ids that a shadow gives for a query."""
    with engine.reader(branch, KIND, shadow_index_id=id, **how) as reader:
        return {hit.id for hit in reader.search(query, limit=1000)}


def outside(engine: Engine, id: str, query: str) -> set[str]:
    """The same, as a reader of another process reads."""
    with outside_reader(engine.path, inside.catalog(engine), "main", KIND, id) as reader:
        return {hit.id for hit in reader.search(query, limit=1000)}


def _shows_outside(engine: Engine, id: str, query: str) -> bool:
    return outside(engine, id, query) == {"x"}


def test_a_built_shadow_is_read_with_its_own_options_beside_the_live_index(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    engine.write("main", [put("1", "running")])
    lsn = engine.head("main")
    assert preview(engine, id, "run", min_lsn=lsn) == {"1"}
    assert found(engine, "run", min_lsn=lsn) == set()
    with engine.reader("main", KIND, shadow_index_id=id) as reader:
        assert reader.generation == engine.shadow(id).generation != engine.index("main", KIND).generation
    wait_until(lambda: outside(engine, id, "run") == {"1"})


def test_a_preview_with_min_lsn_shows_that_write_without_a_refresh(open_engine: Any) -> None:
    engine = open_engine(refresh_interval_ms=600_000)
    engine.create_branch("main")
    first = live(engine)
    live(engine)
    shadows = {one.generation: one.shadow_index_id for one in engine.shadows()}
    ids = [*shadows.values(), built(engine).shadow_index_id]
    assert first in shadows, "the first one soaks"
    for n in range(20):
        receipt = engine.write("main", [put("a", f"edit{n}")])
        for id in ids:
            assert preview(engine, id, f"edit{n}", min_lsn=receipt.lsn) == {"a"}
    with pytest.raises(InvalidConfig, match="beyond the head"):
        engine.reader("main", KIND, min_lsn=10_000, shadow_index_id=ids[-1])


def test_a_shadow_that_does_not_come_near_ends_the_wait(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    with inside.pause_apply(engine, engine.shadow(id).generation):
        lsn = engine.write("main", [put("new")]).lsn
        with pytest.raises(Timeout):
            engine.reader("main", KIND, lsn, 0.1, id)
    assert preview(engine, id, "wordnew", min_lsn=lsn) == {"new"}
    assert engine.stats()["pins"] == 0, "a wait that ended holds nothing"


def test_a_preview_lasts_through_the_switch_and_the_rollback_of_its_shadow(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    before = engine.index("main", KIND).shadow_index_id
    with engine.reader("main", KIND, shadow_index_id=id) as reader:
        assert engine.switch(id).success
        for shadow in (id, before):
            lsn = engine.write("main", [put("x", f"after{shadow[:8]}")]).lsn
            for one in (id, before):
                assert preview(engine, one, f"after{shadow[:8]}", min_lsn=lsn) == {"x"}
                wait_until(partial(_shows_outside, engine, one, f"after{shadow[:8]}"))
            assert reader.search(f"after{shadow[:8]}")
            assert engine.rollback("main", KIND).success


def test_a_cancelled_shadow_keeps_its_files_until_its_preview_is_closed(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    path = engine.shadow(id).shadow_index_path
    reader = engine.reader("main", KIND, shadow_index_id=id)
    engine.cancel_build(id)
    for _ in range(3):
        engine.clean_up()
    assert [hit.id for hit in reader.search("word7")] == ["7"]
    assert os.path.exists(path)
    with pytest.raises(InvalidTransition, match="is CANCELLED"):
        engine.reader("main", KIND, shadow_index_id=id)
    reader.close()
    wait_until(lambda: not os.path.exists(path))


def test_a_preview_of_another_process_keeps_the_files(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    path = engine.shadow(id).shadow_index_path
    with outside_reader(engine.path, inside.catalog(engine), "main", KIND, id) as reader:
        engine.cancel_build(id)
        for _ in range(3):
            engine.clean_up()
        assert [hit.id for hit in reader.search("word7")] == ["7"]
        assert os.path.exists(path)
    wait_until(lambda: not os.path.exists(path))


def test_the_queries_of_a_preview_are_not_those_of_the_live_index(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    found(engine, "hello")
    preview(engine, id, "word1")
    preview(engine, engine.index("main", KIND).shadow_index_id, "word2")
    assert list(inside.live(engine).asked) == ["hello"]
    assert list(inside.generation(engine, engine.shadow(id).generation).asked) == []


def both_ways(engine: Engine, id: Any, branch: str = "main", index_type: str = KIND) -> ShadowSwitchError:
    """The error of a preview, the same for a reader of another process."""
    error = attempt(lambda: engine.reader(branch, index_type, shadow_index_id=id))

    def read_outside() -> Reader:
        with outside_reader(engine.path, inside.catalog(engine), branch, index_type, id) as reader:
            return reader

    other = attempt(read_outside)
    assert isinstance(error, ShadowSwitchError), error
    assert (type(other), str(other)) == (type(error), str(error))
    assert engine.stats()["pins"] == 0
    assert error.hint
    return error


@pytest.mark.parametrize(
    ("end", "state", "hint"),
    [
        (lambda engine, id: None, "BUILDING", "wait_for"),
        (lambda engine, id: engine.fail_build(id, "a drill"), "FAILED (a drill)", "retry_build"),
        (lambda engine, id: engine.cancel_build(id), "CANCELLED", "read the live index"),
    ],
)
def test_a_shadow_that_is_not_whole_says_what_to_do(
    filled: Engine, end: Callable[[Engine, str], object], state: str, hint: str
) -> None:
    id = filled.start_build("main", KIND, TYPES).shadow_index_id
    filled.pause_build(id)
    wait_until(lambda: filled.shadow(id).state != "PREPARING")
    end(filled, id)
    error = both_ways(filled, id)
    assert isinstance(error, InvalidTransition)
    assert state in error.message
    assert hint in error.hint


def test_a_generation_whose_soak_was_ended_is_not_read(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    before = engine.index("main", KIND).shadow_index_id
    assert engine.switch(id, FINAL).success
    assert "is CLEANUP" in both_ways(engine, before).message


def test_unknown_shadows_and_those_of_other_indexes_are_refused(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    engine.create_branch("other")
    assert isinstance(both_ways(engine, "f" * 32), UnknownShadow)
    assert isinstance(both_ways(engine, 7), InvalidConfig)
    for branch, index_type in (("other", KIND), ("main", "GRAPH_INDEX")):
        error = both_ways(engine, id, branch, index_type)
        assert isinstance(error, InvalidConfig)
        assert f"is of {KIND} of branch 'main', not of {index_type} of branch '{branch}'" in error.message
    engine.close()
    with pytest.raises(EngineClosed):
        engine.reader("main", KIND, shadow_index_id=id)


def test_a_shadow_in_a_format_of_its_builder_is_refused_with_its_path(filled: Engine) -> None:
    shadow = begin(filled)
    delivered(filled, shadow)
    assert complete(filled, shadow).state == "BUILT"
    error = both_ways(filled, shadow.shadow_index_id)
    assert isinstance(error, InvalidConfig)
    assert "generations/main/SEARCH_INDEX" in error.hint


def test_weights_of_a_retuned_index_are_those_of_its_preview(engine: Engine) -> None:
    engine.write("main", [
        Put("object_type", "in_body", {"title": "other words", "body": "amber amber amber"}),
        Put("object_type", "in_title", {"title": "amber and more words", "body": "nothing"}),
        *(Put("object_type", f"k{n}", {"title": f"t{n}", "body": f"b{n}"}) for n in range(20)),
    ])  # fmt: skip
    live(engine, columns={"title": 1.0, "body": 1.0})
    id = engine.index("main", KIND).shadow_index_id
    engine.retune("main", KIND, {"columns": {"title": 50.0, "body": 1.0}})
    assert engine.switch(built(engine, columns={"title": 1.0, "body": 1.0}).shadow_index_id).success
    with engine.reader("main", KIND, shadow_index_id=id) as reader:
        assert reader.search("amber")[0].id == "in_title", "the retuned one soaks"
    with outside_reader(engine.path, inside.catalog(engine), "main", KIND, id) as reader:
        assert reader.search("amber")[0].id == "in_title"
    with engine.reader("main", KIND) as reader:
        assert reader.search("amber")[0].id == "in_body"


def test_members_of_a_group_are_previewed_before_it_is_switched(engine: Engine) -> None:
    branches_with_indexes(engine, records=20)
    group = started(engine)
    for one in group.members:
        with engine.reader(one.branch_name, one.index_type, shadow_index_id=one.shadow_index_id) as reader:
            assert reader.count() == 20
    assert {one.branch_name for one in group.members} == set(BRANCHES)


@pytest.mark.parametrize("mode", ["snapshot", "following"])
def test_a_shadow_of_a_fork_shows_the_fork(filled: Engine, mode: str) -> None:
    live(filled)
    filled.fork_branch("fork", "main", mode=mode)
    parents = built(filled).shadow_index_id
    filled.write("fork", [put("ours", "ours")])
    id = built(filled, "fork").shadow_index_id
    receipt = filled.write("fork", [put("ours", "changed")])
    assert preview(filled, id, "changed", "fork", min_lsn=receipt.lsn) == {"ours"}
    later = filled.write("main", [put("theirs", "theirs")])
    shown = {"theirs"} if mode == "following" else set()
    how = {"min_lsn": later.lsn} if mode == "following" else {}
    assert preview(filled, id, "theirs", "fork", **how) == shown
    assert preview(filled, parents, "ours") == set()
    assert "of branch 'main'" in both_ways(filled, parents, "fork").message


def test_a_preview_goes_on_while_its_shadow_is_validated_and_switched_back_and_forth(
    waiting: tuple[Engine, str],
) -> None:
    engine, id = waiting
    fill(engine, 3000, text="more")
    with engine.reader("main", KIND, min_lsn=engine.head("main"), shadow_index_id=id) as reader:
        assert inside.check_generation(engine, reader.generation, "DIGEST", "SAMPLE_READ_BACK").errors == []
        assert reader.count() == 3000
        assert engine.switch(id).success
        assert engine.rollback("main", KIND).success
        assert reader.count() == 3000
