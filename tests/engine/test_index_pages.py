"""Live indexes by page: as many are looked at as are answered with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.http.access import LOCAL, Access, Caller, Scope
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.routes import indexes
from tests.support import inside
from tests.support.engine_helpers import put

OpenEngine = Callable[..., Engine]
OF_B = Caller("of b1", frozenset([Scope.READ]), ("b1",))
PLACES = ["1/A_INDEX", "1/B_INDEX", "2/A_INDEX", "2/B_INDEX", "3/A_INDEX", "3/B_INDEX"]


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """Three branches with two indexes each."""
    engine = open_engine()
    for name in ("b0", "b1", "b2"):
        engine.create_branch(name)
        engine.write(name, [put("1")])
        for kind in ("B_INDEX", "A_INDEX"):
            engine.rebuild(name, kind, ["object_type"])
    return engine


def places(engine: Engine, limit: int, branch: str | None = None) -> list[list[str]]:
    pages, after = [], ""
    while page := engine.indexes(branch, limit, after):
        pages.append([info.place for info in page])
        after = page[-1].place
    return pages


def test_indexes_come_by_page(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places(engine, 4) == [PLACES[:4], PLACES[4:]]
    assert places(engine, 1, "b1") == [[PLACES[2]], [PLACES[3]]]
    assert [info.place for info in engine.indexes()] == PLACES
    assert engine.index("b2", "B_INDEX").place == PLACES[5]
    decoded = inside.count_decoded_shadows(monkeypatch, inside.catalog(engine))
    assert [info.branch_name for info in engine.indexes(limit=1, after=PLACES[2])] == ["b1"]
    assert (engine.count_indexes(), engine.count_indexes(lambda name: name != "b1")) == (6, 4)
    assert 1 <= len(decoded) < 6
    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.READ_INDEX_ROW, lambda *_: pytest.fail("a row was read"))
        assert engine.count_indexes() == 6, "what is served is counted in memory"
    engine.drop_index("b1", "B_INDEX")
    assert places(engine, 2) == [PLACES[:2], ["2/A_INDEX", "3/A_INDEX"], ["3/B_INDEX"]], "a page is full"
    assert [info.place for info in engine.indexes(limit=1, after="2/B_INDEX")] == ["3/A_INDEX"]
    for wrong in ({"limit": 0}, {"after": "b1"}, {"after": 7}, {"after": "x/A_INDEX"}, {"after": f"{1 << 32}/A_INDEX"}):
        with pytest.raises(InvalidConfig):
            engine.indexes(**wrong)


def test_a_page_over_http_names_the_next_one(engine: Engine) -> None:
    host, of = Host(engine, Access(), Options()), indexes.indexes[0].fn
    first = of(host, LOCAL, limit=4)
    assert ([one.place for one in first.indexes], first.total_count, first.next_after) == (PLACES[:4], 6, PLACES[3])
    last = of(host, LOCAL, limit=4, after=first.next_after)
    assert ([one.place for one in last.indexes], last.total_count, last.next_after) == (PLACES[4:], 6, None)
    mine = of(host, OF_B, limit=4)
    assert ([one.place for one in mine.indexes], mine.total_count) == (PLACES[2:4], 2)
    whole = of(host, LOCAL, branch_name="b0", limit=1)
    assert ([one.place for one in whole.indexes], whole.total_count) == (PLACES[:1], 2)
