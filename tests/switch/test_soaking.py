"""Promises of a soak: the previous generation follows by itself, and a bad health check causes a rollback."""

from __future__ import annotations

from typing import Any

from shadowswitch import Delete, Engine
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, live, put, wait_until


def applied_lsn(engine: Engine, number: int) -> int:
    return inside.generation(engine, number).applied_lsn


def held_by(engine: Engine, number: int) -> set[str]:
    generation = inside.generation(engine, number)
    reader = generation.take_reader()
    try:
        return {record.id for record in reader.scan()}
    finally:
        generation.give_reader(reader)


def test_the_previous_generation_follows_the_journal_while_it_soaks(filled: Engine) -> None:
    """The test makes no rollback: a rollback catches up its target, and would hide that the target does not follow."""
    first, second = live(filled), live(filled)
    head = filled.write("main", [put("new"), Delete("object_type", "7")]).lsn
    wait_until(lambda: applied_lsn(filled, first) == head, what="the soaking generation at the head")
    assert applied_lsn(filled, second) == head
    assert "new" in held_by(filled, first)
    assert "7" not in held_by(filled, first)


def test_the_previous_generation_follows_the_journal_after_a_restart(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 50)
    first = live(engine)
    live(engine)
    engine.close()
    again = open_engine()
    head = again.write("main", [put("new")]).lsn
    wait_until(lambda: applied_lsn(again, first) == head, what="the soaking generation at the head")


def test_a_health_check_that_finds_fault_causes_a_rollback(open_engine: Any) -> None:
    engine = open_engine(health_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 50)
    first, second = live(engine), live(engine)
    asked: list[int] = []

    def check(info: Any) -> str | None:
        asked.append(info.generation)
        return "too slow" if info.generation == second else None

    engine.set_health_check(check)
    wait_until(lambda: len(asked) >= 3 or engine.index("main", KIND).generation == first)
    wait_until(lambda: engine.index("main", KIND).generation == first, what="the way back")
    with engine.reader("main", KIND) as reader:
        assert reader.generation == first
    row = [event for event in engine.audit() if event.type == "switch.committed"][-1]
    assert (row.data["rollback"], row.data["reason"]) == (True, "health check: too slow")
