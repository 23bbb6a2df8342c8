"""Pages whose order stays while others write, and searches of several indexes in one list."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Engine, Put, SearchPage
from shadowswitch.engine.search.held_pages import HITS_MAX, KEPT_S, SEARCHES_MAX, Held, HeldPages
from shadowswitch.model.errors import EngineClosed, InvalidConfig, UnknownBranch, UnknownIndex
from shadowswitch.model.records import Hit
from shadowswitch.model.search.merged import merge_by_rank
from shadowswitch.storage.clock import Clock
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND

TYPE = "object_type"


class HandClock(Clock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data") as engine:
        for branch in ("main", "other"):
            engine.create_branch(branch)
            chance = random.Random(branch)
            puts = [Put(TYPE, f"{branch}-{n:03}", {"text": "loop " * chance.randint(1, 9), "n": n}) for n in range(300)]
            engine.write(branch, puts)
            assert engine.rebuild(branch, KIND, [TYPE]).success
        yield engine


def _pages(engine: Engine, page: SearchPage) -> Iterator[SearchPage]:
    while page.cursor is not None:
        page = engine.next_page(page.cursor, "main")
        yield page


def test_pages_stay_as_they_were_at_the_first_one_whatever_is_written(engine: Engine) -> None:
    with engine.reader("main", KIND) as reader:
        everything = reader.search("loop", 1000)
    page = engine.search_pages("main", KIND, "loop", 7, fields=["n"])
    found = list(page.hits)
    for number, later in enumerate(_pages(engine, page)):
        assert len(later.hits) <= 7
        found += later.hits
        puts = [Put(TYPE, f"new-{number}-{n}", {"text": "loop " * 20, "n": -1}) for n in range(5)]
        deleted = everything[-1 - number]
        receipt = engine.write(
            "main", [*puts, Delete(TYPE, deleted.id), Put(TYPE, "main-150", {"text": "no", "n": -2})]
        )
        with engine.reader("main", KIND, min_lsn=receipt.lsn, timeout_s=30):
            pass
    assert [(hit.resource_type, hit.id, hit.score, hit.lsn) for hit in found] == [
        (hit.resource_type, hit.id, hit.score, hit.lsn) for hit in everything
    ]
    assert all(hit.fields == {"n": int(hit.id[-3:])} for hit in found), "fields are those of the version that was found"


def test_a_page_can_be_asked_for_again_and_the_last_one_has_no_cursor(engine: Engine) -> None:
    page = engine.search_pages("main", KIND, "loop", 200, highlight=True)
    assert page.cursor is not None
    second = engine.next_page(page.cursor)
    assert second == engine.next_page(page.cursor, "main")
    assert (len(second.hits), second.cursor) == (100, None)
    assert all(hit.highlights for hit in second.hits)
    assert (second.lsn, second.generation) == (page.lsn, page.generation)
    assert engine.search_pages("main", KIND, "absent").cursor is None
    assert engine.search_pages("main", KIND, "loop", 300).cursor is None


@pytest.mark.parametrize("wrong", ["", "x", "x.0", ".", ".0", "0", "x.-1", "x.٣", 7, None, "a" * 1000])
def test_a_cursor_that_is_not_held_is_refused(engine: Engine, wrong: Any) -> None:
    with pytest.raises(InvalidConfig, match="search again from the first page"):
        engine.next_page(wrong)


def test_a_cursor_is_of_one_branch_and_one_engine(engine: Engine) -> None:
    cursor = engine.search_pages("main", KIND, "loop").cursor
    assert cursor is not None
    with pytest.raises(InvalidConfig):
        engine.next_page(cursor, "other")
    for place in ("99999", "999999", "x"):
        name = cursor.split(".")[0]
        if place == "99999":
            assert engine.next_page(f"{name}.{place}").hits == []
        else:
            with pytest.raises(InvalidConfig):
                engine.next_page(f"{name}.{place}")
    engine.drop_branch("main")
    with pytest.raises(UnknownBranch):
        engine.next_page(cursor)
    engine.close()
    with pytest.raises(EngineClosed):
        engine.next_page(cursor)


def test_orders_are_let_go_by_age_and_by_number() -> None:
    clock = HandClock()
    pages = HeldPages(clock)
    held = Held("main", KIND, "q", None, False, [Hit(TYPE, "a", 1.0, 1)] * HITS_MAX, 10, 1, 1)
    first, second = pages.hold(held), pages.hold(held)
    clock.now = KEPT_S - 1
    assert len(pages.page(second)[1]) == 10
    clock.now += 2
    with pytest.raises(InvalidConfig):
        pages.page(first)
    assert pages.page(second)[2] is not None
    for _ in range(SEARCHES_MAX):
        pages.hold(held)
    with pytest.raises(InvalidConfig):
        pages.page(second)


def test_several_indexes_are_searched_in_one_list_by_rank(engine: Engine) -> None:
    assert engine.rebuild("other", "TITLE_INDEX", [TYPE], {"backend": "fts5"}).success
    own = {}
    for branch, index_type in (("main", KIND), ("other", KIND), ("other", "TITLE_INDEX")):
        with engine.reader(branch, index_type) as reader:
            own[branch, index_type] = reader.search("loop", 5, fields=["n"])
    found = engine.search_many("loop", ["main", "other", ("other", "TITLE_INDEX"), "main"], 5, fields=["n"])
    assert found == merge_by_rank(own, 5)
    assert [(one.branch_name, one.index_types) for one in found[:2]] == [
        ("other", (KIND, "TITLE_INDEX")),
        ("other", (KIND, "TITLE_INDEX")),
    ]
    assert [one.hit for one in found[:2]] == own["other", KIND][:2]
    assert len({(one.branch_name, one.hit.id) for one in found}) == 5
    assert found[0].score == pytest.approx(2 / 61)
    alone = engine.search_many("loop", ["main", "other"], 3)
    assert [(one.branch_name, one.score) for one in alone[:2]] == [("main", 1 / 61), ("other", 1 / 61)]
    where = {"n": {"lt": 3}}
    some = engine.search_many("loop", ["main", "other"], 100, where=where, highlight=True)
    assert sorted(one.hit.id for one in some) == [f"{branch}-00{n}" for branch in ("main", "other") for n in range(3)]
    assert all(one.hit.highlights for one in some)


@pytest.mark.parametrize(
    "wrong", ["main", [], [1], [("main",)], [("main", KIND, "x")], [("main", 1)], None, [str(n) for n in range(101)]]
)
def test_wrong_lists_of_indexes_are_refused(engine: Engine, wrong: Any) -> None:
    with pytest.raises(InvalidConfig):
        engine.search_many("loop", wrong)


def test_an_index_that_is_missing_is_named(engine: Engine) -> None:
    with pytest.raises(UnknownIndex, match="GRAPH_INDEX"):
        engine.search_many("loop", ["main", ("main", "GRAPH_INDEX")])
    with pytest.raises(UnknownBranch):
        engine.search_many("loop", ["main", "absent"])


def test_the_command_line_searches_several_indexes(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = engine.search_many("loop", ["main", "other"], 4, fields=["n"])
    engine.close()
    cli = Cli(capsys)
    call = ("search", "main", "loop", "--also", "other:SEARCH_INDEX", "--limit", 4, "--fields", "n")
    found = cli.json(*call, "--data", tmp_path / "data")["hits"]
    assert [(one["branch_name"], one["hit"]["id"], one["hit"]["fields"]) for one in found] == [
        (one.branch_name, one.hit.id, one.hit.fields) for one in expected
    ]
    text = cli(*call, "--data", tmp_path / "data")
    assert expected[1].hit.id in text
    assert f"n: {expected[0].hit.fields['n']}" in text  # type: ignore[index]
    cli.error(*call[:3], "--also", "other:NO_INDEX", "--data", tmp_path / "data", status=1)
