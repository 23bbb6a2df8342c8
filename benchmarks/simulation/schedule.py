"""The steps of all developers with their times, made from a seed before the run: every mode gets the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from benchmarks.common import WORDS, Window

TYPES = ("object_type", "link_type", "action_type")
HOT = 50
"""The number of hot records of a branch: half of all edits go to them, so that developers meet."""
STEPS_MAX = 20_000


class Step(msgspec.Struct, frozen=True):
    """One thing that a developer does after thinking: edit, delete, locked-edit or search."""

    think_s: float
    kind: str
    resource_type: str
    id: str
    text: str


class Developer(msgspec.Struct, frozen=True):
    """One developer: the branch, the hours at work (seconds since the start), and the steps."""

    name: str
    branch: str
    zone: int
    at_work: tuple[Window, ...]
    steps: tuple[Step, ...]


class Rebuild(msgspec.Struct, frozen=True):
    """The time of a rebuild, and its branch."""

    at_s: float
    branch: str


class Schedule(msgspec.Struct, frozen=True):
    """A whole run."""

    title: str
    seconds: float
    branches: tuple[str, ...]
    records: int
    developers: tuple[Developer, ...]
    rebuilds: tuple[Rebuild, ...]
    build_says_s: float = 1800.0
    """The time of a build in the story, which runs in scaled time: the report's 30 minutes."""
    zones: int = 1


class Size(msgspec.Struct, frozen=True):
    """How large a run is."""

    developers: int
    branches: int
    seconds: float
    rebuilds: int
    records: int
    think_s: float
    seed: int


def branch_names(count: int) -> tuple[str, ...]:
    """`feature/0`, ..."""
    return tuple(f"feature/{number}" for number in range(count))


def type_of(n: int) -> str:
    """Records are spread over the types by number."""
    return TYPES[n % len(TYPES)]


def everyday(size: Size) -> Schedule:
    """Developers on branches, rebuilds spread evenly over the run and over the branches."""
    branches = branch_names(size.branches)
    times = [size.seconds * (n + 0.5) / size.rebuilds for n in range(size.rebuilds)]
    rebuilds = tuple(Rebuild(at, branches[n % len(branches)]) for n, at in enumerate(times))
    whole = tuple(((0.0, size.seconds),) for _ in range(size.developers))
    title = f"{size.developers} developers on {size.branches} branches, {size.rebuilds} rebuilds"
    return Schedule(title, size.seconds, branches, size.records, _team(size, branches, whole), rebuilds)


def big_team(size: Size, build_s: float) -> Schedule:
    """Scenario 1 of the report: twenty developers on one branch, and one build of 30 minutes."""
    size = msgspec.structs.replace(size, developers=20, branches=1, rebuilds=1, seconds=max(6 * build_s, 6.0))
    return msgspec.structs.replace(everyday(size), title="Scenario 1: 20 developers on one branch, one rebuild")


def many_builds(size: Size, build_s: float) -> Schedule:
    """Scenario 2: a working day of 8 hours with five builds of 30 minutes."""
    day_s = 16 * build_s
    size = msgspec.structs.replace(size, branches=1, rebuilds=5, seconds=day_s)
    title = f"Scenario 2: a working day of 8 h with five rebuilds, {size.developers} developers"
    return msgspec.structs.replace(everyday(size), title=title)


def round_the_clock(size: Size, build_s: float) -> Schedule:
    """Scenario 3: three time zones of 8 hours each, around the clock, with five builds in the 24 hours."""
    day_s = 48 * build_s
    size = msgspec.structs.replace(size, branches=1, rebuilds=5, seconds=day_s)
    third = day_s / 3
    shifts = tuple(((n % 3 * third, (n % 3 + 1) * third),) for n in range(size.developers))
    plan = everyday(size)
    team = _team(size, plan.branches, shifts)
    title = f"Scenario 3: 24 h, three time zones, {size.developers} developers, five rebuilds"
    return msgspec.structs.replace(plan, title=title, developers=team, zones=3)


def _team(size: Size, branches: Sequence[str], hours: Sequence[tuple[Window, ...]]) -> tuple[Developer, ...]:
    team = []
    for n in range(size.developers):
        chance = random.Random(size.seed * 1000 + n)
        steps = min(STEPS_MAX, int(2 * size.seconds / size.think_s) + 10)
        plan = tuple(_step(chance, size, f"d{n}s{number}q") for number in range(steps))
        team.append(Developer(f"developer {n}", branches[n % len(branches)], n % 3, hours[n], plan))
    return tuple(team)


def _step(chance: random.Random, size: Size, marker: str) -> Step:
    kind = chance.choices(("edit", "delete", "locked-edit", "search"), (60, 12, 6, 22))[0]
    n = chance.randrange(min(HOT, size.records)) if chance.random() < 0.5 else chance.randrange(size.records)
    text = f"{marker} {' '.join(chance.choices(WORDS, k=30))}"
    think_s = min(chance.expovariate(1 / size.think_s), 8 * size.think_s)
    return Step(think_s, kind, type_of(n), f"r{n:07d}", text)
