"""Benchmark 14, groups: the switch of four indexes together, beside four switches one after the other.

    python -m benchmarks.bench_groups [--records 20000] [--rounds 60]

Two branches with two indexes each, of two backends, all followed; quiet, and beside two writers with 1 ms of thought,
which write to both. The group is rolled back and forth: each is the same turn as its switch. Then each index is rolled
back and forth by itself, in the same run. The time for which writers are kept out is that of the turn (`sealed_ms`).
"""

from __future__ import annotations

import random
import sys

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, TYPE, Report, fill_types, quantile, record
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine
from shadowswitch.model.groups.views import GroupMember
from shadowswitch.model.records import Put
from shadowswitch.model.views import SwitchRequest

BRANCHES = ("left", "right")
KINDS = {"SEARCH_INDEX": {"backend": "fts5"}, "GRAPH_INDEX": {"backend": "kv"}}
MEMBERS = [(branch, kind) for branch in BRANCHES for kind in KINDS]
TIMEOUT_S = 300.0
REQUEST = SwitchRequest(force_switch=True, switch_timeout_seconds=60)


def make_branches(engine: Engine, records: int) -> None:
    """Two branches with two live indexes each."""
    for branch in BRANCHES:
        engine.create_branch(branch)
        fill_types(engine, records, branch, (TYPE,))
        for kind, config in KINDS.items():
            engine.rebuild(branch, kind, [TYPE], config, REQUEST, timeout_s=TIMEOUT_S)


def switched_group(engine: Engine) -> str:
    """A group of all four that was switched, so each index has a previous generation; returns its id."""
    members = [GroupMember(branch, kind, [TYPE], KINDS[kind]) for branch, kind in MEMBERS]
    group = engine.start_group("four", members)
    for member in group.members:
        engine.wait_for(member.shadow_index_id, timeout_s=TIMEOUT_S)
    result = engine.switch_group(group.id, REQUEST)
    assert result.success, result.message
    return group.id


def measure(report: Report, engine: Engine, group: str, records: int, rounds: int, writers: int) -> None:
    """The turns of the group, then of each index by itself."""
    together, alone, calls_together, calls_alone = list[float](), list[float](), list[float](), list[float]()

    def write(chance: random.Random) -> None:
        change = record(chance.randrange(records), chance)
        engine.write(chance.choice(BRANCHES), [Put(TYPE, change.id, change.fields)])

    broken = SwitchRequest(force_switch=True, switch_timeout_seconds=60, break_group=True)
    load = f"beside {writers} writers" if writers else "quiet"
    with Loops(write, write, writers, 0) as loops:
        for _ in range(rounds):
            result = engine.rollback_group(group, REQUEST)
            if not result.success:
                report.problems.append(f"a rollback of the group was refused: {result.message}")
            together.append(result.sealed_ms)
            calls_together.append(result.switch_duration_ms)
        for _ in range(rounds):
            four = [engine.rollback(*member, broken) for member in MEMBERS]
            report.problems += [f"a rollback was refused: {one.message}" for one in four if not one.success]
            alone += [one.sealed_ms for one in four]
            calls_alone.append(sum(one.switch_duration_ms for one in four))
    report.problems += loops.errors
    says = f"p50 / p99 of {rounds} rollbacks, {load}; {records:,} records on each of two branches"
    for name, times in (
        ("a group of four keeps writers out", together),
        ("an index alone keeps writers out", alone),
        ("call of a group of four", calls_together),
        ("calls of four alone, one after the other", calls_alone),
    ):
        report.figure(f"{name}, {load}", f"{quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f}", "ms", says)
    ratio = quantile(together, 0.5) / quantile(alone, 0.5)
    what = f"a group of four keeps writers out at most 1.5 times as long as one, {load}"
    report.target(what, f"{ratio:.2f}", ratio <= 1.5)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    report = Report("14. Groups", f"{options.records:,} records of about 200 bytes on each of two branches")
    with common.scratch(options.folder) as folder, Engine.open(folder / "data", BENCH_CONFIG) as engine:
        make_branches(engine, options.records)
        for writers in (0, 2):
            measure(report, engine, switched_group(engine), options.records, options.rounds, writers)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
