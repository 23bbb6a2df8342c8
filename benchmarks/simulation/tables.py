"""The tables and plots of the simulation, among them the report's own table with what was measured beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import svg
from benchmarks.common import Report
from benchmarks.simulation.running import Outcome
from benchmarks.simulation.schedule import Schedule

Runs = Sequence[tuple[Schedule, dict[str, Outcome]]]
SWITCH_S = 8.0
"""What the report takes for a switch."""

ROWS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("developer time blocked by rebuilds", lambda o: f"{o.blocked_s:.3f} s"),
    ("longest time without writing", lambda o: f"{o.longest_block_s * 1000:.1f} ms"),
    ("writes delayed", lambda o: f"{o.delayed} of {len(o.writes)}"),
    ("by how much: median, most", lambda o: f"{o.delay_p50_ms:.1f}, {o.delay_max_ms:.1f} ms"),
    ("quiet p99 of a write", lambda o: f"{o.quiet_p99_ms:.1f} ms"),
    ("**writes lost**", lambda o: str(o.lost)),
    ("**deletes revived**", lambda o: str(o.revived)),
    ("**failed reads** in the host", lambda o: f"{o.failed_reads} of {o.reads + o.failed_reads}"),
    ("**failed reads** by path, outside", lambda o: f"{o.outside_failed} of {o.outside_reads + o.outside_failed}"),
    ("stale reads", lambda o: str(o.stale_reads)),
    ("availability of writing", lambda o: f"{o.availability:.4%}"),
    ("edit to searchable: p50, p99", lambda o: f"{o.searchable_p50_ms:.1f}, {o.searchable_p99_ms:.1f} ms"),
    ("edits never searchable (sampled)", lambda o: str(o.never_searchable)),
    ("rebuild, start to switched", lambda o: f"{o.build_s:.2f} s"),
    ("feature branches merged, searched, conflicts settled", lambda o: _features(o)),
    ("edit conflicts, lock conflicts", lambda o: f"{o.counts.get('edit conflicts', 0)}, {_lock_conflicts(o)}"),
)


def _features(outcome: Outcome) -> str:
    names = ("feature branches merged", "feature branches searched", "conflicts of features settled")
    return ", ".join(str(outcome.counts.get(name, 0)) for name in names) if outcome.mode == "shadow" else ""


def _lock_conflicts(outcome: Outcome) -> int:
    return outcome.counts.get("lock conflicts", 0) + outcome.counts.get("writes refused for a colleague's lock", 0)


def markdown(runs: Runs, scenarios: bool) -> str:
    """Every run as a table; after the three scenarios, the report's own table."""
    parts = [_table(schedule, found) for schedule, found in runs]
    if scenarios:
        parts.append(_report_table(runs))
    return "\n\n".join(parts)


def _table(schedule: Schedule, found: dict[str, Outcome]) -> str:
    head = f"### {schedule.title}\n\n{schedule.seconds:.1f} s, {len(schedule.developers)} developers\n\n"
    lines = [_row(("", *found)), _row(["---"] * (len(found) + 1))]
    lines += [_row((name, *(show(outcome) for outcome in found.values()))) for name, show in ROWS]
    return head + "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def scale_of(schedule: Schedule, found: dict[str, Outcome]) -> float:
    """How many seconds of the story a measured second stands for: a build stands for 30 minutes."""
    return schedule.build_says_s / found["freeze"].build_s if found["freeze"].build_s else 0.0


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"


def _report_table(runs: Runs) -> str:
    """The report's figures, and the same measured.

    What `freeze` costs grows with the build, so it is given on the scale of the story. What a switch costs does not
    (bench_switch measures that), so `seed-moves` and ours are given as measured, and scaled as a bound from above.
    """
    (one, team), (two, day), (three, clock) = runs
    rows = [
        ("", "report: freeze", "report: switch", "freeze", "swap", "seed-moves", "**shadowswitch**"),
        ["---"] * 7,
        ("1. developer time lost in one rebuild, 20 people", "10 h", "2.7 min", *_cells(one, team)),
        ("2. development time lost in a day with five rebuilds", "31 %", "0.1 %", *_shares(day, _unavailable)),
        ("2. blocked in that day, added up over developers", "-", "-", *_cells(two, day)),
        ("3. worst zone: time in which writing was not possible", "blocked", "~0", *_shares(clock, _zone)),
        ("3. blocked in 24 h, added up over developers", "-", "-", *_cells(three, clock)),
        ("writes lost or deletes revived, all three", "-", "-", *_sums(runs, lambda o: o.lost + o.revived)),
        ("failed reads, all three", "-", "-", *_sums(runs, lambda o: o.failed_reads + o.outside_failed)),
    ]
    head = (
        "### The report's table, measured\n\nThe two `report` columns are its own claims (8 s taken for a switch). The "
        f"others are measured; one second stands for {scale_of(one, team):.0f} s of the story. `freeze` is given on "
        "that scale; the others as measured, with the scaled value, a bound from above, in brackets.\n\n"
    )
    return head + "\n".join(_row(row) for row in rows)


