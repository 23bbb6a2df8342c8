"""Twenty and more rebuilds, switches and rollbacks under concurrent writers and readers on two branches.

The oracle itself is tested, too: it must find every kind of planted loss.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Record
from tests.support.engine_helpers import KIND, fill, live
from tests.support.rebuild_scenario import Acked, Scenario, Watch, audit

ACKED = {"a": Acked(5, "worda"), "b": Acked(6, "wordb"), "gone": Acked(7, "")}


def record(id: str, lsn: int, text: str | None = None) -> Record:
    return Record("object_type", id, {"text": text if text is not None else f"hello word{id}"}, lsn)


@pytest.mark.slow
def test_nothing_is_lost_revived_duplicated_refused_or_out_of_order_in_twenty_rebuilds(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "data", rebuilds=22)
    assert scenario.run() == []
    print(f"{scenario.switches} switches under {scenario.writes} writes and {scenario.reads} reads")
    assert scenario.switches == 2 + 22 + 5
    assert scenario.writes > 500
    assert scenario.reads > 500


def test_the_audit_accepts_exactly_the_acknowledged_writes() -> None:
    assert audit([record("a", 5), record("b", 6)], ACKED) == []


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ([record("a", 5)], "lost"),
        ([], "lost"),
        ([record("a", 5), record("b", 4)], "lost"),
        ([record("a", 5), record("b", 6, "an older text")], "lost"),
        ([record("a", 5), record("b", 6), record("gone", 3)], "revived"),
        ([record("a", 5), record("b", 6), record("b", 6)], "duplicate"),
        ([record("a", 5), record("b", 6), record("c", 1)], "invented"),
    ],
)
def test_the_audit_finds_a_planted_fault(held: list[Record], kind: str) -> None:
    problems = audit(held, ACKED)
    assert problems
    assert {problem.split(":")[0] for problem in problems} == {kind}


def test_a_reader_that_goes_back_in_time_or_sees_a_record_twice_is_noticed() -> None:
    watch = Watch("reader")
    for lsn in (3, 3, 9):
        watch.opened(lsn)
        watch.saw([("a", lsn), ("b", 1)])
    assert watch.problems == []
    watch.opened(8)
    watch.saw([("a", 8)])
    watch.saw([("c", 1), ("c", 1)])
    assert [problem.split(":")[0] for problem in watch.problems] == ["back in time", "back in time", "duplicate"]


def test_the_audit_finds_a_record_that_was_taken_out_of_a_real_index(open_engine: Any) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 50)
    live(engine)
    acked = {str(n): Acked(n + 1, f"word{n}") for n in range(50)}
    with engine.reader("main", KIND) as reader:
        assert audit(reader.scan(), acked) == []
    connection = sqlite3.connect(Path(engine.index("main", KIND).path) / "shard-000" / "shard.sqlite", timeout=10)
    with connection:
        connection.execute("DELETE FROM docs WHERE id = '17'")
    connection.close()
    with engine.reader("main", KIND) as reader:
        assert audit(reader.scan(), acked) == ["lost: 17 was written at LSN 18, and is not there"]
