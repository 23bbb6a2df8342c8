"""The engine that recorded clients use, and the verdict on the recorded calls.

    python -m tests.linearizability.hosting FOLDER threads|processes CLIENTS OPERATIONS SEED BRANCHES

Exit status 1 when a history is not linearizable. Branches share nothing that a client could see, so each history is
checked on its own (P-compositionality).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from shadowswitch import Config, Engine, LockConflict, LockLost, Put, Timeout, WriteBlocked
from tests.linearizability.checker import Call, linearizable
from tests.linearizability.clients import KEY, Request, Seen, run_threads
from tests.linearizability.spec import State, What, step

ROOT = Path(__file__).resolve().parents[2]
SCOPES = ("BRANCH", "RESOURCE_TYPE", "RESOURCE")
CLIENT_TIMEOUT_S = 240.0


def perform(engine: Engine, request: Request) -> tuple[Any, ...]:
    """Do a request. Answers: granted, conflict, ok, lost, lsn, blocked, allowed, head, forced, timeout."""
    try:
        return _perform(engine, request)
    except LockLost:
        return ("lost",)
    except (LockConflict, WriteBlocked) as error:
        blocked: Any = error.blocked
        kind = "blocked" if isinstance(error, WriteBlocked) else "conflict"
        return (kind, str(blocked.cause), blocked.lock_id)
    except Timeout as error:
        in_vain = "did not become free" in error.message
        return ("conflict", "QUEUE", "") if in_vain else ("timeout",)


def _perform(engine: Engine, request: Request) -> tuple[Any, ...]:
    _, branch, owner, target, token, lock_id, wait_s, ttl_s = request
    tokens = [token] if token else []
    match request.kind:
        case "acquire":
            more: dict[str, Any] = dict(zip(("resource_type", "resource_id"), target, strict=False))
            more |= {"scope": SCOPES[len(target)], "ttl_s": ttl_s, "wait_s": wait_s}
            lock = engine.acquire_lock(branch, "MANUAL", owner, **more)
            return ("granted", lock.lock_id, lock.token)
        case "release":
            engine.release_lock(lock_id, token)
            return ("ok",)
        case "heartbeat":
            engine.heartbeat(lock_id, token)
            return ("ok",)
        case "write":
            change = Put(target[0], target[1], {"by": owner})
            return ("lsn", engine.write(branch, [change], owner=owner, timeout_s=60, tokens=tokens).lsn)
        case "check":
            allowed = engine.check_write(branch, "write", target[0], target[1], owner=owner, tokens=tokens)
            blocked: Any = allowed.blocked
            return ("allowed",) if allowed.allowed else ("blocked", str(blocked.cause), blocked.lock_id)
        case "head":
            return ("head", engine.head(branch))
        case "force":
            return ("forced", [lock.token for lock in engine.force_unlock(branch, owner, "test")])
    raise ValueError(request.kind)


# -- recording ---------------------------------------------------------------------------------------------------------


class SocketServer:
    """Serves the engine to processes through a socket, with a thread for each connection."""

    def __init__(self, engine: Engine, socket: str) -> None:
        self.seen: list[Seen] = []
        self._engine = engine
        self._listener = Listener(socket, family="AF_UNIX", backlog=64, authkey=KEY)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        with connection:
            while True:
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    return
                if message[0] == "history":
                    self.seen += [Seen(begun, ended, Request(*r), tuple(a)) for begun, ended, r, a in message[1]]
                    connection.send("thanks")
                else:
                    connection.send(perform(self._engine, Request(*message)))

    def close(self) -> None:
        self._listener.close()


def by_threads(engine: Engine, clients: int, operations: int, seed: str, branches: dict[str, bool]) -> list[Seen]:
    """The calls of `clients` clients on each branch, all of them threads of this process."""
    seen: list[Seen] = []

    def work(owner: str, expiring: bool) -> None:
        mine = [branch for branch, expires in branches.items() if expires is expiring]
        found = run_threads(owner, mine, seed, operations, expiring, lambda: lambda request: perform(engine, request))
        seen.extend(found)

    threads = [
        threading.Thread(target=work, args=(f"c{n}", expiring), daemon=True)
        for n in range(clients)
        for expiring in (False, True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CLIENT_TIMEOUT_S)
    return seen


def by_processes(
    engine: Engine, folder: Path, clients: int, operations: int, seed: str, branches: dict[str, bool]
) -> list[Seen]:
    """The same by processes, which call the engine through a socket."""
    server = SocketServer(engine, str(folder / "socket"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHADOWSWITCH_")}
    module = [sys.executable, "-m", "tests.linearizability.clients", str(folder / "socket")]
    started = []
    try:
        for number in range(clients):
            for expiring in (False, True):
                mine = [branch for branch, expires in branches.items() if expires is expiring]
                command = [*module, f"p{number}", seed, str(operations), str(expiring), *mine]
                started.append(subprocess.Popen(command, cwd=ROOT, env=environment))
        statuses = [process.wait(CLIENT_TIMEOUT_S) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
        server.close()
    assert statuses == [0] * len(statuses), statuses
    return server.seen


# -- the verdict -------------------------------------------------------------------------------------------------------


def histories(seen: list[Seen]) -> dict[str, list[Call]]:
    """The calls of each branch, and the expiries between them.

    A short lock ends between the earliest and the latest moment that its grant allows. A branch with a call that timed
    out is left out: the outcome of that call is unknown.
    """
    unknown = {one.request.branch for one in seen if one.answer[0] == "timeout"}
    granted = {one.answer[1]: one.answer[2] for one in seen if one.answer[0] == "granted"}
    found: dict[str, list[Call]] = defaultdict(list)
    for begun, ended, request, answer in seen:
        if request.branch in unknown:
            continue
        blocker = granted.get(answer[2], -1) if answer[0] in ("blocked", "conflict") and answer[2] else 0
        what = What(request.kind, request.owner, answer, request.target, request.token, blocker)
        found[request.branch].append(Call(begun, ended, what))
        if answer[0] == "granted":
            over = What("expire", request.owner, (), request.target, answer[2])
            found[request.branch].append(Call(begun + request.ttl_s, ended + request.ttl_s, over))
    return found


def violations(seen: list[Seen]) -> tuple[list[str], int]:
    """The branches whose histories are not linearizable, and how many calls were checked."""
    found = histories(seen)
    wrong = [branch for branch, calls in sorted(found.items()) if not linearizable(calls, State(), step)]
    return wrong, sum(one.request.branch in found for one in seen)


@contextmanager
def eager_threads() -> Iterator[None]:
    """In the `with` block Python switches between threads much more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def record(
    engine: Engine, folder: Path, how: str, clients: int, operations: int, seed: str, branches: int
) -> list[Seen]:
    """Make branches, every second one with locks that expire, and run clients on them."""
    names = {f"{how}-{seed}-{number}": bool(number % 2) for number in range(branches)}
    for name in names:
        engine.create_branch(name)
    with eager_threads():
        if how == "threads":
            return by_threads(engine, clients, operations, seed, names)
        return by_processes(engine, folder, clients, operations, seed, names)


def main(folder: str, how: str, clients: str, operations: str, seed: str, branches: str) -> int:
    with Engine.open(Path(folder) / "data", Config(disk_reserve_bytes=1 << 20)) as engine:
        seen = record(engine, Path(folder), how, int(clients), int(operations), seed, int(branches))
    wrong, checked = violations(seen)
    print(f"{checked} calls checked; not linearizable: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
