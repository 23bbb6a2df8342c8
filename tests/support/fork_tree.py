"""Random work on a tree of branches, each held against a full copy in memory.

The copies are plain dictionaries: a fork begins with what its parent has, later changes of either show on that
one alone, a merge is field-wise by the state at the fork. What a branch shows is compared record by record, and by
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


class Tree:
    """The branches of one test: the engine's, and their copies."""

    def __init__(self, engine: Engine, seed: int, branches_max: int = 7) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.branches_max = branches_max
        self.root = f"root-{seed}"
        self.shown: dict[str, Shown] = {self.root: {}}
        self.parent: dict[str, str | None] = {self.root: None}
        self.base: dict[str, Shown] = {}
        self.made = 0
        engine.create_branch(self.root)

    def step(self) -> None:
        """One random act."""
        act, name = self.chance.random(), self.chance.choice(list(self.shown))
        if act < 0.6:
            self.write(name)
        elif act < 0.72 and len(self.shown) < self.branches_max:
            self.fork(name)
        elif self.parent[name] is None or act < 0.72:
            inside.sweep(self.engine)
        elif act < 0.82:
            self.merge(name)
        elif act < 0.9:
            self.rebase(name)
        elif name not in self.parent.values():
            self.engine.drop_branch(name)
            del self.shown[name], self.parent[name], self.base[name]

    def write(self, name: str) -> None:
        """A batch with puts and deletes, of which some change nothing."""
        batch: dict[Key, Fields | None] = {}
        for _ in range(self.chance.randint(1, 6)):
            key = self.chance.choice(TYPES), self.chance.choice(IDS)
            fields = {name: self.chance.randint(0, 2) for name in "abc" if self.chance.random() < 0.7}
            batch[key] = None if self.chance.random() < 0.3 else fields
        self.engine.write(name, [Delete(*key) if v is None else Put(*key, v) for key, v in batch.items()])
        for key, written in batch.items():
            _set(self.shown[name], key, written)

    def fork(self, name: str) -> None:
        """A fork of a branch."""
        self.made += 1
        fork = f"{name}/{self.made}"
        self.engine.fork_branch(fork, name)
        self.parent[fork], self.shown[fork], self.base[fork] = name, dict(self.shown[name]), dict(self.shown[name])

    def merge(self, name: str) -> None:
        """Merge a fork into its parent, by one of the ways to settle conflicts."""
        parent = self.parent[name]
        assert parent is not None
        way = self.chance.choice(("refuse", "ours", "theirs"))
        merged, conflicts = self._three_way(name, way)
        result = self.engine.merge_into(parent, name, on_conflict=way)
        assert len(result.conflicts) == conflicts, (name, way)
        if way != "refuse" or not conflicts:
            self.shown[parent] = merged

    def rebase(self, name: str) -> None:
        """Bring the changes of its parent into a fork."""
        parent = self.parent[name]
        assert parent is not None
        way = self.chance.choice(("refuse", "ours", "theirs"))
        merged, conflicts = self._three_way(name, way)
        result = self.engine.rebase(name, on_conflict=way)
        assert len(result.conflicts) == conflicts, (name, way)
        if way != "refuse" or not conflicts:
            self.shown[name], self.base[name] = merged, dict(self.shown[parent])

    def _three_way(self, name: str, way: str) -> tuple[Shown, int]:
        """What both shall have then, and the number of conflicts; by the definition, apart from the product."""
        base, ours, theirs = self.base[name], self.shown[name], self.shown[self.parent[name] or ""]
        merged: Shown = {}
        conflicts = 0
        for key in {*base, *ours, *theirs}:
            was, mine, other = base.get(key), ours.get(key), theirs.get(key)
            if mine in (was, other):
                outcome = other
            elif other == was:
                outcome = mine
            elif was is None or mine is None or other is None:
                conflicts += 1
                outcome = mine if way == "ours" else other
            else:
                fields = {*was, *mine, *other}
                both = [
                    f for f in fields if mine.get(f) not in (was.get(f), other.get(f)) and other.get(f) != was.get(f)
                ]
                conflicts += bool(both)
                outcome = dict(other)
                for field in fields:
                    if mine.get(field) != was.get(field) and (field not in both or way == "ours"):
                        outcome.pop(field, None)
                        outcome |= {field: mine[field]} if field in mine else {}
            _set(merged, key, outcome)
        return merged, conflicts

    def wrong(self) -> list[str]:
        """How the engine, or its own check, differs from the copies; empty when it does not."""
        return self.different() + [str(finding) for finding in self.engine.check()]

    def different(self) -> list[str]:
        """As `wrong`, without the engine's own check."""
        found = []
        for name, expected in self.shown.items():
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
                base = self.base[name]
                changed = {key for key in {*base, *expected} if base.get(key) != expected.get(key)}
                if {(diff.resource_type, diff.id) for diff in self.engine.diff(name)} != changed:
                    found.append(f"the diff of {name} differs")
        return found


def _set(shown: Shown, key: Key, fields: Fields | None) -> None:
    if fields is None:
        shown.pop(key, None)
    else:
        shown[key] = fields


def _difference(one: Shown, other: Shown) -> str:
    return str([(key, one.get(key), other.get(key)) for key in {*one, *other} if one.get(key) != other.get(key)])[:300]
