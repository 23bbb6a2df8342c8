"""Removal, trimming and the fence: short tests, each of which fails with an unsafe variant (see test_mutations)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, Put, StaleFence, SwitchRequest
from shadowswitch.storage.catalog import transitions
from tests.support import inside
from tests.support.engine_helpers import wait_until

KIND = "SEARCH_INDEX"
Eventually = Callable[[Callable[[], bool]], None]
HOLD = """
import sys
from pathlib import Path
from shadowswitch.storage.generations.directory import shared_pin
with shared_pin(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def put(n: int) -> Put:
    return Put("object_type", str(n), {"text": f"hello w{n}"})


def built(engine: Engine) -> str:
    shadow = engine.start_build("main", KIND, ["object_type"])
    return engine.wait_for(shadow.shadow_index_id, timeout_s=30).shadow_index_id


def test_the_journal_is_not_trimmed_below_the_changes_that_a_paused_build_needs(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=0)
    engine.create_branch("main")
    engine.write("main", [put(n) for n in range(500)])
    shadow = engine.start_build("main", KIND, ["object_type"])
    engine.pause_build(shadow.shadow_index_id)
    for _ in range(5):
        engine.write("main", [put(n) for n in range(500)])
    engine.clean_up()
    assert engine.branch("main").oldest_lsn <= 501
    engine.resume_build(shadow.shadow_index_id)
    engine.wait_for(shadow.shadow_index_id, timeout_s=30)


def test_the_journal_is_not_trimmed_below_a_build_that_began_while_the_janitor_was_busy(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of the janitor may take long before it trims the journal; its view from the beginning is old then."""
    engine = open_engine(journal_keep_changes=0, janitor_interval_s=3600)
    engine.create_branch("main")
    engine.write("main", [put(n) for n in range(500)])
    for _ in range(2):
        engine.rebuild("main", KIND, ["object_type"], request=SwitchRequest(backup_current=False))
    busy, go_on = threading.Event(), threading.Event()

    def slow(_: Path) -> None:
        busy.set()
        assert go_on.wait(60)

    inside.before_removal(monkeypatch, slow)
    cleaning = threading.Thread(target=engine.clean_up, args=(60,))
    cleaning.start()
    assert busy.wait(60)
    engine.create_branch("other")  # the round of the janitor has not seen this branch
    engine.write("other", [put(n) for n in range(500)])
    engine.write("main", [put(n) for n in range(500)])
    shadow = engine.start_build("main", "GRAPH", ["object_type"])
    engine.pause_build(shadow.shadow_index_id)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "BUILDING")
    start_lsn = engine.shadow(shadow.shadow_index_id).start_lsn
    for _ in range(3):
        engine.write("main", [put(n) for n in range(500)])
    live = inside.live(engine).writer
    wait_until(lambda: live.applied_lsn == engine.head("main"))
    live.flush()
    go_on.set()
    cleaning.join(60)
    assert engine.branch("main").oldest_lsn <= start_lsn + 1, "ST-6"
    engine.resume_build(shadow.shadow_index_id)
    engine.wait_for(shadow.shadow_index_id, timeout_s=60)


def test_a_pinned_generation_is_not_removed_here_nor_elsewhere(engine: Engine) -> None:
    engine.write("main", [put(1)])
    once = SwitchRequest(backup_current=False)
    engine.rebuild("main", KIND, ["object_type"], request=once)
    mine = engine.reader("main", KIND)
    path = engine.index("main", KIND).path
    arguments = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            engine.rebuild("main", KIND, ["object_type"], request=once)
            engine.clean_up()
            assert len(mine.search("hello")) == 1
            mine.close()
            engine.clean_up()
            assert os.path.exists(path)
        finally:
            other.kill()

    def is_gone() -> bool:
        engine.clean_up()
        return not os.path.exists(path)

    wait_until(is_gone, what="the end of its reading by the Scrubber")


def test_a_switch_with_a_stale_token_is_refused(engine: Engine) -> None:
    engine.write("main", [put(1)])
    shadow = inside.catalog(engine).shadow(built(engine))
    inside.claim_switch(engine, shadow.id)  # otherwise the janitor would end the switch
    inside.transact(engine, lambda c: transitions.begin_switching(c, shadow.id), "test")
    with pytest.raises(StaleFence):
        inside.transact(
            engine,
            lambda c: transitions.commit_switch(c, shadow.generation, shadow.token - 1, 0, 1, 60, "ATOMIC_RENAME", {}),
            "test",
        )
    inside.transact(engine, lambda c: transitions.give_up_switching(c, shadow.id, "test"), "test")
    engine.cancel_build(shadow.id)


def test_a_switch_that_expects_another_generation_is_refused(engine: Engine) -> None:
    engine.write("main", [put(1)])
    engine.rebuild("main", KIND, ["object_type"])
    shadow = inside.catalog(engine).shadow(built(engine))
    inside.claim_switch(engine, shadow.id)  # otherwise the janitor would end the switch
    inside.transact(engine, lambda c: transitions.begin_switching(c, shadow.id), "test")
    with pytest.raises(StaleFence):
        inside.transact(
            engine,
            lambda c: transitions.commit_switch(c, shadow.generation, shadow.token, 99, 1, 60, "ATOMIC_RENAME", {}),
            "test",
        )
    inside.transact(engine, lambda c: transitions.give_up_switching(c, shadow.id, "test"), "test")
    engine.cancel_build(shadow.id)
