"""All benchmarks and the simulation, one after the other; writes RESULTS.md and the plots. This is `make bench`.

    python -m benchmarks.run [--minutes 60] [--only switch,writing] [--tiny] [--out FOLDER] [--folder WHERE]

Each script runs in a process of its own and has its own limit; one that does not end in time is killed and named in the
results. All of them together have the sum of their limits, or --minutes: then a script whose limit no longer fits does
not start, and the results name it as not run. Exit status 1 when a script failed, found a wrong result, did not end or
did not start; a target that was not met is no failure. With --only, RESULTS.md keeps the other sections.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import common, results
from benchmarks.common import ROOT, Report
from benchmarks.results import Section


class Script(msgspec.Struct, frozen=True):
    """A script, its arguments at full size and in tests, and its limit in minutes: a quiet run ends well before it."""

    name: str
    full: str
    tiny: str
    minutes: float
    plots: bool = False

    def arguments(self, tiny: bool) -> list[str]:
        """The module and its arguments."""
        return [f"benchmarks.{self.name}", *(self.tiny if tiny else self.full).split()]


SCRIPTS = (
    Script(
        "bench_switch",
        "--sizes 100000,1000000 --switches 200,200 --others 15 --limit-s 150,60",
        "--sizes 500 --switches 2 --others 1 --window-s 0.05",
        13.0,
        plots=True,
    ),
    Script(
        "bench_rebuild",
        "--records 100000 --rebuilds 4 --rounds 3",
        "--records 300 --rebuilds 1 --rounds 1 --window-s 0.05",
        5.0,
    ),
    Script("bench_progress", "--sizes 20000,100000,400000,1000000 --builds 4", "--sizes 300 --builds 1", 20.0),
    Script("bench_writing", "--seconds 1.5 --rounds 3", "--writers 4,16 --seconds 0.05 --rounds 1 --records 300", 4.0),
    Script(
        "bench_catchup",
        "--records 100000 --changes 60000 --rounds 3 --seconds 5",
        "--records 300 --changes 200 --rounds 1 --seconds 0.1",
        3.0,
    ),
    Script(
        "bench_reading",
        "--records 100000",
        "--records 300 --pins 100 --queries 5 --rounds 1 --edits 2 --written-s 0.5",
        2.0,
    ),
    Script(
        "bench_branches",
        "--branches 10000 --busy 50 --seconds 10",
        "--branches 40 --busy 2 --seconds 0.1 --records 300",
        4.0,
    ),
    Script(
        "bench_recovery", "--records 1000000 --branches 10000 --kills 5", "--records 300 --branches 10 --kills 1", 5.0
    ),
    Script(
        "bench_scale",
        "--records 3000000 --branches 100000 --types 5000",
        "--records 300 --branches 20 --types 20 --writers 2 --seconds 0.1",
        25.0,
    ),
    Script(
        "bench_many_builds",
        "--records 20000 --builds 8 --rounds 3",
        "--records 100 --builds 2 --rounds 1 --quiet-s 0.1",
        5.0,
    ),
    Script("bench_quiet_hours", "", "", 1.0),
    Script(
        "bench_forks",
        "--records 1000000 --changes 1000,10000,100000 --many 1000",
        "--records 300 --changes 10 --many 5 --gets 50",
        6.0,
    ),
    Script("bench_seeds", "--records 100000 --rounds 3", "--records 300 --rounds 1", 6.0),
    Script("bench_tantivy", "--sizes 100000,1000000 --rounds 3,1", "--sizes 300 --rounds 1", 12.0),
    Script("bench_search", "--records 100000 --rounds 5", "--records 300 --queries 2 --rounds 1", 4.0),
    Script("bench_compare", "--records 100000 --rounds 5", "--records 300 --queries 3 --rounds 1 --seconds 0.2", 4.0),
    Script(
        "bench_kinds",
        "--records 100000 --vectors 50000,200000 --rounds 3",
        "--records 300 --vectors 300 --rounds 1",
        6.0,
    ),
    Script("bench_backup", "--sizes 100000,1000000 --rounds 3", "--sizes 300 --rounds 1 --seconds 0.1", 8.0),
    Script("bench_groups", "--records 20000 --rounds 60", "--records 300 --rounds 2", 3.0),
    Script(
        "simulate",
        "--scenarios --developers 20 --records 20000 --expect-failures",
        "--developers 4 --branches 1 --minutes 0.005 --rebuilds 1 --records 60 --stale-s 30 --modes shadow",
        10.0,
        plots=True,
    ),
)


def run_script(script: Script, tiny: bool, out: Path, folder: Path) -> Section:
    """Run one script. Its failure, too, is in the section."""
    written = out / f"{script.name}.json"
    command = [sys.executable, "-m", *script.arguments(tiny), "--json", str(written), "--folder", str(folder)]
    command += ["--plots", str(out / "plots")] if script.plots else []
    begun = time.perf_counter()
    failure = _run(command, script.minutes * 60)
    took_s = time.perf_counter() - begun
    report = Report(script.name)
    try:
        report = common.decode_report(written.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        failure = failure or f"it wrote no report: {error}"
    finally:
        written.unlink(missing_ok=True)
    if failure and not report.problems:
        report.problems = [failure]
    return Section(script.name, _shown(script, tiny), took_s, report)


def _shown(script: Script, tiny: bool) -> str:
    return " ".join(["python -m", *script.arguments(tiny)])


def not_run(script: Script, tiny: bool, left_s: float) -> Section:
    """The section of a script that did not start."""
    why = f"**Not run**: {max(0.0, left_s) / 60:.1f} minutes were left, and it may take {script.minutes:g}."
    return Section(script.name, _shown(script, tiny), 0.0, Report(script.name, text=why))


def _run(command: list[str], limit_s: float) -> str:
    """Run to the end or to the limit; "" or what went wrong. The script's own children die with it."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, start_new_session=True)
    try:
        status = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it did not end within {limit_s:.0f} s and was killed"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return "" if status == 0 else f"it ended with status {status}"


