"""Pages and counts of shadows read as many rows as they answer with, and agree with the catalog after every step."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from shadowswitch import Engine, InvalidTransition
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable, stored_shadows
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.removal import forget_ended
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


def page_ids(engine: Engine, limit: int, *, newest_first: bool = False, branch: str | None = None) -> list[str]:
    ids, after = [], 0
    while page := engine.shadows(branch, limit=limit, after=after, newest_first=newest_first):
        ids += [one.shadow_index_id for one in page]
        after = page[-1].generation
    return ids


def test_pages_come_in_both_orders(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    engine.create_branch("other")
    mine, others = ended(engine, 7), ended(engine, 4, "other")
    assert page_ids(engine, 3) == [*mine, *others]
    assert page_ids(engine, 3, newest_first=True) == [*mine, *others][::-1]
    assert page_ids(engine, 2, branch="other", newest_first=True) == others[::-1]
    wanted = [one.shadow_index_id for one in engine.shadows(limit=2, wanted=lambda name: name == "other")]
    assert wanted == others[:2], "a page is full, whatever lies before it"
    engine.drop_branch("main")
    assert page_ids(engine, 3) == others
    assert engine.count_shadows() == {"other": {"CANCELLED": 4}}
    assert engine.count_shadow_states() == {"CANCELLED": 4}
    engine.clean_up()
    assert (page_ids(engine, 3), engine.count_shadow_states()) == (others, {"CANCELLED": 4})


def test_a_dropped_branch_does_not_hide_the_shadows_of_its_name(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    (old,) = ended(engine, 1)
    row = inside.catalog(engine).shadow(old)
    engine.count_shadows()
    engine.drop_branch("main")
    engine.create_branch("main")
    new = begin(engine)
    engine.count_shadows()
    inside.transact(engine, lambda commit: commit.put_shadow(row))  # its removal goes on in the background
    assert engine.count_shadows() == {"main": {"BUILDING": 1}}
    engine.cancel_build(new.shadow_index_id)


def test_a_filter_may_ask_the_engine(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    (id,) = ended(engine, 1)
    assert [one.shadow_index_id for one in engine.shadows(wanted=lambda name: bool(engine.shadows(name)))] == [id]


def test_a_page_and_the_counts_read_few_rows(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(open_engine)
    ids = ended(engine, 1200)
    engine.count_shadow_states()  # the first look reads every row
    decoded = inside.count_decoded_shadows(monkeypatch, inside.catalog(engine))
    assert [one.shadow_index_id for one in engine.shadows(limit=10, after=engine.shadow(ids[700]).generation)] == (
        ids[701:711]
    )
    assert [one.shadow_index_id for one in engine.shadows(limit=2, newest_first=True)] == ids[:-3:-1]
    assert engine.shadows(state="BUILT") == engine.shadows(wanted=lambda _: False) == []
    assert engine.count_shadows(state="CANCELLED") == {"main": {"CANCELLED": 1200}}
    assert engine.count_shadow_states() == {"CANCELLED": 1200}
    assert 10 <= len(decoded) < 20
    shadow = begin(engine)
    assert engine.count_shadow_states() == {"CANCELLED": 1200, "BUILDING": 1}
    assert [one.shadow_index_id for one in engine.shadows(state="BUILDING")] == [shadow.shadow_index_id]
    assert len(decoded) < 60, "of a transaction, the rows that it has put"
    engine.cancel_build(shadow.shadow_index_id)


def test_after_a_restart_and_a_switch_the_counts_are_those_of_the_rows(open_engine: OpenEngine) -> None:
    engine = opened(open_engine)
    live(engine), live(engine)
    ended(engine, 5)
    before = engine.count_shadows(), [one.shadow_index_id for one in engine.shadows()]
    engine.close()
    engine = open_engine()
    assert before == (engine.count_shadows(), [one.shadow_index_id for one in engine.shadows()])
    assert Counter(str(one.state) for one in engine.shadows()) == engine.count_shadow_states()


@pytest.mark.parametrize("most", [10_000, 5])
def test_the_table_agrees_with_the_rows(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Rows are put, moved and removed at random. Some transactions are taken back; some readers come late."""
    inside.patch_limit(monkeypatch, inside.Limit.CHANGED_SHADOWS, most)
    engine = opened(open_engine)
    ids = ended(engine, 20)
    catalog, chance = inside.catalog(engine), random.Random(7)
    dropped: set[int] = set()
    table = ShadowTable(catalog, dropped)

    def step(commit: Commit) -> None:
        for id in chance.sample(ids, 4):
            row = commit.find_shadow(id)
            if row is None:
                continue
            if chance.random() < 0.2:
                forget_ended(commit, [id], [])
            else:
                state = chance.choice([ShadowState.CANCELLED, ShadowState.FAILED, ShadowState.CLEANUP])
                commit.put_shadow(msgspec.structs.replace(row, branch=chance.choice([1, 8, 9]), state=state))
        if chance.random() < 0.3:
            raise InvalidTransition("taken back")

    for round in range(60):
        with contextlib.suppress(InvalidTransition):
            inside.transact(engine, step)
        if round == 40:
            dropped.add(9)
        if chance.random() < 0.5:
            continue
        rows = stored_shadows(catalog, lambda head: head.branch not in dropped)
        for branch in (None, 1, 8, 9):
            mine = [row for row in rows if branch in (None, row.branch)]
            assert list(table.pages(branch)) == mine
            assert list(table.pages(branch, ShadowState.FAILED)) == [row for row in mine if row.state == "FAILED"]
            assert table.count(branch) == Counter(str(row.state) for row in mine)
    for row in stored_shadows(catalog, lambda _: True):
        inside.transact(engine, lambda commit, id=row.id: forget_ended(commit, [id], []))  # type: ignore[misc]
    assert (list(table.pages()), table.count(), table.count_by_branch()) == ([], {}, {})
