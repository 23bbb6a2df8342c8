"""A write transaction that fails leaves nothing, and ends although other threads read without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from shadowswitch import BranchExists, Engine, Put
from shadowswitch.storage.write_transaction import write_transaction

READERS = 3
REFUSALS = 20


@pytest.fixture
def env(tmp_path: Path) -> Iterator[lmdb.Environment]:
    with lmdb.open(str(tmp_path), lib_version=0) as opened:
        yield opened


def value(env: lmdb.Environment) -> bytes | None:
    with env.begin() as txn:
        return txn.get(b"key")


def test_what_is_done_is_stored_and_its_result_returned(env: lmdb.Environment) -> None:
    assert write_transaction(env, lambda txn: txn.put(b"key", b"1")) is True
    assert value(env) == b"1"


def test_an_error_leaves_nothing_also_with_cursors_in_frames_and_errors_behind_it(env: lmdb.Environment) -> None:
    def inner(txn: lmdb.Transaction[bytes]) -> None:
        cursor = txn.cursor()
        assert cursor.put(b"key", b"1")
        raise KeyError("first")

    def work(txn: lmdb.Transaction[bytes]) -> None:
        try:
            inner(txn)
        except KeyError as error:
            raise ValueError("second") from error

    for _ in range(2):  # the next transaction begins
        with pytest.raises(ValueError, match="second") as raised:
            write_transaction(env, work)
        assert isinstance(raised.value.__cause__, KeyError)
        assert value(env) is None


def test_a_transaction_that_is_kept_elsewhere_is_aborted_all_the_same(env: lmdb.Environment) -> None:
    kept = []

    def work(txn: lmdb.Transaction[bytes]) -> None:
        kept.append(txn)
        txn.put(b"key", b"1")
        raise ValueError

    with pytest.raises(ValueError):
        write_transaction(env, work)
    with pytest.raises(lmdb.Error):
        kept[0].get(b"key")
    write_transaction(env, lambda txn: txn.put(b"key", b"2"))
    assert value(env) == b"2"


def beside_readers(read: Callable[[], object], work: Callable[[], None]) -> bool:
    """Whether `work` came to its end within half a minute, while threads call `read` without a pause."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            read()

    threads = [threading.Thread(target=loop) for _ in range(READERS)]
    working = threading.Thread(target=work)
    for thread in [*threads, working]:
        thread.start()
    working.join(30)
    came_to_its_end = not working.is_alive()
    ended.set()
    for thread in [*threads, working]:
        thread.join(30)
    return came_to_its_end


def test_a_refused_call_holds_no_writer_up_while_threads_read(tmp_path: Path) -> None:
    refused = []
    with Engine.open(tmp_path) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", "a", {"x": 1})])

        def refuse() -> None:
            for n in range(REFUSALS):
                try:
                    engine.create_branch("main")
                except BranchExists:
                    refused.append(n)
                engine.write("main", [Put("t", "b", {"n": n})])

        assert beside_readers(lambda: engine.get("main", "t", "a"), refuse)
        assert len(refused) == REFUSALS
        found = engine.get("main", "t", "b")
        assert found is not None
        assert found.fields == {"n": REFUSALS - 1}
