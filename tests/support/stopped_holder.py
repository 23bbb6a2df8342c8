"""Processes that hold locks and are stopped: a holder with its own storage, and a whole host. A test starts them.

python -m tests.support.stopped_holder holder STORAGE      asks its parent, which has the engine, over stdin and stdout
python -m tests.support.stopped_holder host DATA ROUNDS    has the engine itself
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from shadowswitch import Config, Engine, LockLost, Put

TTL_S = 0.15


class FencedStorage:
    """The storage of a host, as docs/locks.md describes it: the largest token seen fences where scopes overlap."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._db.execute("CREATE TABLE IF NOT EXISTS fences (scope TEXT PRIMARY KEY, token INTEGER)")
        self._db.execute("CREATE TABLE IF NOT EXISTS writes (n INTEGER PRIMARY KEY, id TEXT, token INTEGER)")

    def write(self, id: str, token: int, scope: str) -> bool:
        """Write a record under a token that was granted for the scope "branch" or for the record; False if refused."""
        self._db.execute("BEGIN IMMEDIATE")
        every = "SELECT max(token) FROM fences" + ("" if scope == "branch" else " WHERE scope IN ('branch', ?)")
        (seen,) = self._db.execute(every, () if scope == "branch" else (scope,)).fetchone()
        admitted = seen is None or seen <= token
        if admitted:
            self._db.execute("INSERT OR REPLACE INTO fences VALUES (?, ?)", (scope, token))
            self._db.execute("INSERT INTO writes (id, token) VALUES (?, ?)", (id, token))
        self._db.execute("COMMIT")
        return admitted

    def tokens(self) -> list[int]:
        """The tokens under which records were written, in order."""
        return [token for (token,) in self._db.execute("SELECT token FROM writes ORDER BY n")]

    def close(self) -> None:
        self._db.close()


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def hear() -> Any:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def hold(path: Path) -> None:
    """For each lock from the parent: check it, be stopped here, then act under it in every way."""
    storage = FencedStorage(path)
    tell(ready=True)
    while True:
        lock = hear()
        token, id = lock["token"], lock["id"]
        tell(ask="confirm")
        held = hear()["ok"]
        tell(checked=held)
        if not held:  # on a slow machine the lock expired before the process was stopped: another run
            continue
        hear()
        wrote = storage.write(id, token, id)
        answers = {}
        for way in ("confirm", "heartbeat", "extend", "release", "write", "check", "complete"):
            tell(ask=way)
            answers[way] = hear()["ok"]
        tell(wrote=wrote, answers=answers)


def host(data: Path, rounds: int) -> None:
    """A holder writes on and on without a heartbeat; another waits for its lock; the parent stops this process."""
    with Engine.open(data, Config(disk_reserve_bytes=0)) as engine:
        with contextlib.suppress(Exception):
            engine.create_branch("main")
        for number in range(rounds):
            lock = engine.acquire_lock("main", "MANUAL", "first", ttl_s=TTL_S)
            outcome: list[str] = []
            holder = threading.Thread(target=_write_on, args=(engine, lock.token, outcome))
            holder.start()
            tell(held=lock.token)
            other = engine.acquire_lock("main", "MANUAL", "second", wait_s=60)
            for _ in range(3):
                engine.write("main", [_stamped(other.token)], owner="second", tokens=[other.token])
            holder.join()
            engine.release_lock(other.lock_id, other.token)
            tell(round=number, outcome=outcome)
        changes = engine.changes("main", limit=100_000)
        tell(tokens=[(change.fields or {})["token"] for change in changes], findings=len(engine.check()))


def _stamped(token: int) -> Put:
    return Put("object_type", "a", {"token": token})


def _write_on(engine: Engine, token: int, outcome: list[str]) -> None:
    try:
        while True:
            engine.write("main", [_stamped(token)], owner="first", tokens=[token], timeout_s=60)
    except LockLost as error:
        outcome.append(error.message)
    except Exception as error:
        outcome.append(f"unforeseen: {error!r}")


if __name__ == "__main__":
    if sys.argv[1] == "holder":
        hold(Path(sys.argv[2]))
    else:
        host(Path(sys.argv[2]), int(sys.argv[3]))
