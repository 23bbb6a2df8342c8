"""Rows of ended shadows go after a while, in batches; lists of shadows come by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, found, live, wait_until
from tests.support.external_helpers import begin

OpenEngine = Callable[..., Engine]


def cancelled(engine: Engine) -> str:
    """A build that was cancelled."""
    shadow = begin(engine)
    engine.cancel_build(shadow.shadow_index_id)
    return shadow.shadow_index_id


def states(engine: Engine) -> list[str]:
    return [str(shadow.state) for shadow in engine.shadows()]


def opened(open_engine: OpenEngine, **settings: Any) -> Engine:
    engine = open_engine(**settings)
    engine.create_branch("main")
    fill(engine, 20)
    return engine


def test_ended_shadows_go_and_the_audit_keeps_them(open_engine: OpenEngine) -> None:
    engine = opened(open_engine, ended_keep_s=0.3, soak_s=0.1, failed_keep_s=0.1)
    live(engine), live(engine)
    ids = [cancelled(engine) for _ in range(3)]
    failed = begin(engine)
    engine.fail_build(failed.shadow_index_id, "no room")
    assert len(engine.shadows()) == 6
    wait_until(lambda: states(engine) == ["ACTIVE"])
    assert len(found(engine, "hello")) == 20
    kept = {entry.subject for entry in engine.audit()}
    assert kept >= {*ids, failed.shadow_index_id}
    assert engine.check() == []


def test_they_stay_for_their_time_also_over_a_restart(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    shadow = cancelled(engine)
    wait_until(lambda: inside.catalog(engine).shadow(shadow).ended_at is not None)
    engine.clean_up()
    at = inside.catalog(engine).shadow(shadow).ended_at
    assert states(engine) == ["CANCELLED"]
    engine.close()
    engine = open_engine()
    engine.clean_up()
    assert inside.catalog(engine).shadow(shadow).ended_at == at, "the time does not begin again"
    engine.close()
    engine = open_engine(ended_keep_s=0)
    wait_until(lambda: engine.shadows() == [])


def test_a_shadow_with_kept_files_is_not_forgotten(open_engine: OpenEngine) -> None:
    engine = opened(open_engine, ended_keep_s=0, failed_keep_s=3600.0)
    failed = begin(engine)
    engine.fail_build(failed.shadow_index_id, "no room")
    engine.clean_up()
    assert states(engine) == ["FAILED"]
    engine.retry_build(failed.shadow_index_id)
    engine.cancel_build(failed.shadow_index_id)


def test_what_was_rolled_back_from_is_remembered(open_engine: OpenEngine) -> None:
    engine = opened(open_engine, ended_keep_s=0, soak_s=0.2)
    live(engine)
    second = live(engine, tokenizer="porter")
    assert engine.rollback("main", KIND).success
    wait_until(lambda: states(engine) == ["ACTIVE", "CLEANUP"])
    wait_until(lambda: not inside.catalog(engine).generation(second))
    for _ in range(3):
        engine.clean_up()
    assert [shadow.generation for shadow in engine.shadows()][-1] == second


def test_many_ended_rows_go_in_batches_and_a_claim_reads_none_of_them(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(open_engine, janitor_interval_s=3600.0)
    template = cancelled(engine)
    engine.clean_up()
    row = inside.catalog(engine).shadow(template)

    def copy(commit: Commit) -> None:
        for number in range(1000):
            commit.put_shadow(msgspec.structs.replace(row, id=f"{number:032x}"))

    inside.transact(engine, copy)
    assert engine.count_shadows() == {"main": {"CANCELLED": 1001}}
    with monkeypatch.context() as patch:
        decoded = inside.count_decoded_shadows(patch, inside.catalog(engine))
        begin(engine)
    assert len(decoded) < 100
    engine.cancel_build(engine.shadows(state="BUILDING")[0].shadow_index_id)
    engine.close()
    engine = open_engine(ended_keep_s=0)
    wait_until(lambda: engine.shadows() == [])
    assert engine.stats()["counters"]["shadows_forgotten"] == 1002


def test_shadows_come_by_page(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    ids = [cancelled(engine) for _ in range(7)]
    pages: list[list[str]] = []
    after = 0
    while page := engine.shadows(limit=3, after=after):
        pages.append([shadow.shadow_index_id for shadow in page])
        after = page[-1].generation
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    assert [shadow.shadow_index_id for shadow in engine.shadows()] == ids
    assert engine.shadows("main", "CANCELLED", 2)[1].shadow_index_id == ids[1]
    for wrong in ({"limit": 0}, {"limit": "3"}, {"after": -1}):
        with pytest.raises(InvalidConfig):
            engine.shadows(**wrong)
