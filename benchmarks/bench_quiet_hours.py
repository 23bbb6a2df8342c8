"""Is the quietest hour of the week a better moment for a switch than the quiet rule? On four real histories.

    python -m benchmarks.bench_quiet_hours [--calm 60] [--within 24]

Both wait as long on average, see `model/operating/quiet_hours.py`. A hit is a switch behind which no commit comes for
`--calm` minutes. Nothing is timed, so the load of the machine changes no figure.
"""

from __future__ import annotations

import lzma
from itertools import accumulate
from pathlib import Path

from benchmarks import common
from benchmarks.common import Report
from shadowswitch.model.operating.quiet_hours import Backtest, backtest

DATA = Path(__file__).parent / "data"
HISTORIES = ("flask", "ko.react.dev", "msgspec", "ruff")
CALM_S, WITHIN_S = 3600.0, 86400.0
EVERY = 1 << 60
"""Each commit is a moment of the backtest."""


def commits_of(name: str) -> list[float]:
    """The times of the commits of a history, which rise."""
    text = lzma.decompress((DATA / f"{name}.txt.xz").read_bytes()).decode()
    return [float(at) for at in accumulate(int(line) for line in text.split())]


def judged(name: str, calm_s: float = CALM_S, within_s: float = WITHIN_S) -> Backtest:
    """The backtest of a history."""
    return backtest(commits_of(name), calm_s, within_s, EVERY)


def main() -> int:
    """Run and report."""
    parser = common.arguments(__doc__)
    parser.add_argument("--calm", type=float, default=CALM_S / 60, help="minutes")
    parser.add_argument("--within", type=float, default=WITHIN_S / 3600, help="hours")
    options = parser.parse_args()
    report = Report("The quietest hour and the quiet rule", "commits of four public repositories")
    rows = [
        "| history | moments | weeks | quietest hour | quiet rule | error | mean wait | verdict |",
        "|" + "---|" * 8,
    ]
    for name in HISTORIES:
        found = judged(name, options.calm * 60, options.within * 3600)
        verdict = "beats the rule" if found.beats else "does not beat the rule"
        rows.append(
            f"| {name} | {found.moments} | {found.weeks} | {found.adviser:.1%} | {found.rule:.1%} | {found.error:.1%}"
            f" | {found.wait_s / 3600:.1f} h | {verdict} |"
        )
        report.figure(f"{name}: quietest hour less quiet rule", found.adviser - found.rule, "", "share of hits")
    report.text = "\n".join(rows)
    return common.finish(report, options)


if __name__ == "__main__":
    raise SystemExit(main())
