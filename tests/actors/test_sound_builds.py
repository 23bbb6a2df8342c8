"""Builds that are sound without bucket repair: catch-up applies deletes, and a resumed copy is complete.

`open_engine` checks at the end of every test that no bucket was repaired; these tests check it before the switch, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Engine, Put, ShadowIndex, SwitchRequest
from tests.conftest import buckets_repaired
from tests.support.engine_helpers import KIND, fill, put, wait_until

TYPES = ["link_type", "object_type"]
RECORDS = 200


def held(engine: Engine) -> set[tuple[str, str]]:
    with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=30) as reader:
        return {(record.resource_type, record.id) for record in reader.scan()}


def switched_without_repair(engine: Engine, shadow: ShadowIndex) -> set[tuple[str, str]]:
    """Switch to a shadow without any repair; the keys of the live generation."""
    built = engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=120)
    assert buckets_repaired(engine) == 0, "the validation repaired records that the build had lost"
    assert engine.switch(built.shadow_index_id, SwitchRequest(allow_empty=True)).success
    return held(engine)


def rows_copied(shadow: ShadowIndex) -> int:
    """How many rows the worker has stored of its only shard."""
    file = Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM docs").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_a_build_catches_up_with_deletes(open_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has copied records and stands still; then all are deleted. Only its catch-up can remove them."""
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.3;copy.loaded=sleep:1")
    engine = open_engine(catchup_residual_changes=0, copy_slice_rows=10)
    engine.create_branch("main")
    fill(engine, RECORDS)
    shadow = engine.start_build("main", KIND, TYPES, {"shards": 1, "parallel_workers": 1})
    wait_until(lambda: rows_copied(engine.shadow(shadow.shadow_index_id)) > 0, what="the first slice of the copy")
    engine.pause_build(shadow.shadow_index_id)
    engine.write("main", [Delete("object_type", str(n)) for n in range(RECORDS)])
    engine.write("main", [put("1", "revived"), put("new"), Delete("object_type", "new"), put("newer")])
    engine.resume_build(shadow.shadow_index_id)
    assert switched_without_repair(engine, shadow) == {("object_type", "1"), ("object_type", "newer")}


@pytest.mark.parametrize("nth", [3, 9])
def test_a_resumed_copy_leaves_nothing_out(
    open_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The worker of the copy is killed again and again, each time within a resource type."""
    engine = open_engine(copy_slice_rows=10, copy_flush_rows=10, worker_retries=9)
    engine.create_branch("main")
    for resource_type in TYPES:
        engine.write("main", [Put(resource_type, str(n), {"text": f"w{n}"}) for n in range(RECORDS)])
    monkeypatch.setenv("SHADOWSWITCH_POINTS", f"copy.slice=kill@{nth}")
    shadow = engine.start_build("main", KIND, TYPES, {"shards": 4, "parallel_workers": 1})
    expected = {(resource_type, str(n)) for resource_type in TYPES for n in range(RECORDS)}
    assert switched_without_repair(engine, shadow) == expected
    assert engine.stats()["counters"]["worker_deaths"] >= 4
