"""A start costs as much as there is to do: of an ended shadow whose files are gone it reads the head of the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, SwitchRequest
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.service.cli.status import status_of
from shadowswitch.storage.catalog.rows import ShadowHead, ShadowRow, SwitchPlan
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside
from tests.support.engine_helpers import fill, live
from tests.support.external_helpers import begin
from tests.support.many_shadows import ended

OpenEngine = Callable[..., Engine]


def opened(open_engine: OpenEngine) -> Engine:
    engine = open_engine(janitor_interval_s=3600.0)
    engine.create_branch("main")
    fill(engine, 20)
    return engine


def test_a_start_decodes_no_row_of_a_shadow_at_rest(
    open_engine: OpenEngine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of ended shadows stay for days. A start, its first round of the Janitor, and a status read their heads."""
    engine = opened(open_engine)
    live(engine)
    ids = set(ended(engine, 500))
    building = begin(engine)
    engine.close()
    decoded: list[str] = []

    def noted(ordinary: Any, *given: Any) -> Any:
        row = ordinary(*given)
        decoded.append(row.id)
        return row

    inside.wrap(monkeypatch, inside.Step.DECODE_SHADOW, noted)
    engine = open_engine()
    engine.clean_up()
    assert engine.count_shadows()["main"]["CANCELLED"] == 500
    assert building.shadow_index_id in decoded
    assert not ids.intersection(decoded)
    found = status_of(inside.catalog(engine), data_dir, limit=3)
    assert (found["counts"]["shadows"], len(found["shadows"])) == (502, 3)
    assert len(ids.intersection(decoded)) == 2


def test_a_start_finds_what_ended_shadows_have_left(open_engine: OpenEngine) -> None:
    """One without the moment of its end, one with a plan, and one with the highest token are looked at."""
    engine = opened(open_engine)
    first, second, third = ended(engine, 3)
    request = msgspec.to_builtins(SwitchRequest())

    def change(commit: Commit) -> None:
        catalog = commit.catalog
        plan = SwitchPlan(1.0, 60.0, catalog.clock.moment(), request)
        commit.put_shadow(msgspec.structs.replace(commit.shadow(first), ended_at=None))
        commit.put_shadow(msgspec.structs.replace(commit.shadow(second), state=ShadowState.FAILED, plan=plan))
        commit.put_shadow(msgspec.structs.replace(commit.shadow(third), token=77))

    inside.transact(engine, change)
    catalog = inside.catalog(engine)
    standing = inside.shadow_table(engine).standing()
    assert [row.id for row in standing] == [first, second]
    assert inside.shadow_table(engine).at_rest() == {third: catalog.shadow(third).ended_at}
    engine.close()
    engine = open_engine()
    assert inside.catalog(engine).shadow(second).plan is not None
    engine.clean_up()
    assert inside.catalog(engine).shadow(first).ended_at is not None
    with inside.catalog(engine).read() as txn:
        assert inside.catalog(engine).number("token", txn) >= 77


def test_the_head_of_a_shadow_has_the_first_fields_of_its_row() -> None:
    head = [field.name for field in msgspec.structs.fields(ShadowHead)]
    assert head == [field.name for field in msgspec.structs.fields(ShadowRow)][: len(head)]