def chosen(only: str) -> list[Script]:
    """The scripts to run, in order. Raises SystemExit for an unknown name."""
    there = [script for script in SCRIPTS if (ROOT / "benchmarks" / f"{script.name}.py").exists()]
    if not only:
        return there
    names = {name if name == "simulate" else f"bench_{name.removeprefix('bench_')}" for name in only.split(",")}
    unknown = names - {script.name for script in there}
    if unknown:
        raise SystemExit(f"no such script: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in there)}")
    return [script for script in there if script.name in names]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="for everything together (default: the sum of the limits)")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--tiny", action="store_true", help="the sizes of the tests; the figures mean nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="where RESULTS.md and plots/ go")
    parser.add_argument("--folder", help="where to work: a folder on the disk to be measured (default: temporary)")
    options = parser.parse_args()
    scripts = chosen(options.only)
    out: Path = options.out
    (out / "plots").mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.minutes * 60 if options.minutes is not None else math.inf
    with common.scratch(options.folder) as place:
        machine = common.machine(place)
    sections, complete = [], True
    for script in scripts:
        left_s = deadline - time.monotonic()
        if left_s < script.minutes * 60:
            print(f"== {script.name}: not run, the time is over", file=sys.stderr, flush=True)
            sections.append(not_run(script, options.tiny, left_s))
            complete = False
        else:
            print(f"== {script.name}", file=sys.stderr, flush=True)
            with common.scratch(options.folder) as place:  # so that nothing is left of a script that is killed
                sections.append(run_script(script, options.tiny, out, place))
        results.write(out / "RESULTS.md", sections, machine, datetime.now(UTC), keep=bool(options.only))
    print((out / "RESULTS.md").read_text(), flush=True)
    return 0 if complete and not any(section.report.problems for section in sections) else 1


if __name__ == "__main__":
    sys.exit(main())
