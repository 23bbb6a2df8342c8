"""Branches by page, and figures that do not grow with the number of branches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowswitch import Engine, InvalidConfig
from tests.support import inside
from tests.support.engine_helpers import live, put

OpenEngine = Callable[..., Engine]


def branches(engine: Engine, count: int) -> list[str]:
    """Make branches; returns their names."""
    names = [f"b{number}" for number in range(count)]
    for name in names:
        engine.create_branch(name)
    return names


def test_branches_come_by_page(open_engine: OpenEngine) -> None:
    engine = open_engine()
    names = branches(engine, 7)
    pages: list[list[str]] = []
    after = 0
    while page := engine.branches(limit=3, after=after):
        pages.append([info.name for info in page])
        after = page[-1].number
    assert pages == [names[:3], names[3:6], names[6:]]
    assert [info.name for info in engine.branches()] == names
    assert engine.count_branches() == 7
    engine.drop_branch("b3")
    assert [info.name for info in engine.branches(limit=2, after=3)] == ["b4", "b5"], "a page is full"
    assert engine.count_branches() == 6
    assert engine.branches(after=2**40) == []


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1.5}, {"limit": True}, {"after": -1}, {"after": "b"}])
def test_a_wrong_page_is_refused(open_engine: OpenEngine, wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidConfig):
        open_engine().branches(**wrong)


def test_a_page_and_the_figures_look_at_few_branches(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine()
    names = branches(engine, 300)
    engine.write("b250", [put("1")])
    live(engine, "b250")
    engine.hold_changes("me", "b7", 0)
    with monkeypatch.context() as patch:
        looked = inside.count_heads_read(patch, inside.catalog(engine))
        assert [info.name for info in engine.branches(limit=10, after=100)] == names[100:110]
        figures = engine.stats()["journal"]
    assert [entry["branch"] for entry in figures] == ["b7", "b250"]
    assert len(looked) < 50
