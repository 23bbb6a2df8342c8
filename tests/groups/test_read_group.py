"""Several indexes are read together: every reader of a view shows the branch as of one LSN."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shadowswitch import (
    Engine,
    EngineClosed,
    GroupResult,
    GroupView,
    InvalidConfig,
    Put,
    SwitchRequest,
    Timeout,
    UnknownIndex,
)
from tests.support import inside
from tests.support.engine_helpers import TYPES, crew, put, wait_until
from tests.support.group_helpers import branches_with_indexes, started

BOTH = ["SEARCH_INDEX", "GRAPH_INDEX"]
LEFT = ["left"]
PATIENT = SwitchRequest(switch_timeout_seconds=60)


@pytest.fixture
def two(engine: Engine) -> Engine:
    """A branch with two live indexes, of fts5 and of kv."""
    branches_with_indexes(engine, LEFT)
    return engine


def versions(view: GroupView, kind: str) -> dict[str, int]:
    return {record.id: record.lsn for record in view[kind].scan()}


def test_all_readers_show_one_lsn_under_a_writer_again_and_again(two: Engine) -> None:
    written = iter(range(1_000_000))

    def write() -> None:
        n = next(written)
        two.write("left", [Put(TYPES[0], f"w{n % 20}", {"text": f"edit{n}"}), Put(TYPES[0], "twin", {"text": f"t{n}"})])

    with crew() as hands:
        hands.start(write)
        for _ in range(25):
            before = two.head("left")
            with two.read_group("left", BOTH, timeout_s=60) as view:
                assert {view[kind].lsn for kind in view} | {view.lsn} == {view.lsn}
                assert view.lsn >= before
                assert {view[kind].applied_lsn() for kind in BOTH} == {view.lsn}
                first = versions(view, "SEARCH_INDEX")
                assert first == versions(view, "GRAPH_INDEX")
                assert max(first.values()) <= view.lsn
    assert two.stats()["counters"]["group_views"] == 25


def test_a_view_stays_at_its_moment_while_writers_and_followers_go_on(two: Engine) -> None:
    with two.read_group("left", BOTH, timeout_s=60) as view:
        lsn = view.lsn
        receipt = two.write("left", [put("late", "latecomer"), put("1", "changed")])
        for kind in BOTH:
            with two.reader("left", kind, min_lsn=receipt.lsn, timeout_s=60) as reader:
                assert reader.get(TYPES[0], "late") is not None
        for kind in BOTH:
            assert view[kind].get(TYPES[0], "late") is None
            assert view[kind].applied_lsn() == lsn
            assert view[kind].count() == 200
            assert "late" not in {record.id for record in view[kind].scan()}
        assert view["SEARCH_INDEX"].search("latecomer") == []
        assert [hit.id for hit in view["SEARCH_INDEX"].search("word1")] == ["1"]
        assert view["SEARCH_INDEX"].search("changed") == []
        assert view["GRAPH_INDEX"].search("late") == []
        scan = view["GRAPH_INDEX"].scan()
        next(scan)
        assert view["SEARCH_INDEX"].search("hello", limit=5, where={"text": "hello word3"}) != []
    with two.read_group("left", BOTH, min_lsn=receipt.lsn, timeout_s=60) as view:
        assert view.lsn >= receipt.lsn
        assert [hit.id for hit in view["SEARCH_INDEX"].search("latecomer")] == ["late"]


def test_a_view_never_shows_a_group_half_switched(two: Engine) -> None:
    group, seen = started(two, LEFT), set()
    old = {kind: two.index("left", kind).generation for kind in BOTH}
    new = {one.index_type: one.generation for one in group.members}

    def read() -> None:
        with two.read_group("left", BOTH, timeout_s=60) as view:
            seen.add(tuple(view[kind].generation for kind in BOTH))

    with crew() as hands:
        hands.start(read)
        hands.start(lambda: two.write("left", [put("busy", "busy")]))
        wait_until(lambda: seen)
        assert two.switch_group(group.id, PATIENT).success
        for _ in range(4):
            assert two.rollback_group(group.id, PATIENT).success
    pairs = {tuple(numbers[kind] for kind in BOTH) for numbers in (old, new)}
    assert seen <= pairs
    with two.read_group("left", BOTH, timeout_s=60) as view:
        assert tuple(view[kind].generation for kind in BOTH) == tuple(new[kind] for kind in BOTH)


def test_a_pointer_that_moves_while_a_view_is_opened_begins_it_anew(
    two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pointers move between the pins and the freeze: the view is of what is live then."""
    group = started(two, LEFT)
    switched: list[GroupResult] = []

    def freeze(ordinary: Any, *given: Any) -> Any:
        if not switched:
            switched.append(two.switch_group(group.id, PATIENT))
        return ordinary(*given)

    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.FREEZE_VIEW, freeze)
        with two.read_group("left", BOTH, timeout_s=120) as view:
            assert switched[0].success
            assert {view[kind].generation for kind in BOTH} == {one.generation for one in group.members}


