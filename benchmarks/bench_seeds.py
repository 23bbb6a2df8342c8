"""Benchmark 13, seeds: builds that begin with the files of a live generation, and the indexes of forks.

    python -m benchmarks.bench_seeds [--records 100000] [--rounds 3]

Each build is held against one from the records, with the same options, in the same run and in turns. The time is from
`start_build` to BUILT, with its validation: it is the same for both, so the time until it begins is a figure of its
own. Before each refresh a hundredth of the records is changed; the live index has followed. The first search on a
fork is the whole wait of its first reader: copy, comparison, proof, switch, search.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, TYPE, Report, each_us, fill_types, quantile, record, size_mib
from shadowswitch.engine.engine import Engine
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.model.views import SwitchRequest

INDEX, OTHER = "SEARCH_INDEX", "other_type"
TIMEOUT_S = 600.0
LOOK_S = 0.003
UNDER_WAY = (ShadowState.PREPARING, ShadowState.BUILDING)
BASE: dict[str, Any] = {"columns": {"title": 1.0, "body": 1.0}}
CHANGES: dict[str, dict[str, Any]] = {
    "refresh, 1 % changed": BASE,
    "other weights": {"columns": {"title": 4.0, "body": 1.0}},
    "another tokenizer": {**BASE, "tokenizer": "porter"},
    "one type more": BASE,
}
"""The options of the build, by what is different from the live index."""


class Took(NamedTuple):
    """The seconds of a build, until its validation began, and until it was BUILT."""

    made_s: float
    built_s: float


def build(engine: Engine, report: Report, types: list[str], config: dict[str, Any], seed: str) -> Took:
    """Build and switch."""
    begun = time.perf_counter()
    id = engine.start_build(BRANCH, INDEX, types, config, seed=seed).shadow_index_id
    while (shadow := engine.shadow(id)).state in UNDER_WAY and shadow.phase != Phase.VALIDATING:
        time.sleep(LOOK_S)
    made = time.perf_counter()
    built = engine.wait_for(id, timeout_s=TIMEOUT_S)
    took = Took(made - begun, time.perf_counter() - begun)
    if bool(built.seeded_from) != (seed == "require"):
        report.problems.append(f"a build with seed={seed} began with generation {built.seeded_from}")
    result = engine.switch(id, SwitchRequest(force_switch=True, switch_timeout_seconds=60))
    if not result.success:
        report.problems.append(f"a switch was refused: {result.message}")
    return took


def change(engine: Engine, records: int, chance: random.Random) -> None:
    """Change a hundredth of the records; the live index follows."""
    changed = [record(number, chance) for number in chance.sample(range(records), max(1, records // 100))]
    for start in range(0, len(changed), BATCH):
        engine.write(BRANCH, changed[start : start + BATCH], timeout_s=120)
    with engine.reader(BRANCH, INDEX, min_lsn=engine.head(BRANCH), timeout_s=120):
        pass


def builds(report: Report, engine: Engine, records: int, rounds: int) -> None:
    """Each kind of change, seeded and from the records, in turns."""
    chance = random.Random(5)
    took: dict[tuple[str, str], list[Took]] = defaultdict(list)
    for _ in range(rounds):
        for name, config in CHANGES.items():
            types = [TYPE, OTHER] if name == "one type more" else [TYPE]
            for seed in ("require", "never"):
                build(engine, report, [TYPE], BASE, "never")
                if name.startswith("refresh"):
                    change(engine, records, chance)
                took[name, seed].append(build(engine, report, types, config, seed))
    for name in CHANGES:
        says = f"from the live generation / from the records, p50 of {rounds}; {records:,} records"
        for part, what in (("built_s", name), ("made_s", f"{name}, until its validation")):
            seeded, full = (
                quantile([getattr(one, part) for one in took[name, seed]], 0.5) for seed in ("require", "never")
            )
            report.figure(what, f"{seeded:.2f} / {full:.2f}", "s", says)
            if name.startswith("refresh"):
                ratio = full / seeded if seeded else 0.0
                until = "" if part == "built_s" else ", until the validation that both have"
                says_it = f"a refresh with 1 % changed: 10 times faster than a full build{until}"
                report.target(says_it, f"{ratio:.1f}", ratio >= 10)


def forks(report: Report, engine: Engine, records: int, rounds: int) -> None:
    """The first search on a fork, whose parent went on with nothing, and with a hundredth of its records."""
    chance = random.Random(6)
    build(engine, report, [TYPE], BASE, "never")
    for goes_on in (False, True):
        took = []
        for number in range(rounds):
            name = f"searched-{goes_on}-{number}"
            engine.fork_branch(name, BRANCH)
            if goes_on:
                change(engine, records, chance)
            begun = time.perf_counter()
            with engine.reader(name, INDEX, timeout_s=TIMEOUT_S) as reader:
                reader.search("amber", limit=10)
            took.append(time.perf_counter() - begun)
        says = f"of {records:,} records; p50 / longest of {rounds}"
        what = "whose parent changed 1 % since" if goes_on else "whose parent is as it was"
        report.figure(f"first search on a fork {what}", f"{quantile(took, 0.5):.2f} / {max(took):.2f}", "s", says)
        if not goes_on:
            p50 = quantile(took, 0.5)
            report.target(
                "first search on the fork of an index of 100,000 records: within 1 s", f"{p50:.2f} s", p50 <= 1
            )
    made = Path(engine.index(name, INDEX).path)
    report.figure(
        "disk of the index of a fork", size_mib(made), "MiB", f"a copy of that of its parent, {records:,} records"
    )
    searches = {branch: searched_us(engine, branch) for branch in (BRANCH, name)}
    says = "the words of one record, the ten best; on a fork / on its parent"
    report.figure("search on a fork", f"{searches[name]:.0f} / {searches[BRANCH]:.0f}", "us", says)


def searched_us(engine: Engine, branch: str) -> float:
    """The mean time of a search through an open reader, in microseconds."""
    words = [record(number, random.Random(number)).fields["title"] for number in range(50)]
    turns = itertools.count()
    with engine.reader(branch, INDEX, timeout_s=TIMEOUT_S) as reader:
        return each_us(lambda: reader.search(words[next(turns) % len(words)], limit=10), 200)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = Report("13. Seeds", f"{options.records:,} records of about 200 bytes, half as many of another type")
    with common.scratch(options.folder) as folder, Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill_types(engine, options.records, BRANCH, (TYPE,))
        fill_types(engine, options.records // 2, BRANCH, (OTHER,), seed=2)
        builds(report, engine, options.records, options.rounds)
        forks(report, engine, options.records, options.rounds)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
