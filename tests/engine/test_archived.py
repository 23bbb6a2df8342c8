"""An archived branch begins no build. What was begun before comes to its end, and what is live stays readable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Engine, InvalidTransition
from tests.support.engine_helpers import KIND, TYPES, built, fill, found, live
from tests.support.external_helpers import begin, complete, delivered

OpenEngine = Callable[..., Engine]


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """An engine whose branch `main` has 20 records."""
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    return engine


@pytest.mark.parametrize("how", [{}, {"external": True}, {"track_ready": True}])
def test_an_archived_branch_begins_no_build(engine: Engine, how: dict[str, Any]) -> None:
    engine.archive_branch("main")
    with pytest.raises(InvalidTransition, match=r"main.*ARCHIVED"):
        engine.start_build("main", KIND, TYPES, **how)
    assert engine.shadows() == []


def test_nor_a_rebuild_of_the_index_that_it_has(engine: Engine) -> None:
    live(engine)
    engine.archive_branch("main")
    with pytest.raises(InvalidTransition, match="ARCHIVED"):
        engine.rebuild("main", KIND, TYPES)
    assert len(engine.shadows()) == 1
    assert len(found(engine, "hello")) == 20


def test_nor_the_retry_of_a_build_that_failed_before(engine: Engine) -> None:
    shadow = begin(engine)
    engine.fail_build(shadow.shadow_index_id, "no room")
    engine.archive_branch("main")
    with pytest.raises(InvalidTransition, match="ARCHIVED"):
        engine.retry_build(shadow.shadow_index_id)
    assert engine.shadow(shadow.shadow_index_id).state == "FAILED"


def test_a_build_that_was_begun_before_is_completed_switched_to_and_rolled_back(engine: Engine) -> None:
    live(engine)
    shadow = built(engine, tokenizer="porter")
    engine.archive_branch("main")
    assert engine.switch(shadow.shadow_index_id).success
    assert engine.rollback("main", KIND).success
    assert len(found(engine, "hello")) == 20


def test_an_external_build_that_was_begun_before_is_completed(engine: Engine) -> None:
    shadow = begin(engine)
    delivered(engine, shadow)
    engine.archive_branch("main")
    engine.report_progress(shadow.shadow_index_id, 90)
    assert complete(engine, shadow).state == "BUILT"
    assert engine.switch(shadow.shadow_index_id).success


def test_an_index_of_an_archived_branch_that_cannot_be_served_is_built_again(open_engine: OpenEngine) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    path = engine.index("main", KIND).path
    engine.archive_branch("main")
    engine.close()
    shutil.rmtree(path)
    engine = open_engine()
    live(engine)
    assert len(found(engine, "hello")) == 20
    with pytest.raises(InvalidTransition, match="ARCHIVED"):
        engine.start_build("main", KIND, TYPES)
