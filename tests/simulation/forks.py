"""Seeds with forks: clients fork, write, merge, rebase, drop and read, beside locks, faults and deaths.

The oracle keeps a full copy of what each branch shows, as of each committed transaction. A batch that no client wrote
must be what a merge, or a rebase, that is under way makes of the records as they stand in that very transaction.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from shadowswitch.model.errors import Timeout
from shadowswitch.storage.catalog.locks import LocksRow
from shadowswitch.storage.catalog.rows import DROPPING, BranchRow
from tests.simulation import host as hosts
from tests.simulation.clients import RECORDS, Client
from tests.simulation.host import Host
from tests.simulation.ops import Op
from tests.simulation.oracle import Branch, Oracle, keys_of
from tests.simulation.scenario import Run
from tests.simulation.world import Violation, World
from tests.support.fork_tree import Copy, Fields, FollowingCopy, Key, Shown, three_way

WEIGHTS = {
    "write": 40,
    "acquire": 5,
    "release": 4,
    "force": 1,
    "fork": 10,
    "merge": 9,
    "rebase": 7,
    "drop": 4,
    "get": 14,
}
FORKS_MAX = 6
WAYS = ("refuse", "ours", "theirs")
Changes = list[tuple[Key, Fields | None]]


class Forks(Oracle):
    """An oracle that knows what each branch shows."""

    def __init__(self, world: World, branches: dict[str, int]) -> None:
        super().__init__(world, branches)
        self.copies: dict[int, Copy] = {number: Copy({}) for number in branches.values()}
        self.rows: dict[int, BranchRow] = {}
        self.living = list(branches)
        """The names of the branches that there are."""
        self._goals: dict[int, Shown] = {}
        """What the parent showed at the LSN to which a rebase brings its fork."""
        self._writes: Counter[int] = Counter()
        """The batches of clients, by branch; those of merges and rebases by the number below 0."""
        self._before: dict[int, list[int]] = {}
        """The number of batches of others to the branches of a merge, when it was called."""

    def parent_of(self, name: str) -> str:
        """The name of the branch that a living one was forked from; "" for one that is no fork."""
        row = self.rows.get(self.numbers[name])
        return self._name(row.parent) if row is not None and row.parent else ""

    def _name(self, number: int) -> str:
        return next(name for name, other in self.numbers.items() if other == number)

    def at_work(self, branch: str, *kinds: str) -> bool:
        """Is such an operation on the branch under way, or may it have left a batch behind?"""
        return any(op.kind in kinds and op.branch == branch and self._may_write(op) for op in self.ops)

    @staticmethod
    def _may_write(op: Op) -> bool:
        return not op.over or isinstance(op.error, Timeout)

    # -- transactions ----------------------------------------------------------------------------------------------

    def put_branch(self, row: BranchRow) -> None:
        self._inside.append((self.world.now, row.number, (row, None)))

    def committed(self) -> None:
        inside, self._inside = self._inside, []
        for at, number, (what, more) in inside:
            if isinstance(what, BranchRow):
                self._branch_committed(what)
            elif isinstance(what, LocksRow):
                self._locks_committed(at, self.branches[number], what, more)
            else:
                self._batch_committed(at, number, what, more)

    def _branch_committed(self, row: BranchRow) -> None:
        before = self.rows.get(row.number)
        self.rows[row.number] = row
        if row.state == DROPPING:
            self.world.note("commit: %s is dropped", row.name)
            self.counts["drops"] += 1
            del self.copies[row.number]
            self.living.remove(row.name)
        elif row.parent and (row.number not in self.copies or (before is not None and before.follows != row.follows)):
            self.world.note("commit: %s is a %s fork", row.name, row.mode)
            self.counts[f"{row.mode} forks"] += 1
            of = self.copies[row.parent]
            self.copies[row.number] = FollowingCopy(of) if row.follows else Copy(of.shown)
            if row.name not in self.numbers:
                self.numbers[row.name] = row.number
                self.branches[row.number] = Branch()
                self.living.append(row.name)
        elif before is not None and row.rebase_lsn != before.rebase_lsn:
            self._rebase_committed(before, row)

    def _rebase_committed(self, before: BranchRow, row: BranchRow) -> None:
        if before.rebase_lsn < 0:
            self._goals[row.number] = dict(self.copies[row.parent].shown)
            return
        goal = self._goals.pop(row.number)
        if row.fork_lsn != before.rebase_lsn:
            return
        copy = self.copies[row.number]
        left = [k for k, was in copy.base.items() if goal.get(k) != was and copy.shown.get(k) == was]
        if left:
            self.fail("BR-1", f"a rebase of {row.name} ended without the changes of {left}")
        self.counts["rebases"] += 1
        copy.rebased(copy.shown, goal)

    def _batch_committed(self, at: float, number: int, batch: Any, lsn: int) -> None:
        decode = msgspec.msgpack.decode
        changes: Changes = [
            ((one.resource_type, one.id.decode()), decode(one.fields) if one.fields else None) for one in batch.changes
        ]
        if self._is_of_client(number, changes):
            self._writes[number] += 1
            self._write_committed(at, self.branches[number], batch, lsn)
        else:
            self._brought(number, changes)
        self.branches[number].last_lsn = lsn
        for key, fields in changes:
            self.copies[number].put(key, fields)

    def _is_of_client(self, number: int, changes: Changes) -> bool:
        """Did a client write it? The first change of such a batch is a put that has the number of its operation."""
        fields = changes[0][1]
        op = self.ops[fields["op"]] if fields is not None else None
        return op is not None and op.kind == "write" and self.numbers[op.branch] == number and not op.lsns

    def _brought(self, number: int, changes: Changes) -> None:
        """A batch of a merge or of a rebase: what it makes of the records as they stand."""
        self.world.note("commit of a batch of %d merged records on %s", len(changes), self._name(number))
        for op in self.ops:
            sides = self._sides(op, number) if self._may_write(op) else None
            if sides is None:
                continue
            base, ours, theirs = sides
            outcomes = [three_way(base.get(key), ours.get(key), theirs.get(key), op.way) for key, _ in changes]
            settled = op.way != "refuse" or not any(in_conflict for _, in_conflict in outcomes)
            if settled and [fields for _, fields in changes] == [outcome for outcome, _ in outcomes]:
                self.counts[f"batches of a {op.kind}"] += 1
                self._writes[-number] += 1
                copy = self.copies[number]
                if op.kind == "rebase" and isinstance(copy, FollowingCopy):
                    copy.own_base.update({key: theirs.get(key) for key, _ in changes})
                return
        self.fail("BR-2", f"no merge under way makes {changes} of what {self._name(number)} shows")

    def _sides(self, op: Op, number: int) -> tuple[Shown, Shown, Shown] | None:
        """Base, ours and theirs of a merge into a branch, or of a rebase of it; None for another operation."""
        if op.kind not in ("merge", "rebase") or self.numbers[op.branch] != number:
            return None
        fork = self.copies.get(self.numbers[op.source] if op.kind == "merge" else number)
        if fork is None:
            return None
        if op.kind == "merge":
            theirs = self.copies[number].shown
        elif isinstance(fork, FollowingCopy):
            theirs = fork.parent.shown
        else:
            theirs = self._goals.get(number, {})
        return fork.base, fork.shown, theirs

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(self, op: Op) -> None:
        super().call(op)
        if op.kind == "merge":
            self._before[op.number] = self._versions(op)

    def _versions(self, op: Op) -> list[int]:
        target, fork = self.numbers[op.branch], self.numbers[op.source]
        return [self._writes[number] for number in (target, fork, -fork)]

    def answer(self, op: Op) -> None:
        super().answer(op)
        if op.kind == "get" and op.error is None:
            self._check_read(op)
        if op.kind == "merge" and op.result is not None and not op.result.conflicts:
            self._check_merged(op)

    def _check_read(self, op: Op) -> None:
        copy = self.copies.get(self.numbers[op.branch])
        found = op.result.fields if op.result is not None else None
        (target,) = op.targets
        self.counts["reads"] += 1
        if copy is not None and found != copy.shown.get((target.resource_type or "", target.resource_id or "")):
            self.fail("BR-1", f"{op} found {found}, and {op.branch} shows {copy.shown}")

    def _check_merged(self, op: Op) -> None:
        """Nothing is left to merge, unless a client wrote to one of the branches meanwhile."""
        sides = self._sides(op, self.numbers[op.branch])
        others = [one for one in self.ops if one.kind == "merge" and one.branch == op.branch and one is not op]
        alone = all(one.over and one.ended < op.called for one in others)
        self.counts["merges"] += 1
        if sides is None or not alone or self._before[op.number] != self._versions(op):
            return
        base, ours, theirs = sides
        left = [
            k for k in {*base, *ours} if three_way(base.get(k), ours.get(k), theirs.get(k), op.way)[0] != theirs.get(k)
        ]
        if left:
            self.fail("BR-2", f"{op} has left {left}")


class Forker(Client):
    """A client that works on forks."""

    weights = WEIGHTS

    _oracle: Forks

    def __init__(self, name: str, world: World, oracle: Forks, kinds: list[str], branches: tuple[str, ...]) -> None:
        super().__init__(name, world, oracle, kinds, branches)
        self._branches = oracle.living  # type: ignore[assignment]
        if name == "alice":
            self.first = ["write", "write", "fork", "write", "fork", "write"]

    def _fork(self, branch: str) -> None:
        if len(self._oracle.living) > FORKS_MAX:
            return
        op = self._op("fork", branch)
        mode = self._world.random.choice(("snapshot", "snapshot", "following"))
        self._do(op, lambda: self.host.fork_branch(f"fork-{op.number}", branch, mode, by=self.name))

    def _merge(self, branch: str) -> None:
        parent = self._oracle.parent_of(branch)
        if not parent or self._oracle.at_work(parent, "rebase"):  # which of the two wrote a batch could not be seen
            return
        op = self._op("merge", parent, source=branch, way=self._world.random.choice(WAYS))
        self._do(op, lambda: self.host.merge_into(parent, branch, op.way, owner=self.name, by=self.name))

    def _rebase(self, branch: str) -> None:
        if not self._oracle.parent_of(branch) or self._oracle.at_work(branch, "rebase", "merge"):
            return
        op = self._op("rebase", branch, way=self._world.random.choice(WAYS))
        self._do(op, lambda: self.host.rebase(branch, op.way, owner=self.name, by=self.name))

    def _drop(self, branch: str) -> None:
        if self._oracle.parent_of(branch):
            self._do(self._op("drop", branch), lambda: self.host.drop_branch(branch, by=self.name))

    def _get(self, branch: str) -> None:
        record = self._world.random.choice(RECORDS)
        op = self._op("get", branch, targets=keys_of([record]))
        self._do(op, lambda: self.host.get(branch, *record))


class Forking(Run):
    """One seed with forks."""

    client = Forker
    oracle_of = Forks
    operations = 60
    branches = (hosts.BRANCHES[:1],)
    again = " ARGS=--forks"

    oracle: Forks

    def _audit_records(self, host: Host) -> None:
        """Every branch shows what its copy has, and fsck agrees."""
        oracle = self.oracle
        for name in oracle.living:
            shown = {(record.resource_type, record.id): record.fields for record in host.scan(name)}
            expected = oracle.copies[oracle.numbers[name]].shown
            if shown != expected or host.count(name) != len(expected):
                raise Violation(f"BR-1: {name} shows {shown}, expected {expected}")
        if sorted(info.name for info in host.branches()) != sorted(oracle.living):
            raise Violation(f"BR-4: there are {host.branches()}, expected {oracle.living}")
        findings = self._checked(host)
        if findings:
            raise Violation(f"fsck: {findings}")