def test_a_view_that_is_too_old_is_closed_by_the_engine(two: Engine) -> None:
    view = two.read_group("left", BOTH, max_age_s=0.05, timeout_s=60)
    wait_until(lambda: view.expired, 60)
    for kind in BOTH:
        with pytest.raises(Timeout, match=r"open for longer than 0\.05 s"):
            view[kind].count()
    wait_until(lambda: two.stats()["counters"].get("group_views_expired") == 1)
    wait_until(lambda: two.stats()["pins"] == 0)
    view.close()
    with two.read_group("left", BOTH, timeout_s=60) as fresh:
        assert fresh["SEARCH_INDEX"].count() == 200


def test_a_view_in_a_call_is_closed_behind_that_call(two: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    view = two.read_group("left", BOTH, max_age_s=0.05, timeout_s=60)
    inside_call, go_on = threading.Event(), threading.Event()

    def search() -> None:
        inside_call.set()
        assert go_on.wait(60)

    inside.before_search(monkeypatch, view["SEARCH_INDEX"], search)
    with crew() as hands:
        hands.start(lambda: hands.stop.is_set() or view["SEARCH_INDEX"].search("hello"))
        assert inside_call.wait(60)
        wait_until(lambda: view.expired, 60)
        go_on.set()
        hands.stop.set()
    wait_until(lambda: two.stats()["pins"] == 0, 60)


def test_a_closed_engine_closes_its_views(two: Engine) -> None:
    view = two.read_group("left", BOTH, timeout_s=60)
    two.close()
    with pytest.raises(EngineClosed, match="engine is closed"):
        view["SEARCH_INDEX"].count()


def test_a_view_that_is_dropped_lets_go(two: Engine) -> None:
    view = two.read_group("left", BOTH, timeout_s=60)
    assert two.stats()["pins"] == 2
    del view
    wait_until(lambda: two.stats()["pins"] == 0, 60)


def test_a_view_pins_what_it_shows(two: Engine) -> None:
    group = started(two, LEFT)
    with two.read_group("left", BOTH, timeout_s=60) as view:
        request = SwitchRequest(switch_timeout_seconds=60, backup_current=False)
        assert two.switch_group(group.id, request).success
        inside.sweep(two)
        assert view["SEARCH_INDEX"].count() == view["GRAPH_INDEX"].count() == 200
    assert two.stats()["pins"] == 0


@pytest.mark.parametrize("types", ["SEARCH_INDEX", [], ["SEARCH_INDEX", "SEARCH_INDEX"], None, ["no such type!"]])
def test_wrong_index_types_are_refused(two: Engine, types: Any) -> None:
    with pytest.raises((InvalidConfig, ValueError)):
        two.read_group("left", types)


def test_what_cannot_be_read_together_is_refused(two: Engine) -> None:
    with pytest.raises(UnknownIndex, match="VECTOR_INDEX"):
        two.read_group("left", ["SEARCH_INDEX", "VECTOR_INDEX"])
    with pytest.raises(InvalidConfig, match="beyond the head"):
        two.read_group("left", BOTH, min_lsn=two.head("left") + 1)
    for age in (0, -1, 1e9, True, "30"):
        with pytest.raises(InvalidConfig, match="max_age_s"):
            two.read_group("left", BOTH, max_age_s=age)  # type: ignore[arg-type]
    assert two.stats()["pins"] == 0
