"""Clients that record their calls: threads of the engine's process, or processes that call it through a socket.

    python -m tests.linearizability.clients SOCKET OWNER SEED OPERATIONS EXPIRING BRANCH...

A client in a process of its own imports nothing of the library. The channel is `multiprocessing.connection`: one
request and one answer at a time. The client takes the times of a call on the monotonic clock, which all processes of a
machine share.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client as connect
from typing import Any, NamedTuple

KEY = b"tests of linearizability"
TYPES, IDS = ("object_type", "link_type"), ("1", "2")
RECORDS = [(resource_type, id) for resource_type in TYPES for id in IDS]
TARGETS: list[tuple[str, ...]] = [(), *((name,) for name in TYPES), *RECORDS]
SHORT_S, LONG_S = 0.02, 3600.0


class Request(NamedTuple):
    """The request of a client: see `tests.linearizability.hosting.perform`."""

    kind: str
    branch: str
    owner: str
    target: tuple[str, ...] = ()
    token: int = 0
    lock_id: str = ""
    wait_s: float = 0.0
    ttl_s: float = 0.0


class Seen(NamedTuple):
    """A call as its client recorded it."""

    begun: float
    ended: float
    request: Request
    answer: tuple[Any, ...]


Perform = Callable[[Request], tuple[Any, ...]]


class Client:
    """One client, which makes one call after the other on one branch."""

    def __init__(self, owner: str, branch: str, seed: str, expiring: bool) -> None:
        self.owner = owner
        self.branch = branch
        self.seen: list[Seen] = []
        self._random = random.Random(f"{seed} {owner} {branch}")
        self._expiring = expiring
        self._locks: list[tuple[str, int, tuple[str, ...]]] = []

    def run(self, operations: int, perform: Perform) -> list[Seen]:
        """Do `operations` calls; returns the recorded calls."""
        for _ in range(operations):
            request = self._next()
            begun = time.monotonic()
            answer = perform(request)
            self.seen.append(Seen(begun, time.monotonic(), request, answer))
            if answer[0] == "granted":
                self._locks.append((answer[1], answer[2], request.target))
        return self.seen

    def _next(self) -> Request:
        chance = self._random
        kinds = ["write"] * 4 + ["acquire"] * 4 + ["release"] * 3 + ["heartbeat", "check"]
        kinds += [] if self._expiring else ["head"] * 4
        kind = chance.choice(kinds) if chance.random() < 0.99 else "force"
        if kind == "acquire":
            ttl_s = SHORT_S if self._expiring and chance.random() < 0.7 else LONG_S
            wait_s = chance.choice((0.0, 0.0, 0.005, 0.05))
            return Request(kind, self.branch, self.owner, chance.choice(TARGETS), wait_s=wait_s, ttl_s=ttl_s)
        if kind in ("head", "force"):
            return Request(kind, self.branch, self.owner)
        if kind in ("release", "heartbeat"):
            if not self._locks:
                return Request("check", self.branch, self.owner, chance.choice(RECORDS))
            lock_id, token, _ = self._locks[-1] if chance.random() < 0.8 else chance.choice(self._locks[-4:])
            return Request(kind, self.branch, self.owner, token=token, lock_id=lock_id)
        if self._locks and chance.random() < 0.5:
            _, token, target = self._locks[-1]
            record = chance.choice([record for record in RECORDS if record[: len(target)] == target])
            return Request(kind, self.branch, self.owner, record, token=token)
        return Request(kind, self.branch, self.owner, chance.choice(RECORDS))


def run_threads(
    owner: str, branches: list[str], seed: str, operations: int, expiring: bool, channel: Callable[[], Perform]
) -> list[Seen]:
    """Run one client for each branch at the same time, each on a thread; returns all recorded calls."""
    clients = [Client(owner, branch, seed, expiring) for branch in branches]
    errors: list[BaseException] = []

    def work(client: Client) -> None:
        try:
            client.run(operations, channel())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    if errors or any(thread.is_alive() for thread in threads):
        raise RuntimeError(f"a client failed or hangs: {errors}")
    return [seen for client in clients for seen in client.seen]


def main(socket: str, owner: str, seed: str, operations: str, expiring: str, *branches: str) -> None:
    """Run clients in a process of their own."""

    def channel() -> Perform:
        connection = connect(socket, family="AF_UNIX", authkey=KEY)

        def perform(request: Request) -> tuple[Any, ...]:
            connection.send(tuple(request))
            return tuple(connection.recv())

        return perform

    seen = run_threads(owner, list(branches), seed, int(operations), expiring == "True", channel)
    with connect(socket, family="AF_UNIX", authkey=KEY) as connection:
        connection.send(("history", [(s.begun, s.ended, tuple(s.request), s.answer) for s in seen]))
        connection.recv()


if __name__ == "__main__":
    main(*sys.argv[1:])
