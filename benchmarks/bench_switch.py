"""Benchmark 1, the pause of a switch: how long readers and writers stand still, beside quiet time and the alternatives.

    python -m benchmarks.bench_switch [--sizes 100000,1000000] [--switches 200,200] [--others 60] [--limit-s 150,60]

Two writers and two readers with 1 ms of thought run in the process of the host. A stall is the longest time without a
success of one loop in a window: around the end of each switch, and in quiet windows of the same width, half of them
before and half after. The switches go back and forth between two generations. Each is the same switch as after a
build, with its validation of every row; none begins after --limit-s. Between them, outside all windows, a bare LMDB
commit of as many pages shows what the disk allows beside the same load. Afterwards every acknowledged write must be in
the live index. The time for which writers are kept out is, of shadowswitch, the turn of the switch (drain, proof and
commit: `sealed_ms`); of the others, the time of their lock.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import common, svg
from benchmarks.bare import BareCommits
from benchmarks.common import Report, Window, quantile, quiet_windows, scratch
from benchmarks.contenders import Contender, LinkFlip, Moves, ShadowSwitch, TantivyFlip
from benchmarks.loops import Loops, spread
from benchmarks.postgres import Postgres, server_binaries

WINDOW_S = 0.25
WRITERS = READERS = 2
BARE_EDITS = 4
"""The number of pages is that of the transaction of a switch."""


class Pause(msgspec.Struct):
    """The measures of one contender; milliseconds."""

    name: str
    records: int
    switches: int
    kept_out: list[float]
    """The time of each turn (`sealed_ms`), or of each lock."""
    calls: list[float]
    """The time of each call that switches."""
    bare: list[float]
    writer_quiet: list[float]
    writer_switch: list[float]
    reader_quiet: list[float]
    reader_switch: list[float]
    failed_reads: int
    failed_writes: int
    lost: int
    revived: int
    latencies: list[tuple[float, float]]
    spans: list[Window]
    problems: list[str]


def measure(
    contender: Contender, records: int, switches: int, window_s: float, limit_s: float, bare: BareCommits | None
) -> Pause:
    """Quiet windows, switches, quiet windows; then the audit."""
    with Loops(contender.write, contender.read, WRITERS, READERS) as loops:
        time.sleep(window_s)
        begun = time.perf_counter()
        quiet = quiet_windows((switches + 1) // 2, window_s)
        out: list[float] = []
        calls: list[float] = []
        least: list[float] = []
        around: list[Window] = []
        last = time.perf_counter() + limit_s
        while len(around) < switches and time.perf_counter() < last:
            time.sleep(window_s / 2)
            if bare is not None:
                least.append(bare.commit())
                time.sleep(window_s / 2)
            called = time.perf_counter()
            kept_out = contender.switch()
            ended = time.perf_counter()
            calls.append((ended - called) * 1000)
            out += [] if kept_out is None else [kept_out]
            around.append((ended - window_s / 2, ended + window_s / 2))
            time.sleep(window_s / 2)
        quiet += quiet_windows(max(1, len(around) // 2), window_s)
    verdict = contender.ledger.audit_whole(common.BRANCH, contender.held())
    return Pause(
        name=contender.name,
        records=records,
        switches=len(around),
        kept_out=out,
        calls=calls,
        bare=least,
        writer_quiet=loops.writer_gaps(quiet),
        writer_switch=loops.writer_gaps(around),
        reader_quiet=loops.reader_gaps(quiet),
        reader_switch=loops.reader_gaps(around),
        failed_reads=sum(loop.failures for loop in loops.readers),
        failed_writes=sum(loop.failures for loop in loops.writers),
        lost=len(verdict.lost),
        revived=len(verdict.revived),
        latencies=[
            (done - begun, ms) for loop in loops.writers for done, ms in zip(loop.done, loop.took_ms, strict=True)
        ],
        spans=[(begin - begun, end - begun) for begin, end in around],
        problems=loops.errors,
    )


def run_one(
    make: Callable[[Path], Contender],
    records: int,
    switches: int,
    window_s: float,
    limit_s: float,
    folder: str | None,
) -> Pause:
    """One contender in a folder of its own."""
    with scratch(folder) as place:
        contender = make(place)
        bare = BareCommits(place / "bare", BARE_EDITS) if isinstance(contender, ShadowSwitch) else None
        try:
            found = measure(contender, records, switches, window_s, limit_s, bare)
            if isinstance(contender, ShadowSwitch) and records <= CHECKED_MAX:
                found.problems += [str(finding) for finding in contender.engine.check()]
            return found
        finally:
            contender.close()
            if bare is not None:
                bare.close()


POSTGRES_MAX = 10
"""It rebuilds the whole index each time."""
CHECKED_MAX = 200_000
"""fsck reads everything several times; beyond this size the audit of all records must do."""


def describe(report: Report, pause: Pause, window_s: float) -> None:
    """The figures of one contender."""
    where = f"{pause.name}, {pause.records:,} records"
    stall = f"longest time without a success in a window of {window_s:g} s: p50 / p99 / max"
    report.figure(
        f"{where}: writers kept out",
        spread(pause.kept_out) if pause.kept_out else "unknown",
        "ms",
        f"{pause.switches} switches",
    )
    report.figure(f"{where}: the call", spread(pause.calls), "ms", "with its checks, beside the writers")
    if pause.bare:
        took = spread(pause.bare)
        report.figure(f"{where}: a bare LMDB commit of as many pages", took, "ms", "one before each switch, same load")
    took = spread([ms for _, ms in pause.latencies])
    report.figure(f"{where}: a write meanwhile", took, "ms", "of the whole run: p50 / p99 / max")
    report.figure(f"{where}: writer stall, quiet", spread(pause.writer_quiet), "ms", stall)
    report.figure(f"{where}: writer stall, switch", spread(pause.writer_switch), "ms", stall)
    report.figure(f"{where}: reader stall, quiet", spread(pause.reader_quiet), "ms", stall)
    report.figure(f"{where}: reader stall, switch", spread(pause.reader_switch), "ms", stall)
    wrong = f"{pause.failed_reads} / {pause.failed_writes} / {pause.lost} / {pause.revived}"
    report.figure(f"{where}: failed reads / failed writes / lost / revived", wrong, "", "after the run, by the auditor")


def judge(report: Report, ours: Pause) -> None:
    """The targets of one size."""
    size = f"{ours.records:,} records"
    p50, p99 = quantile(ours.kept_out, 0.5), quantile(ours.kept_out, 0.99)
    report.target(f"sealed_ms p50 at most 3 ms, {size}", f"{p50:.2f} ms", p50 <= 3.0)
    report.target(f"sealed_ms p99 at most 10 ms, {size}", f"{p99:.2f} ms", p99 <= 10.0)
    quiet, around = quantile(ours.writer_quiet, 0.99), quantile(ours.writer_switch, 0.99)
    said = f"{around:.2f} ms, quiet {quiet:.2f} ms: {around / quiet:.2f} times"
    met = around <= 1.5 * quiet and around <= 10.0
    report.target(f"writer stall p99 at most 1.5 times quiet and 10 ms, {size}", said, met)
    quiet, around = quantile(ours.reader_quiet, 0.99), quantile(ours.reader_switch, 0.99)
    said = f"{around:.2f} ms, quiet {quiet:.2f} ms: {around / quiet:.2f} times"
    report.target(f"reader stall p99 at most 1.2 times quiet, {size}", said, around <= 1.2 * quiet)
    wrong = ours.failed_reads + ours.failed_writes + ours.lost + ours.revived
    report.target(f"no failed read, nothing lost, nothing revived, {size}", str(wrong), wrong == 0)
    if wrong:
        report.problems.append(f"{ours.name}, {size}: {wrong} failed, lost or revived")
    report.problems += ours.problems


def judge_tantivy(report: Report, words: Pause, fts5: Pause) -> None:
    """A switch of a tantivy index beside one of fts5."""
    kept_out, other = quantile(words.kept_out, 0.5), quantile(fts5.kept_out, 0.5)
    said = f"{kept_out:.2f} ms, fts5 {other:.2f} ms: {kept_out / other:.2f} times"
    report.target("tantivy: writers kept out as by fts5, p50 at most 1.2 times", said, kept_out <= 1.2 * other)
    call = quantile(words.calls, 0.5)
    report.target("tantivy: the call of a rollback at most 0.3 s, p50", f"{call / 1000:.3f} s", call <= 300)
    if wrong := words.failed_reads + words.failed_writes + words.lost + words.revived:
        report.problems.append(f"{words.name}: {wrong} failed, lost or revived")
    report.problems += words.problems


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--sizes", default="100000,1000000", help="records, of shadowswitch with fts5")
    parser.add_argument("--switches", default="200", help="of each size; the last one is that of all later sizes")
    parser.add_argument("--others", type=int, default=60, help="switches of the other contenders")
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    parser.add_argument("--limit-s", default="600", help="of each size, as --switches: no switch begins later")
    parser.add_argument("--plots", metavar="FOLDER", help="write SVG plots there")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    small, folder = sizes[0], options.folder
    report = Report("1. Switch pause", f"{WRITERS} writers, {READERS} readers, 1 ms of thought")

    def contend(make: Callable[[Path], Contender], records: int, switches: int, limit_s: float) -> Pause:
        pause = run_one(make, records, switches, options.window_s, limit_s, folder)
        describe(report, pause, options.window_s)
        said = f"{pause.name}, {records} records: writers kept out {spread(pause.kept_out)} ms"
        print(said, file=sys.stderr, flush=True)
        return pause

    def shadowswitch(backend: str, records: int) -> Callable[[Path], Contender]:
        return lambda place: ShadowSwitch(place, records, {"backend": backend, "parallel_workers": 2})

    counts, limits = _of_each(options.switches, sizes), _of_each(options.limit_s, sizes)
    ours = [
        contend(shadowswitch("fts5", size), size, int(n), s) for size, n, s in zip(sizes, counts, limits, strict=True)
    ]
    key_value = contend(shadowswitch("kv", small), small, options.others, limits[-1])
    flip = contend(lambda place: LinkFlip(place, small), small, options.others, limits[-1])
    moves = contend(lambda place: Moves(place, small), small, options.others, limits[-1])
    others = [key_value, flip, moves]
    if common.optional("tantivy") is not None:
        words = contend(shadowswitch("tantivy", small), small, options.others, limits[-1])
        judge_tantivy(report, words, ours[0])
        others += [words, contend(lambda place: TantivyFlip(place, small), small, options.others, limits[-1])]
    else:
        report.figure(TantivyFlip.name, "not installed", "", "pip install '.[bench]'")
    if server_binaries() is None:
        report.figure("PostgreSQL", "not installed", "")
    else:
        try:
            few = min(options.others, POSTGRES_MAX)
            others.append(contend(lambda place: Postgres(place, small), small, few, limits[-1]))
        except (RuntimeError, OSError, LookupError, subprocess.SubprocessError) as error:
            report.figure("PostgreSQL", f"not measured: {error}"[:200], "")
    for pause in ours:
        judge(report, pause)
    if len(ours) > 1:
        ratio = quantile(ours[-1].kept_out, 0.5) / quantile(ours[0].kept_out, 0.5)
        says = f"sealed_ms p50 at {sizes[-1]:,} at most 1.5 times that at {small:,}"
        report.target(says, f"{ratio:.2f}", ratio <= 1.5)
    report.problems += key_value.problems + flip.problems
    if key_value.lost + key_value.revived + flip.lost + flip.revived:
        report.problems.append("kv, or the baseline with replay, lost or revived something")
    if not moves.lost:
        report.problems.append("the auditor did not find what `shutil.move` without replay loses")
    if options.plots:
        report.plots = plot(Path(options.plots), [*ours, *others])
    return common.finish(report, options)


def _of_each(given: str, sizes: list[int]) -> list[float]:
    """A number for each size; the last one given is that of all later sizes."""
    numbers = [float(number) for number in given.split(",")]
    return (numbers + numbers[-1:] * len(sizes))[: len(sizes)]


def plot(folder: Path, pauses: list[Pause]) -> list[str]:
    """Plot the times for which writers are kept out, and the latency of writes around switches."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [
        (p.name, p99, f"{p99:.2f} ms" + ("; loses writes" if p.lost else ""))
        for p, p99 in ((pause, quantile(pause.kept_out, 0.99)) for pause in pauses)
        if p.records == pauses[0].records and p.kept_out
    ]
    svg.bars(folder / "switch-sealed.svg", "Writers kept out by a switch, p99", "ms", shown)
    panels = [svg.Panel(f"{p.name[:18]} {p.records // 1000} k", p.latencies, p.spans) for p in pauses]
    title = "Latency of each write; windows around switches shaded"
    svg.panels(folder / "switch-latency.svg", title, "seconds", "ms (logarithmic)", panels)
    return ["switch-sealed.svg", "switch-latency.svg"]


if __name__ == "__main__":
    sys.exit(main())
