"""The clients of a simulation: they lock, write, send heartbeats, let locks expire, and act with stale tokens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.locks.info import LockSpec
from shadowswitch.model.locks.targets import BRANCH, LockType, Target, resource_target, type_target
from shadowswitch.model.records import Delete, Put
from tests.simulation.host import Host
from tests.simulation.ops import Op
from tests.simulation.oracle import Oracle, keys_of
from tests.simulation.world import World

TYPES, IDS = ("object_type", "link_type"), ("1", "2")
WORD, VECTOR = "word", [3.0, 4.0]
"""What each record has: an index finds it by that."""
"""Of every record."""
RECORDS = [(resource_type, id) for resource_type in TYPES for id in IDS]
TARGETS = [BRANCH, *map(type_target, TYPES), *(resource_target(*record) for record in RECORDS)]
WEIGHTS = {
    "write": 30,
    "acquire": 26,
    "release": 14,
    "heartbeat": 8,
    "extend": 4,
    "check": 6,
    "lease": 6,
    "confirm": 3,
    "several": 4,
    "locks": 2,
    "force": 2,
    "index": 4,
    "indexed": 4,
    "move": 3,
}
MOVES = ("reopen_branch", "recover_branch", "merge_branch", "archive_branch")


class Client:
    """One client, named as an owner of locks. It has a process of its own, and survives the process of the engine."""

    weights = WEIGHTS

    def __init__(self, name: str, world: World, oracle: Oracle, kinds: list[str], branches: tuple[str, ...]) -> None:
        self.name = name
        self.host: Host
        self.left = 0
        self._world = world
        self._oracle = oracle
        self._kinds = kinds
        self._weights = [self.weights[kind] for kind in kinds]
        self._branches = branches
        self._held: list[tuple[str, Any]] = []
        self.first: list[str] = []
        """Its first operations; the later ones are random."""

    def run(self) -> None:
        """Do the operations, one after the other, with pauses."""
        random = self._world.random
        while self.left > 0:
            self._world.sleep(random.choice((0.0, 0.0, 0.0, 0.01, 0.3, 1.0, 2.5)))
            if self.host.closed:
                return
            self.left -= 1
            kind = self.first.pop(0) if self.first else random.choices(self._kinds, self._weights)[0]
            getattr(self, "_" + kind)(random.choice(self._branches))

    def _do(self, op: Op, call: Callable[[], Any]) -> Any:
        self._oracle.call(op)
        try:
            op.result = call()
        except ShadowSwitchError as error:
            op.error = error
        self._oracle.answer(op)
        return op.result

    def _op(self, kind: str, branch: str, **more: Any) -> Op:
        world = self._world
        return Op(len(self._oracle.ops), self.name, kind, branch, world.now, world.troubles, **more)

    def _mine(self, branch: str) -> tuple[str, Any] | None:
        """A lock that this client was once granted; it may have ended."""
        mine = [held for held in self._held if held[0] == branch]
        return self._world.random.choice(mine[-3:]) if mine else None

    # -- writes ----------------------------------------------------------------------------------------------------

    def _write(self, branch: str) -> None:
        random = self._world.random
        mine = self._mine(branch) if random.random() < 0.6 else None
        records = random.sample(RECORDS, random.choice((1, 1, 2)))
        if mine is not None and random.random() < 0.7:
            records = [self._inside(mine[1])]
        tokens = (mine[1].token,) if mine is not None else ()
        op = self._op("write", branch, targets=keys_of(records), tokens=tokens)
        fields = {"op": op.number, "text": WORD, "vector": VECTOR}
        changes: list[Put | Delete] = [Put(*records[0], fields)]
        changes += [Delete(*record) if random.random() < 0.3 else Put(*record, fields) for record in records[1:]]
        self._do(op, lambda: self.host.write(branch, changes, owner=self.name, tokens=tokens))

    def _inside(self, lock: Any) -> tuple[str, str]:
        """A record that a lock covers."""
        resource_type = lock.resource_type or self._world.random.choice(TYPES)
        return resource_type, lock.resource_id or self._world.random.choice(IDS)

    def _check(self, branch: str) -> None:
        random = self._world.random
        mine = self._mine(branch) if random.random() < 0.5 else None
        record = random.choice(RECORDS)
        tokens = (mine[1].token,) if mine is not None else ()
        op = self._op("check", branch, targets=keys_of([record]), tokens=tokens)
        self._do(op, lambda: self.host.check_write(branch, "write", *record, owner=self.name, tokens=tokens))

    # -- locks -----------------------------------------------------------------------------------------------------

    def _acquire(self, branch: str) -> None:
        self._lock(branch, (self._world.random.choice(TARGETS),))

    def _several(self, branch: str) -> None:
        """Lock records of one type, and one record or all of the other type: no two overlap."""
        random = self._world.random
        first, second = random.sample(TYPES, 2)
        more = random.choice((type_target(second), resource_target(second, "1")))
        self._lock(branch, (*(resource_target(first, id) for id in random.sample(IDS, random.choice((1, 2)))), more))

    def _lock(self, branch: str, targets: tuple[Target, ...]) -> None:
        random = self._world.random
        mine = self._mine(branch) if random.random() < 0.2 else None
        op = self._op(
            "acquire",
            branch,
            targets=targets,
            lock_type=random.choice((LockType.MANUAL, LockType.MANUAL, LockType.INDEXING)),
            tokens=(mine[1].token,) if mine is not None else (),
            wait_s=random.choice((0.0, 0.0, 0.5, 3.0, 10.0)),
            ttl_s=random.choice((0.2, 1.0, 5.0, 5.0)),
            heartbeat_s=random.choice((None, None, 0.2, 1.0)),
        )
        self._held += [(branch, lock) for lock in self._do(op, lambda: self._ask(op)) or ()]

    def _ask(self, op: Op) -> list[Any]:
        specs = [
            LockSpec(
                op.lock_type,
                target.scope,
                target.resource_type,
                target.resource_id,
                op.ttl_s,
                op.heartbeat_s,
                f"#{op.number}",
            )
            for target in op.targets
        ]
        if len(specs) > 1:
            return self.host.acquire_locks(op.branch, specs, self.name, op.wait_s, tokens=op.tokens)
        one = {name: value for name, value in msgspec.structs.asdict(specs[0]).items() if value}
        return [self.host.acquire_lock(op.branch, owner=self.name, wait_s=op.wait_s, tokens=op.tokens, **one)]

    def _lease(self, branch: str) -> None:
        """Take a write lease and keep it, as a host with its own storage does."""
        random = self._world.random
        record = random.choice(RECORDS)
        op = self._op("lease", branch, targets=keys_of([record]), ttl_s=random.choice((0.2, 2.0)))

        def ask() -> list[Any]:
            given = self.host.check_write(branch, "write", *record, owner=self.name, lease_s=op.ttl_s)
            named = {"resource_type": record[0], "resource_id": record[1]}
            return [SimpleNamespace(lock_id=given.lock_id, token=given.token, **named)] if given.allowed else []

        self._held += [(branch, lease) for lease in self._do(op, ask) or ()]

    def _confirm(self, branch: str) -> None:
        self._act("confirm", branch, lambda lock: self.host.confirm_lock(lock.lock_id, lock.token))

    def _release(self, branch: str) -> None:
        def release(lock: Any) -> Any:
            self.host.release_lock(lock.lock_id, lock.token)
            return lock

        self._act("release", branch, release)

    def _heartbeat(self, branch: str) -> None:
        self._act("heartbeat", branch, lambda lock: self.host.heartbeat(lock.lock_id, lock.token, 10))

    def _extend(self, branch: str) -> None:
        extra_s = self._world.random.choice((0.5, 5.0))
        self._act("extend", branch, lambda lock: self.host.extend_lock(lock.lock_id, lock.token, extra_s), extra_s)

    def _act(self, kind: str, branch: str, call: Callable[[Any], Any], extra_s: float = 0.0) -> None:
        mine = self._mine(branch)
        if mine is not None:
            lock = mine[1]
            op = self._op(kind, branch, tokens=(lock.token,), lock_id=lock.lock_id, extra_s=extra_s)
            self._do(op, lambda: call(lock))

    def _force(self, branch: str) -> None:
        op = self._op("force", branch)
        self._do(op, lambda: self.host.force_unlock(branch, self.name, f"#{op.number}"))

    def _locks(self, branch: str) -> None:
        self._do(self._op("locks", branch), lambda: self.host.locks(branch))

    # -- the life of the branch ------------------------------------------------------------------------------------

    def _index(self, branch: str) -> None:
        random = self._world.random
        types = random.choice((None, TYPES[:1], TYPES))
        shadow = random.random() < 0.3
        targets = () if shadow else (BRANCH,) if types is None else tuple(map(type_target, types))
        op = self._op("index", branch, targets=targets, lock_type=LockType.INDEXING, ttl_s=random.choice((1.0, 5.0)))

        def start() -> list[Any]:
            return self.host.start_indexing(
                branch, self.name, types, shadow=shadow, ttl_s=op.ttl_s, reason=f"#{op.number}"
            )

        self._held += [(branch, lock) for lock in self._do(op, start) or ()]

    def _indexed(self, branch: str) -> None:
        random = self._world.random
        types = random.choice((None, None, TYPES[:1]))
        failed = random.random() < 0.2
        op = self._op("indexed", branch)
        self._do(op, lambda: self.host.complete_indexing(branch, self.name, types, failed=failed))

    def _move(self, branch: str) -> None:
        (name,) = self._world.random.choices(MOVES, (6, 6, 2, 1))
        op = self._op(name, branch)
        self._do(op, lambda: getattr(self.host, name)(branch, self.name))