def _cells(schedule: Schedule, found: dict[str, Outcome]) -> list[str]:
    scale = scale_of(schedule, found)
    cells = [_duration(found["freeze"].blocked_s * scale)]
    for mode in ("swap", "seed-moves", "shadow"):
        blocked_s = found[mode].blocked_s
        cells.append(f"{_duration(blocked_s)} ({_duration(blocked_s * scale)})")
    return cells


def _unavailable(outcome: Outcome) -> float:
    return 1 - outcome.availability


def _zone(outcome: Outcome) -> float:
    return 1 - outcome.worst_zone_availability


def _shares(found: dict[str, Outcome], share: Callable[[Outcome], float]) -> list[str]:
    return [f"{share(found[mode]):.3%}" for mode in ("freeze", "swap", "seed-moves", "shadow")]


def _sums(runs: Runs, count: Callable[[Outcome], int]) -> list[str]:
    return [str(sum(count(found[mode]) for _, found in runs)) for mode in ("freeze", "swap", "seed-moves", "shadow")]


def figures(report: Report, runs: Runs) -> None:
    """The figures that matter, and the targets."""
    for schedule, found in runs:
        short = schedule.title.split(":")[0]
        for mode, outcome in found.items():
            definition = "sum over all writes that overlap a rebuild of what they took beyond the quiet p99"
            report.figure(f"{short}: {mode}, developer time blocked", outcome.blocked_s, "s", definition)
    if not all("shadow" in found for _, found in runs):
        return
    ours = [found["shadow"] for _, found in runs]
    wrong = sum(o.lost + o.revived + o.failed_reads + o.outside_failed for o in ours)
    report.target("shadow: zero failed reads, zero lost, zero revived", str(wrong), wrong == 0)
    others = {name: o for _, found in runs for name, o in found.items() if name != "shadow"}
    if len(others) == 3:
        seen = (
            any(found["freeze"].blocked_s > 0 for _, found in runs)
            and any(found["swap"].lost and found["swap"].revived for _, found in runs)
            and any(found["seed-moves"].outside_failed + found["seed-moves"].failed_reads for _, found in runs)
        )
        says = "freeze, swap and seed-moves show their known failures to the same auditor"
        report.target(says, "all found" if seen else "not all found", seen)


def plots(folder: Path, runs: Runs) -> list[str]:
    """For each run: the latency of every write over the run with the rebuilds marked; blocked time by mode."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, (schedule, found) in enumerate(runs, 1):
        name = f"simulation-{number}-latency.svg"
        parts = [svg.Panel(mode, outcome.writes, outcome.rebuild_spans) for mode, outcome in found.items()]
        title = f"{schedule.title}: latency of each write, rebuilds shaded"
        svg.panels(folder / name, title, "seconds since the start", "ms (logarithmic)", parts)
        names.append(name)
        values = [(mode, o.blocked_s, _lossy(o)) for mode, o in found.items()]
        name = f"simulation-{number}-blocked.svg"
        svg.bars(folder / name, f"{schedule.title}: developer time blocked", "s", values)
        names.append(name)
    return names


def _lossy(outcome: Outcome) -> str:
    failed = outcome.failed_reads + outcome.outside_failed
    wrong = [f"{outcome.lost} lost"] * bool(outcome.lost) + [f"{outcome.revived} revived"] * bool(outcome.revived)
    wrong += [f"{failed} failed reads"] * bool(failed)
    return f"{outcome.blocked_s:.3g} s" + (f"; {', '.join(wrong)}" if wrong else "")
