"""The parts of the demo's verdict: the audit, the loops under load, and the stalls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shadowswitch import Delete, Engine, Put
from shadowswitch.service.demo import report
from shadowswitch.service.demo.audit import audit
from shadowswitch.service.demo.workload import Acked, Load, Writer
from tests.support import inside


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        yield engine
        assert engine.check() == []


@pytest.fixture
def book(engine: Engine) -> dict[str, Acked]:
    """A small branch with a live index, and its acknowledged changes."""

    def put(id: str, marker: str) -> int:
        return engine.write("main", [Put("file", id, {"text": f"{marker} and more"})]).lsn

    first, former = put("kept", ""), "former1"
    put("edited", former)
    edited = put("edited", "marker2")
    put("deleted", "marker3")
    deleted = engine.write("main", [Delete("file", "deleted")]).lsn
    engine.rebuild("main", "SEARCH_INDEX", ["file"])
    return {
        "kept": Acked(first),
        "edited": Acked(edited, marker="marker2", former=former),
        "deleted": Acked(deleted, deleted=True, marker="marker3"),
    }


def test_the_audit_accepts_the_acknowledged_changes(engine: Engine, book: dict[str, Acked]) -> None:
    found = audit(engine, "main", book)
    assert (found.problems, found.records, found.deletes, found.searches) == ([], 3, 1, 3)


@pytest.mark.parametrize(
    ("id", "believed", "says"),
    [
        ("kept", Acked(1, deleted=True), "back in the index"),
        ("deleted", Acked(4, marker="marker3"), "lost from the index"),
        ("edited", Acked(2, marker="former1"), "acknowledged at LSN 2, the index has LSN 3"),
        ("edited", Acked(3, marker="marker9"), "with another text"),
        ("edited", Acked(3, marker="marker2", former="and"), "a search for and finds"),
        ("deleted", Acked(5, deleted=True, marker="marker2"), "a search for marker2 finds ['edited'], not []"),
        ("unheard", Acked(9), "lost from the index"),
    ],
)
def test_the_audit_finds_each_kind_of_difference(
    engine: Engine, book: dict[str, Acked], id: str, believed: Acked, says: str
) -> None:
    problems = audit(engine, "main", book | {id: believed}).problems
    assert any(text.startswith(f"{id}: ") and says in text for text in problems), problems


def test_the_audit_finds_a_record_without_an_acknowledged_write(engine: Engine, book: dict[str, Acked]) -> None:
    engine.write("main", [Put("file", "stranger", {"text": "x"})])
    assert audit(engine, "main", book).problems == ["2 records were acknowledged, the branch has 3, the index 3"]


def test_a_writer_drops_a_record_after_a_failed_write(engine: Engine) -> None:
    writer = Writer(0, engine, "nowhere", threading.Event(), [("a", "text")], {"a": Acked(1)}, "0")
    with pytest.raises(LookupError):
        writer.step()
    assert writer.acked == {}


def test_a_loop_that_hangs_is_a_failure(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.WORKLOAD_JOIN_TIMEOUT_S, 0.1)
    hangs, let_go = threading.Event(), threading.Event()
    load = Load(engine, "main")

    def hang(_: Writer) -> None:
        hangs.set()
        let_go.wait(30)

    inside.replace(monkeypatch, inside.Step.WORKLOAD_WRITE, hang)
    load.start([("a", "text")], ["word"], {}, writers=1, readers=0)
    assert hangs.wait(30)
    load.end()
    let_go.set()
    load.writers[0].join(30)
    assert "hangs" in load.writers[0].errors[0]


# -- stalls --------------------------------------------------------------------------------------------------------


def test_a_gap_counts_in_full_in_every_window_that_it_touches() -> None:
    gaps = [(0.0, 1.0), (1.0, 1.5), (1.5, 4.0)]
    assert report.longest_ms(gaps, (0.2, 0.4)) == 1000
    assert report.longest_ms(gaps, (1.1, 1.4)) == 500
    assert report.longest_ms(gaps, (1.4, 2.0)) == 2500
    assert report.longest_ms(gaps, (5.0, 6.0)) == 0


def test_windows_lie_inside_their_span() -> None:
    assert report.cut((1.0, 3.5), 1.0) == [(1.0, 2.0), (2.0, 3.0)]
    assert report.cut((1.0, 1.9), 1.0) == []
    assert report.cut((2.0, 1.0), 1.0) == []


def test_a_loop_without_a_success_stalls_all_the_time() -> None:
    load: Any = SimpleNamespace(begun=0.0, ended=10.0)
    loop: Any = SimpleNamespace(done=[])
    build: Any = SimpleNamespace(begun=3.0, committed=5.0, ended=5.2)
    found = report.stalls_of([loop], load, [build], 1.0)
    assert (found.quiet.windows, found.quiet.max_ms) == (7, 10_000)
    assert (found.switching.windows, found.switching.max_ms) == (1, 10_000)
    assert (found.building.windows, found.building.max_ms) == (1, 10_000)
