"""Costs that must not grow faster than the work: with records, branches, resource types, writers.

    python -m benchmarks.bench_scale [--rows types] [--records 3000000] [--branches 100000] [--types 5000] [--json FILE]

Each row stands in a module of benchmarks/scale/ and measures a small case beside a large one. `--records 10000000`
takes long and is not part of `make bench`. A run with smaller sizes than the default ones judges no target.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from benchmarks import common
from benchmarks.common import Report
from benchmarks.scale import checks, copy, dropping, edits, flat, journal, lists, memory, types, writers
from benchmarks.scale.sizes import Row, Sizes

RECORDS, BRANCHES, TYPES, WRITERS, SECONDS = 3_000_000, 100_000, 5_000, 16, 5.0

ROWS: dict[str, Row] = {
    "types": types.measure,
    "writers": writers.measure,
    "lists": lists.measure,
    "dropping": dropping.measure,
    "journal": journal.measure,
    "checks": checks.measure,
    "memory": memory.measure,
    "edits": edits.measure,
    "copy": copy.measure,
    "flat": flat.measure,
}


def run(sizes: Sizes, names: list[str], folder: Path) -> Report:
    """The rows of these names, each in an empty folder, which is removed behind it."""
    data = f"up to {sizes.records:,} records, {sizes.branches:,} branches, {sizes.types:,} resource types"
    report = Report("8. Growth", data)
    for name in names:
        print(f"-- {name}", file=sys.stderr, flush=True)
        place = folder / name
        place.mkdir()
        begun = time.perf_counter()
        ROWS[name](sizes, place, report)
        report.figure(f"{name}: the row took", time.perf_counter() - begun, "s")
        shutil.rmtree(place)
    return report


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument(
        "--rows", default=",".join(ROWS), help=f"names, separated by commas (default: {', '.join(ROWS)})"
    )
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--branches", type=int, default=BRANCHES)
    parser.add_argument("--types", type=int, default=TYPES)
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement of a rate")
    options = parser.parse_args()
    names = options.rows.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    full = options.types >= TYPES and options.records >= RECORDS and options.branches >= BRANCHES
    sizes = Sizes(options.records, options.branches, options.types, options.writers, options.seconds, full)
    with common.scratch(options.folder) as folder:
        report = run(sizes, names, folder)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
