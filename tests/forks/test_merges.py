"""Merges as a host has them: what admits them, their transactions, and what comes between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Config, Engine, InvalidTransition, NotConverging, Put, UnknownBranch, WriteBlocked
from tests.support import inside
from tests.support.engine_helpers import fill, put

CONFIG = Config(disk_reserve_bytes=0, janitor_interval_s=3600)


def of_main(engine: Engine) -> object:
    record = engine.get("main", "object_type", "1")
    return record.fields["text"] if record is not None else None


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", CONFIG) as opened:
        opened.create_branch("main")
        yield opened


def test_a_merge_is_admitted_like_a_write(engine: Engine) -> None:
    fill(engine, 3)
    engine.fork_branch("fork", "main")
    engine.write("fork", [put("1", "of fork")])
    lock = engine.acquire_lock("main", "MANUAL", "holder", "BRANCH")
    with pytest.raises(WriteBlocked):
        engine.merge_into("main", "fork")
    assert engine.merge_into("main", "fork", owner="holder", tokens=[lock.token]).applied == 1


def test_a_merge_of_many_records_gives_writers_their_turn(engine: Engine) -> None:
    """Batches: each is a transaction, and a writer of the same records loses nothing."""
    fill(engine, 3000)
    engine.fork_branch("fork", "main")
    engine.write(
        "fork", [Put("object_type", str(number), {"text": f"word{number}", "fork": 1}) for number in range(3000)]
    )
    acked: dict[str, int] = {}
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            id = str(number * 7 % 3000)
            engine.write("main", [Put("object_type", id, {"text": f"hello word{id}", "main": number})])
            acked[id] = number
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        engine.merge_into("main", "fork", "theirs")
    finally:
        done.set()
        writer.join(30)
    assert len(acked) > 1
    for record in engine.scan("main"):
        assert record.fields.get("main") == acked.get(record.id), record


@pytest.mark.parametrize(("records", "transactions"), [(500, 1), (501, 26)])
def test_a_merge_of_up_to_500_records_is_one_transaction(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, records: int, transactions: int
) -> None:
    fill(engine, records)
    engine.fork_branch("fork", "main")
    engine.write("fork", [put(str(number), "of fork") for number in range(records)])
    sent = iter(range(1000))
    inside.before(monkeypatch, inside.Step.BRING, lambda: next(sent))
    assert engine.merge_into("main", "fork").applied == records
    assert next(sent) == transactions


def test_a_merge_gives_up_beside_a_writer_that_is_always_faster(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 3)
    engine.fork_branch("fork", "main")
    engine.write("fork", [put("1", "of fork")])
    inside.before(monkeypatch, inside.Step.BRING, lambda: engine.write("main", [put("1")]))
    with pytest.raises(NotConverging, match="merge again"):
        engine.merge_into("main", "fork", "ours")


def test_a_merge_ends_when_the_fork_is_rebased_or_dropped_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its base, or its records, may be gone: nothing more is brought."""
    fill(engine, 3)
    engine.fork_branch("fork", "main")
    engine.write("fork", [put("1", "of fork")])
    engine.write("main", [put("2", "of main")])
    calls = iter((lambda: engine.rebase("fork"), lambda: None, lambda: engine.drop_branch("fork")))
    inside.before(monkeypatch, inside.Step.BRING, lambda: next(calls, lambda: None)())
    with pytest.raises(InvalidTransition, match="rebased meanwhile"):
        engine.merge_into("main", "fork")
    assert of_main(engine) == "hello word1"
    with pytest.raises(UnknownBranch):
        engine.merge_into("main", "fork")
    assert of_main(engine) == "hello word1"
