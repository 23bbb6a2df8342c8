"""The figures of many live indexes come from memory: they read the rows of few, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.scale.many_indexes import copy_index
from shadowswitch import Engine
from shadowswitch.service.http.access import LOCAL, Access, Caller, Scope
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.routes.metrics import exposition
from shadowswitch.service.http.routes.shadows import overview
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, live, put

OpenEngine = Callable[..., Engine]
DECODED = (inside.Step.DECODE_SHADOW, inside.Step.DECODE_GENERATION, inside.Step.READ_INDEX_ROW)
COUNT, LISTED = 60, 5


def copied(open_engine: OpenEngine) -> tuple[Engine, list[str]]:
    """An engine with so many live indexes, and the names of their branches."""
    engine = open_engine(sound=False, janitor_interval_s=3600.0, recheck_interval_s=0)  # one directory for all
    engine.create_branch("main")
    fill(engine, 20)
    live(engine, backend="kv")
    names = [f"b{number}" for number in range(1, COUNT)]
    for name in names:
        engine.create_branch(name)
    engine.clean_up()
    row = inside.catalog(engine).indexes()[0]
    copy_index(engine, row, {engine.branch(name).number: name for name in names})
    return engine, ["main", *names]


def counted(patch: pytest.MonkeyPatch) -> Counter[inside.Step]:
    """Count the rows that are decoded from now on."""
    found = Counter[inside.Step]()
    for step in DECODED:

        def noted(ordinary: Any, *given: Any, step: inside.Step = step) -> Any:
            found[step] += 1
            return ordinary(*given)

        inside.wrap(patch, step, noted)
    return found


def test_the_journals_that_are_held_most_are_listed(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, names = copied(open_engine)
    for number, name in enumerate(names[10:18]):
        engine.write(name, [put(str(n)) for n in range(10 * number + 1)])
    engine.hold_changes("me", names[40], 0)
    assert len(engine.stats()["journal"]) == COUNT, "up to JOURNALS_MAX branches, all of them"
    inside.patch_limit(monkeypatch, inside.Limit.JOURNALS_MAX, LISTED)
    decoded = counted(monkeypatch)
    figures = engine.stats()["journal"]
    assert decoded[inside.Step.DECODE_GENERATION] <= LISTED
    assert [one["branch"] for one in figures] == names[18 - LISTED : 18]
    assert all(one["held_by"][0]["changes"] > 0 for one in figures)


def test_what_retired_holds_no_journal(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its generation may still be open for readers: the row decides, and another branch has its place in the list."""
    engine, names = copied(open_engine)
    inside.patch_limit(monkeypatch, inside.Limit.JOURNALS_MAX, LISTED)
    for name in names[10:20]:
        engine.write(name, [put("a")])
    with engine.reader(names[19], KIND, min_lsn=0):
        engine.drop_index(names[19], KIND)
        assert [one["branch"] for one in engine.stats()["journal"]] == names[19 - LISTED : 19]


def test_the_figures_of_indexes_decode_no_row(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, names = copied(open_engine)
    engine.write(names[3], [put("a")])
    infos = engine.indexes()
    with monkeypatch.context() as patch:
        decoded = counted(patch)
        figures = engine.index_figures()
        latencies = engine.latencies()
        assert not decoded
        overview[0].fn(Host(engine, Access(), Options()), LOCAL)
        assert decoded == {inside.Step.DECODE_SHADOW: 10}, "the recent activity"
    for name in ("branch_name", "index_type", "generation", "record_count", "lag_changes", "pins"):
        assert [getattr(one, name) for one in figures] == [getattr(one, name) for one in infos]
    assert latencies == engine.stats()["latencies"]
    assert [one.branch_name for one in engine.index_figures(lambda name: name == names[5])] == [names[5]]


def test_the_metrics_decode_few_rows(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, names = copied(open_engine)
    inside.patch_limit(monkeypatch, inside.Limit.JOURNALS_MAX, LISTED)
    host = Host(engine, Access(), Options())
    everything = exposition(host, LOCAL).decode()
    assert everything.count("shadowswitch_index_records{") == COUNT
    decoded = counted(monkeypatch)
    exposition(host, LOCAL)
    assert decoded.total() <= 2 * LISTED
    text = exposition(host, Caller("me", frozenset({Scope.READ}), (names[7],))).decode()
    assert text.count("shadowswitch_index_records{") == 1
