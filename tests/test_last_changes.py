"""What is written between the proof of a shadow and its commit: it commits with the switch, nobody waits for it, and
readers are led over when the new generation has it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.transaction import Commit
from tests.engine_helpers import KIND, built, found, live, put, wait_until
from tests.gathering import HELD_S, Gathered, is_whole
from tests.support import inside

OpenEngine = Callable[..., Engine]


# -- what is written meanwhile ---------------------------------------------------------------------------------------


def test_what_gathers_before_a_switch_commits_with_it(engine: Engine, gathered: Gathered) -> None:
    live(engine)
    shadow = built(engine)
    gathered.armed = True
    heads: list[int] = []

    def noting(ordinary: Any, commit: Commit, work: Any) -> None:
        ordinary(commit, work)
        heads.extend(head for head, _ in commit.heads.values())

    before = engine.head("main")
    with pytest.MonkeyPatch.context() as patched:
        inside.wrap(patched, inside.Step.TRANSACTION, noting)
        result = engine.switch(shadow.shadow_index_id)
        gathered.join()
    assert result.success, result.message
    assert sorted(receipt.lsn for receipt in gathered.receipts) == [before + 1, before + 2, before + 3]
    assert (result.sealed_lsn, result.drained_changes) == (before + 3, 3)
    assert heads == [before + 3], "one commit had all three"
    assert is_whole(engine)
    assert engine.check() == []


def test_going_back_commits_with_what_gathered_too(engine: Engine, gathered: Gathered) -> None:
    first, _ = live(engine), live(engine)
    gathered.armed = True
    result = engine.rollback("main", KIND)
    gathered.join()
    assert result.success, result.message
    assert engine.index("main", KIND).generation == first
    assert result.sealed_lsn == max(receipt.lsn for receipt in gathered.receipts)
    assert is_whole(engine)
    assert engine.check() == []


def test_writers_go_on_while_the_last_changes_are_brought_in(engine: Engine, gathered: Gathered) -> None:
    first = live(engine)
    shadow = built(engine)
    gathered.armed = True
    failpoints.plan_points("switch.committed=sleep:2.0")
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(engine.switch, shadow.shadow_index_id)
        wait_until(lambda: len(gathered.receipts) == 3, what="the commit of the switch")
        for n in range(20):
            engine.write("main", [put(f"later{n}", "afterwards")], timeout_s=1.0)
        assert not switching.done(), "the switch stands where it stood"
        with engine.reader("main", KIND) as reader:
            assert reader.generation == first, "the new one has not got the last changes yet"
        result = switching.result(HELD_S)
    assert result.success, result.message
    assert is_whole(engine)
    assert len(found(engine, "afterwards", min_lsn=engine.head("main"))) == 20


def test_no_reader_goes_back_in_time_between_the_commit_and_the_lead(engine: Engine, gathered: Gathered) -> None:
    """Outsiders are led by the catalog: they get the new generation before it has the last changes."""
    live(engine)
    shadow = built(engine)
    gathered.armed = True
    # followers go on after half a second of the first; nobody brings the new one any further during the second
    failpoints.plan_points("switch.committed=sleep:1.5;switch.pointed=sleep:0.5")
    outside: list[int] = []
    within: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(engine.switch, shadow.shadow_index_id)
        while not switching.done():
            with outside_reader(engine.path, inside.catalog(engine), "main", KIND) as reader:
                outside.append(reader.applied_lsn())
            with engine.reader("main", KIND) as own:
                within.append(own.applied_lsn())
            if gathered.receipts:
                engine.write("main", [put("0", "edited")])
            threading.Event().wait(0.002)
        assert switching.result().success
    assert outside == sorted(outside)
    assert within == sorted(within)
    assert min(len(outside), len(within)) > 10
