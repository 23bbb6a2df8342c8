"""Many resource types: reading a record, looking at a branch, a switch and fsck, beside the same with one type.

Beside reading and fsck stands bare LMDB on the same catalog: the row of the record, that of the branch, and all rows.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks.bare import BareRows
from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, KIND, Report, each_us, quantile
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put
from shadowswitch.model.views import SwitchRequest

CALLS, ROUNDS = 1000, 20
SWITCHES = 7
CHECKS = 3
SWITCH_TIMEOUT_S = 120
"""A busy machine makes a call long, and not its turn."""
RATIO_MAX = 2.0


class Costs(msgspec.Struct):
    """Of one data directory, each round of a measurement: microseconds, milliseconds, seconds."""

    get_us: list[float] = []
    branch_us: list[float] = []
    sealed_ms: list[float] = []
    check_s: list[float] = []


class Bare(msgspec.Struct):
    """The same directory without the engine."""

    get_us: float
    branch_us: float
    all_s: float


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The same number of records, of one type and of many; both engines in turns, so that other work slows both."""
    records, (few, many) = 2 * sizes.types, (folder / "one", folder / "many")
    with Engine.open(few, BENCH_CONFIG) as first, Engine.open(many, BENCH_CONFIG) as second:
        cases = [_Case(first, records, 1, report), _Case(second, records, sizes.types, report)]
        for rounds, turn in ((ROUNDS, _Case.read), (SWITCHES, _Case.roll_back), (CHECKS, _Case.check)):
            for _ in range(rounds):
                for case in cases:
                    turn(case)
    one, lots = (case.costs for case in cases)
    for what, unit, small, large in (
        ("get", "us", one.get_us, lots.get_us),
        ("branch()", "us", one.branch_us, lots.branch_us),
        ("sealed_ms p50", "ms", one.sealed_ms, lots.sealed_ms),
        ("check()", "s", one.check_s, lots.check_s),
    ):
        pair = quantile(small, 0.5), quantile(large, 0.5)
        _show(what, unit, pair, f"{records:,} records, median of {len(small)} rounds in turns", sizes, report)
        says = f"{what} with {sizes.types:,} types within {RATIO_MAX:g} times of one type"
        report.target(says, f"{pair[1] / pair[0]:.2f} times", sizes.judged(pair[1] <= RATIO_MAX * pair[0]))
    row, rows = _bare(few), _bare(many)
    for what, unit, pair in (
        ("the row of a record", "us", (row.get_us, rows.get_us)),
        ("the row of a branch", "us", (row.branch_us, rows.branch_us)),
        ("all rows of the catalog", "s", (row.all_s, rows.all_s)),
    ):
        _show(f"bare LMDB, {what}", unit, pair, "of the same catalog, not decoded", sizes, report)


def _show(what: str, unit: str, pair: tuple[float, float], how: str, sizes: Sizes, report: Report) -> None:
    for types, value in zip(("1 type", f"{sizes.types:,} types"), pair, strict=True):
        report.figure(f"types: {what}, {types}", value, unit, how)


def _bare(data: Path) -> Bare:
    with closing(BareRows(data)) as bare:
        return Bare(bare.one_us("records", CALLS), bare.one_us("branches", CALLS), bare.all_s())


class _Case:
    """An engine with records of so many types and a live index, which has a previous generation."""

    def __init__(self, engine: Engine, records: int, types: int, report: Report) -> None:
        self._engine = engine
        self._report = report
        self._last = (f"type_{types - 1:05d}", f"r{types - 1:07d}")
        self.costs = Costs()
        names = [f"type_{n:05d}" for n in range(types)]
        engine.create_branch(BRANCH)
        for start in range(0, records, BATCH):
            numbers = range(start, min(records, start + BATCH))
            engine.write(BRANCH, [Put(names[n % types], f"r{n:07d}", {"text": f"text {n}"}) for n in numbers])
        for _ in range(2):
            engine.rebuild(BRANCH, KIND, names, {"backend": "kv", "parallel_workers": 1}, timeout_s=300)

    def read(self) -> None:
        """A record and the branch, many times."""
        self.costs.get_us.append(each_us(lambda: self._engine.get(BRANCH, *self._last), CALLS // ROUNDS))
        self.costs.branch_us.append(each_us(lambda: self._engine.branch(BRANCH), CALLS // ROUNDS))

    def roll_back(self) -> None:
        """A switch to the previous generation."""
        result = self._engine.rollback(BRANCH, KIND, SwitchRequest(switch_timeout_seconds=SWITCH_TIMEOUT_S))
        if not result.success:
            self._report.problems.append(f"types: a rollback failed: {result.message}")
        self.costs.sealed_ms.append(result.sealed_ms)

    def check(self) -> None:
        """A check of everything."""
        begun = time.perf_counter()
        self._report.problems += [str(finding) for finding in self._engine.check()]
        self.costs.check_s.append(time.perf_counter() - begun)
