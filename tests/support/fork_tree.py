"""Random work on a tree of branches, each held against a full copy in memory.

The copies are plain dictionaries: a fork begins with what its parent has, later changes of either show on that
one alone, a merge is field-wise by the state at the fork. A fork that follows shows what its parent has, except for the
records that it changed itself. What a branch shows is compared record by record, and by
`check()`, which recomputes each digest.
"""

from __future__ import annotations

import random
from typing import Any

from shadowswitch import Delete, Engine, Put
from tests.support import inside

Fields = dict[str, Any]
Key = tuple[str, str]
Shown = dict[Key, Fields]
TYPES = ("t", "u")
LONG = "k" * 400
"""As long as an id in a key may be; ids that begin with it have a hash in their keys."""
IDS = [*(f"k{number}" for number in range(8)), "k", "k1\x7f", LONG, LONG + "a", LONG + "b"]


class Copy:
    """A branch that is no fork, or one that shows one moment of its parent."""

    def __init__(self, shown: Shown) -> None:
        self._shown, self._base = dict(shown), dict(shown)

    @property
    def shown(self) -> Shown:
        """What it shows."""
        return self._shown

    @property
    def base(self) -> Shown:
        """What it is compared with."""
        return self._base

    def put(self, key: Key, fields: Fields | None) -> None:
        """A write."""
        _set(self._shown, key, fields)

    def rebased(self, merged: Shown, parent: Shown) -> None:
        """A rebase."""
        self._shown, self._base = dict(merged), dict(parent)


class FollowingCopy(Copy):
    """A branch that follows its parent."""

    def __init__(self, parent: Copy) -> None:
        super().__init__({})
        self.parent = parent
        self.own: dict[Key, Fields | None] = {}
        self.own_base: dict[Key, Fields | None] = {}

    def _with(self, own: dict[Key, Fields | None]) -> Shown:
        shown = dict(self.parent.shown)
        for key, fields in own.items():
            _set(shown, key, fields)
        return shown

    @property
    def shown(self) -> Shown:
        """What it shows."""
        return self._with(self.own)

    @property
    def base(self) -> Shown:
        """What it is compared with."""
        return self._with(self.own_base)

    def put(self, key: Key, fields: Fields | None) -> None:
        """A write. The first one of a record makes it the branch's own; a delete of none does not."""
        before = self.shown.get(key)
        if key not in self.own and (fields is not None or before is not None):
            self.own_base[key] = before
        if key in self.own_base:
            self.own[key] = fields

    def rebased(self, merged: Shown, parent: Shown) -> None:
        """A rebase: what it has of its own is compared with its parent as it is now."""
        for key in self.own:
            self.own[key], self.own_base[key] = merged.get(key), parent.get(key)


