"""A holder is stopped with SIGSTOP, its lock expires, it resumes and acts: no stale write is stored."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, LockLost, ShadowSwitchError
from tests.support.engine_helpers import ROOT, outside_environment, put, wait_until
from tests.support.stopped_holder import TTL_S, FencedStorage


class Child:
    """A process that reads and writes JSON lines, and that a test can stop and resume."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.support.stopped_holder", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=outside_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def send(self, **what: Any) -> None:
        self._in.write(json.dumps(what) + "\n")
        self._in.flush()

    def receive(self) -> Any:
        line = self._out.readline()
        assert line, f"the process ended with {self._process.wait()}"
        return json.loads(line)

    def stop(self) -> None:
        """Send SIGSTOP, and wait until the process stands still."""
        self._process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self._process.pid}/stat")
        wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.resume()
        self._process.kill()
        self._in.close()
        self._out.close()
        self._process.wait()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child("holder", tmp_path / "storage.sqlite")
    assert child.receive() == {"ready": True}
    yield child
    child.end()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FencedStorage]:
    storage = FencedStorage(tmp_path / "storage.sqlite")
    yield storage
    storage.close()


def serve(engine: Engine, child: Child, lock_id: str, token: int, id: str) -> Any:
    """Answer the requests of the holder until it sends a result; the result."""
    ways: dict[str, Any] = {
        "confirm": lambda: engine.confirm_lock(lock_id, token),
        "heartbeat": lambda: engine.heartbeat(lock_id, token, 50),
        "extend": lambda: engine.extend_lock(lock_id, token, 5),
        "release": lambda: engine.release_lock(lock_id, token),
        "write": lambda: engine.write("main", [put(id)], owner="holder", tokens=[token]),
        "check": lambda: engine.check_write("main", "update", "object_type", id, "holder", tokens=[token]),
        "complete": lambda: engine.complete_indexing("main", "holder", tokens=[token]),
    }
    while True:
        said = child.receive()
        if "ask" not in said:
            return said
        try:
            ways[said["ask"]]()
            child.send(ok=True)
        except LockLost:
            child.send(ok=False)


def checked(engine: Engine, child: Child, id: str, how: str) -> tuple[str, int]:
    """A lock, a lease or an indexing that the holder has confirmed; its next step is to act."""
    ways: dict[str, Any] = {
        "lock": lambda: engine.acquire_lock("main", "MANUAL", "holder", "RESOURCE", "object_type", id, ttl_s=TTL_S),
        "lease": lambda: engine.check_write("main", "update", "object_type", id, "holder", lease_s=TTL_S),
        "indexing": lambda: engine.start_indexing("main", "holder", ttl_s=TTL_S)[0],
    }
    for _ in range(100):
        held = ways[how]()
        child.send(token=held.token, id=id)
        if serve(engine, child, held.lock_id, held.token, id)["checked"]:
            return held.lock_id, held.token
    raise AssertionError("the machine is too slow")


def one_stop(engine: Engine, child: Child, storage: FencedStorage, number: int) -> None:
    """The holder checks, stops beyond the TTL, and acts when it resumes; meanwhile another owner has taken the lock."""
    id = f"r{number}"
    lock_id, token = checked(engine, child, id, "lock" if number % 2 else "lease")
    child.stop()
    child.send(act=True)
    new = engine.acquire_lock("main", "MIGRATION", "next", wait_s=60)
    assert new.token > token
    assert storage.write(id, new.token, "branch")
    engine.write("main", [put(id, "new")], owner="next", tokens=[new.token])
    child.resume()
    said = serve(engine, child, lock_id, token, id)
    assert said["wrote"] is False, "the storage has seen a newer token"
    assert set(said["answers"].values()) == {False}, said
    engine.release_lock(new.lock_id, new.token)
    record = engine.get("main", "object_type", id)
    assert record is not None
    assert record.fields["text"].startswith("new")
    assert token not in storage.tokens()


def stop_often(engine: Engine, child: Child, storage: FencedStorage, runs: int) -> None:
    for number in range(runs):
        try:
            one_stop(engine, child, storage, number)
        except ShadowSwitchError as error:
            raise AssertionError(f"run {number}") from error
    assert storage.tokens() == sorted(storage.tokens())
    assert len(storage.tokens()) == runs
    expired = [event for event in engine.events(limit=10_000) if event.type.endswith("lock.expired")]
    assert len(expired) >= runs // 2, "each expiry of a lock is an event; that of a lease is none"


@pytest.mark.slow
def test_fifty_holders_that_were_stopped_beyond_their_time_wrote_nothing(
    engine: Engine, child: Child, storage: FencedStorage
) -> None:
    stop_often(engine, child, storage, 50)


def test_an_indexer_that_was_stopped_beyond_its_time_does_not_complete_the_indexing_of_its_successor(
    engine: Engine, child: Child, storage: FencedStorage
) -> None:
    """Both have the same name, as instances of one service do; only the token differs."""
    lock_id, token = checked(engine, child, "a", "indexing")
    child.stop()
    child.send(act=True)
    wait_until(lambda: engine.locks("main") == [])
    (new,) = engine.start_indexing("main", "holder")
    assert storage.write("a", new.token, "branch")
    child.resume()
    said = serve(engine, child, lock_id, token, "a")
    assert set(said["answers"].values()) == {False}, said
    assert (engine.branch("main").state, engine.locks("main")[0].lock_id) == ("LOCKED_FOR_WRITE", new.lock_id)
    assert engine.complete_indexing("main", tokens=[new.token]).completed == ("*",)
    assert engine.branch("main").state == "READY"


def stop_hosts(data: Path, rounds: int) -> None:
    """The whole host stands still, with holder and engine; its clock goes on."""
    child = Child("host", data, rounds)
    try:
        for number in range(rounds):
            assert child.receive()["held"]
            child.stop()
            _let_pass(2 * TTL_S)
            child.resume()
            ended = child.receive()
            assert ended["round"] == number
            assert "expired" in ended["outcome"][0], ended
        report = child.receive()
    finally:
        child.end()
    assert report["tokens"] == sorted(report["tokens"]), (
        "a write under an older token came after a write under a newer one"
    )
    assert report["findings"] == 0
    assert set(range(2, 2 * rounds + 1, 2)) <= set(report["tokens"])


def _let_pass(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until)


def test_a_host_that_was_stopped_as_a_whole_lets_no_stale_write_through(data_dir: Path) -> None:
    stop_hosts(data_dir, 3)


@pytest.mark.torture
def test_fifty_hosts_that_were_stopped_as_a_whole_let_no_stale_write_through(data_dir: Path) -> None:
    stop_hosts(data_dir, 50)


def test_without_the_fence_of_the_storage_the_stale_write_would_be_there(
    engine: Engine, child: Child, storage: FencedStorage
) -> None:
    """The run is able to fail: it finds the stale write when the storage ignores tokens."""
    storage._db.execute("CREATE TRIGGER forget AFTER INSERT ON fences BEGIN DELETE FROM fences; END")
    with pytest.raises(AssertionError, match="newer token"):
        one_stop(engine, child, storage, 1)