class Tree:
    """The branches of one test: the engine's, and their copies."""

    def __init__(self, engine: Engine, seed: int, branches_max: int = 7, following: float = 0.35) -> None:
        """`following` is the part of the forks that follow their parents."""
        self.engine = engine
        self.chance = random.Random(seed)
        self.branches_max = branches_max
        self.following = following
        self.root = f"root-{seed}"
        self.copies = {self.root: Copy({})}
        self.parent: dict[str, str | None] = {self.root: None}
        self.made = 0
        engine.create_branch(self.root)

    def step(self) -> None:
        """One random act."""
        act, name = self.chance.random(), self.chance.choice(list(self.copies))
        if act < 0.6:
            self.write(name)
        elif act < 0.72 and len(self.copies) < self.branches_max:
            self.fork(name)
        elif self.parent[name] is None or act < 0.72:
            inside.sweep(self.engine)
        elif act < 0.82:
            self.merge(name)
        elif act < 0.9:
            self.rebase(name)
        elif name not in self.parent.values():
            self.engine.drop_branch(name)
            del self.copies[name], self.parent[name]

    def write(self, name: str) -> None:
        """A batch with puts and deletes, of which some change nothing."""
        batch: dict[Key, Fields | None] = {}
        for _ in range(self.chance.randint(1, 6)):
            key = self.chance.choice(TYPES), self.chance.choice(IDS)
            fields = {name: self.chance.randint(0, 2) for name in "abc" if self.chance.random() < 0.7}
            batch[key] = None if self.chance.random() < 0.3 else fields
        self.engine.write(name, [Delete(*key) if v is None else Put(*key, v) for key, v in batch.items()])
        for key, written in batch.items():
            self.copies[name].put(key, written)

    def fork(self, name: str) -> None:
        """A fork of a branch."""
        self.made += 1
        fork = f"{name}/{self.made}"
        follows = self.chance.random() < self.following
        self.engine.fork_branch(fork, name, mode="following" if follows else "snapshot")
        of = self.copies[name]
        self.parent[fork], self.copies[fork] = name, FollowingCopy(of) if follows else Copy(of.shown)

    def merge(self, name: str) -> None:
        """Merge a fork into its parent, by one of the ways to settle conflicts."""
        parent = self.parent[name]
        assert parent is not None
        way = self.chance.choice(("refuse", "ours", "theirs"))
        merged, conflicts = self._three_way(name, way)
        result = self.engine.merge_into(parent, name, on_conflict=way)
        assert len(result.conflicts) == conflicts, (name, way)
        if way != "refuse" or not conflicts:
            for key in {*merged, *self.shown(parent)}:
                if merged.get(key) != self.shown(parent).get(key):
                    self.copies[parent].put(key, merged.get(key))

    def shown(self, name: str) -> Shown:
        """What a branch shows."""
        return self.copies[name].shown

    def rebase(self, name: str) -> None:
        """Bring the changes of its parent into a fork."""
        parent = self.parent[name]
        assert parent is not None
        way = self.chance.choice(("refuse", "ours", "theirs"))
        merged, conflicts = self._three_way(name, way)
        result = self.engine.rebase(name, on_conflict=way)
        assert len(result.conflicts) == conflicts, (name, way)
        if way != "refuse" or not conflicts:
            self.copies[name].rebased(merged, self.shown(parent))

    def _three_way(self, name: str, way: str) -> tuple[Shown, int]:
        """What both shall have then, and the number of conflicts."""
        base, ours, theirs = self.copies[name].base, self.shown(name), self.shown(self.parent[name] or "")
        merged: Shown = {}
        conflicts = 0
        for key in {*base, *ours, *theirs}:
            outcome, in_conflict = three_way(base.get(key), ours.get(key), theirs.get(key), way)
            conflicts += in_conflict
            _set(merged, key, outcome)
        return merged, conflicts

    def wrong(self) -> list[str]:
        """How the engine, or its own check, differs from the copies; empty when it does not."""
        return self.different() + [str(finding) for finding in self.engine.check()]

    def different(self) -> list[str]:
        """As `wrong`, without the engine's own check."""
        found = []
        for name, copy in self.copies.items():
            expected = copy.shown
            scanned = list(self.engine.scan(name))
            shown = {(record.resource_type, record.id): record.fields for record in scanned}
            if shown != expected or len(scanned) != len(shown):
                found.append(f"a scan of {name} differs: {_difference(shown, expected)}")
            for kind in TYPES:
                for id in IDS:
                    record = self.engine.get(name, kind, id)
                    if (record.fields if record is not None else None) != expected.get((kind, id)):
                        found.append(f"{kind} {id[:9]!r} of {name} is {record}, not {expected.get((kind, id))}")
                if self.engine.count(name, kind) != sum(key[0] == kind for key in expected):
                    found.append(f"the count of {kind} on {name} differs")
            if self.parent[name] is not None:
                base = copy.base
                changed = {key for key in {*base, *expected} if base.get(key) != expected.get(key)}
                if {(diff.resource_type, diff.id) for diff in self.engine.diff(name)} != changed:
                    found.append(f"the diff of {name} differs")
        return found


def three_way(was: Fields | None, mine: Fields | None, other: Fields | None, way: str) -> tuple[Fields | None, bool]:
    """What a merge makes of a record, and whether it is in conflict; by the definition, apart from the product."""
    if mine in (was, other):
        return other, False
    if other == was:
        return mine, False
    if was is None or mine is None or other is None:
        return mine if way == "ours" else other, True
    fields = {*was, *mine, *other}
    both = [f for f in fields if mine.get(f) not in (was.get(f), other.get(f)) and other.get(f) != was.get(f)]
    outcome = dict(other)
    for field in fields:
        if mine.get(field) != was.get(field) and (field not in both or way == "ours"):
            outcome.pop(field, None)
            outcome |= {field: mine[field]} if field in mine else {}
    return outcome, bool(both)


def _set(shown: Shown, key: Key, fields: Fields | None) -> None:
    if fields is None:
        shown.pop(key, None)
    else:
        shown[key] = fields


def _difference(one: Shown, other: Shown) -> str:
    return str([(key, one.get(key), other.get(key)) for key in {*one, *other} if one.get(key) != other.get(key)])[:300]
