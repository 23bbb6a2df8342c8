"""`shadowswitch demo`: the whole story on real files, under load, with an audit at the end.

Imports a folder, builds and switches a first index, then rebuilds it with other tokenizers while writers edit and
readers search. The audit reads every acknowledged change back; whatever is lost, revived or went back in time is a
failure.
"""

from __future__ import annotations

import re
import statistics
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.states import ShadowState
from shadowswitch.model.views import ShadowIndex, SwitchResult
from shadowswitch.service.importer import RESOURCE_TYPE, Imported, import_folder
from shadowswitch.service.workload import Acked, Searcher, Writer, audit, longest_gap_ms

BRANCH = "main"
TOKENIZERS = ("porter", "ascii", "unicode61")
WRITERS = 4
READERS = 4
EDITED_MAX_BYTES = 16 << 10
"""Writers edit files up to this size; larger ones are only indexed. Indexing a text takes about a millisecond for every
10 KiB, and the texts being committed when a switch begins are indexed under its seal."""
WINDOW_S = 1.0
QUIET_S = 3.0
BUILD_TIMEOUT_S = 300.0

Show = Callable[["Live"], None]


class Live(msgspec.Struct):
    """What the demo is doing at the moment, for a display."""

    title: str = ""
    phase: str = ""
    percent: float = 0.0
    eta_s: float | None = None
    lag_changes: int = 0
    writes: int = 0
    searches: int = 0


class Build(msgspec.Struct, frozen=True):
    """One rebuild: what was built, how long each phase took (seconds), and its switch."""

    tokenizer: str
    seconds: float
    phases: dict[str, float]
    switch: SwitchResult
    at: float
    """When the switch was asked for and when it ended, by perf_counter."""
    ended: float


class Report(msgspec.Struct):
    """What the demo found. `ok` is its verdict."""

    corpus: str
    imported: Imported
    import_s: float
    builds: list[Build]
    sealed_ms_p50: float
    sealed_ms_max: float
    writes: int
    searches: int
    write_errors: list[str]
    read_errors: list[str]
    back_in_time: list[str]
    stalls_ms: dict[str, dict[str, float]]
    audited: int
    audited_deletes: int
    audit: list[str]
    check: list[str]
    generations_read: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Every switch succeeded, nothing is lost, revived, refused or out of order, and fsck finds nothing."""
        switched = all(build.switch.success for build in self.builds)
        return switched and not (self.write_errors or self.read_errors or self.back_in_time or self.audit or self.check)


class Demo:
    """One run."""

    def __init__(self, engine: Engine, corpus: Path, show: Show, files_max: int | None = None) -> None:
        self.engine = engine
        self.corpus = corpus
        self.show = show
        self.files_max = files_max
        self.live = Live()
        self.stop = threading.Event()
        self.writers: list[Writer] = []
        self.searchers: list[Searcher] = []

    def run(self, quiet_s: float = QUIET_S, window_s: float = WINDOW_S) -> Report:
        """All of it; about a minute on two cores for the standard library."""
        begun = time.perf_counter()
        self._tell("importing", 0.0)
        self.engine.create_branch(BRANCH)
        imported = import_folder(self.engine, BRANCH, self.corpus, self.files_max)
        import_s = time.perf_counter() - begun
        builds = [self._build("unicode61", "first build")]
        self._start_load()
        try:
            quiet = self._quiet(quiet_s)
            for number, tokenizer in enumerate(TOKENIZERS, 1):
                builds.append(self._build(tokenizer, f"rebuild {number} of {len(TOKENIZERS)} ({tokenizer})"))
                self._wait(window_s)
        finally:
            self._stop_load()
        return self._report(imported, import_s, builds, quiet, window_s, begun)

    # -- load ------------------------------------------------------------------------------------------------------

    def _start_load(self) -> None:
        small = [
            (record.id, record.fields["text"])
            for record in self.engine.scan(BRANCH, RESOURCE_TYPE)
            if record.fields["size_bytes"] <= EDITED_MAX_BYTES
        ]
        if not small:
            raise ValueError(f"{self.corpus} has no text files")
        words = _words(text for _, text in small[:500])
        shares = [small[number::WRITERS] or small[:1] for number in range(min(WRITERS, len(small)))]
        self.writers = [Writer(n, self.engine, BRANCH, own, self.stop) for n, own in enumerate(shares)]
        self.searchers = [Searcher(n, self.engine, BRANCH, words, self.stop) for n in range(READERS)]
        for loop in (*self.writers, *self.searchers):
            loop.start()

    def _stop_load(self) -> None:
        self.stop.set()
        for loop in (*self.writers, *self.searchers):
            loop.join(timeout=60)

    def _quiet(self, seconds: float) -> tuple[float, float]:
        self._tell("quiet time, to compare with", 0.0)
        begun = time.perf_counter()
        self._wait(seconds)
        return begun, time.perf_counter()

    def _wait(self, seconds: float) -> None:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            self._tell(self.live.title, self.live.percent)
            threading.Event().wait(0.1)

    def _tell(self, title: str, percent: float, status: ShadowIndex | None = None) -> None:
        self.live = Live(title, percent=percent)
        if status is not None:
            self.live.phase, self.live.eta_s = status.phase, status.estimated_completion_seconds
            self.live.lag_changes = status.lag_changes
        self.live.writes = sum(len(writer.done) for writer in self.writers)
        self.live.searches = sum(len(searcher.done) for searcher in self.searchers)
        self.show(self.live)

    # -- builds ----------------------------------------------------------------------------------------------------

    def _build(self, tokenizer: str, title: str) -> Build:
        begun = time.perf_counter()
        shadow = self.engine.start_build(BRANCH, "SEARCH_INDEX", [RESOURCE_TYPE], {"tokenizer": tokenizer})
        phases: dict[str, float] = {}
        last = begun
        while shadow.state in (ShadowState.PREPARING, ShadowState.BUILDING):
            threading.Event().wait(0.05)
            shadow = self.engine.shadow(shadow.shadow_index_id)
            now = time.perf_counter()
            phases[shadow.phase] = phases.get(shadow.phase, 0.0) + now - last
            last = now
            self._tell(title, shadow.build_progress_percent, shadow)
            if now - begun > BUILD_TIMEOUT_S:
                self.engine.cancel_build(shadow.shadow_index_id, "the demo ran out of time")
        self.engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=1)
        phases.pop("waiting", None)
        at = time.perf_counter()
        result = self.engine.switch(shadow.shadow_index_id)
        ended = time.perf_counter()
        phases["switching"] = ended - at
        return Build(tokenizer, ended - begun, phases, result, at, ended)

    # -- report ----------------------------------------------------------------------------------------------------

    def _report(
        self,
        imported: Imported,
        import_s: float,
        builds: list[Build],
        quiet: tuple[float, float],
        window_s: float,
        begun: float,
    ) -> Report:
        self._tell("auditing", 100.0)
        acked: dict[str, Acked] = {}
        for writer in self.writers:
            acked.update(writer.acked)
        sealed = [build.switch.sealed_ms for build in builds]
        problems = audit(self.engine, BRANCH, acked)
        self._tell("checking every invariant", 100.0)
        found = [str(finding) for finding in self.engine.check()]
        return Report(
            corpus=str(self.corpus),
            imported=imported,
            import_s=import_s,
            builds=builds,
            sealed_ms_p50=statistics.median(sealed),
            sealed_ms_max=max(sealed),
            writes=sum(len(writer.done) for writer in self.writers),
            searches=sum(len(searcher.done) for searcher in self.searchers),
            write_errors=[error for writer in self.writers for error in writer.errors],
            read_errors=[error for searcher in self.searchers for error in searcher.errors],
            back_in_time=[error for searcher in self.searchers for error in searcher.back_in_time],
            stalls_ms=self._stalls(builds[1:], quiet, window_s),
            audited=len(acked),
            audited_deletes=sum(last.marker is None for last in acked.values()),
            audit=problems,
            check=found,
            generations_read=len({g for searcher in self.searchers for g in searcher.generations}),
            seconds=time.perf_counter() - begun,
        )

    def _stalls(self, builds: list[Build], quiet: tuple[float, float], window_s: float) -> dict[str, dict[str, float]]:
        """The longest time without a success, in windows of equal width: around each switch, and in quiet time."""
        switches = [(build.ended - window_s / 2, build.ended + window_s / 2) for build in builds]
        first, last = quiet
        count = max(1, int((last - first) / window_s))
        quiets = [(first + n * window_s, first + (n + 1) * window_s) for n in range(count)]
        found = {}
        for who, loops in (("writers", self.writers), ("readers", self.searchers)):
            times = [loop.done for loop in loops]
            found[who] = {
                "quiet_median": _median_gap(times, quiets),
                "quiet_worst": _worst_gap(times, quiets),
                "switch_median": _median_gap(times, switches),
                "switch_worst": _worst_gap(times, switches),
            }
        return found


def _gaps(times: list[list[float]], windows: list[tuple[float, float]]) -> list[float]:
    return [longest_gap_ms(done, begin, end) for done in times for begin, end in windows]


def _median_gap(times: list[list[float]], windows: list[tuple[float, float]]) -> float:
    return statistics.median(_gaps(times, windows) or [0.0])


def _worst_gap(times: list[list[float]], windows: list[tuple[float, float]]) -> float:
    return max(_gaps(times, windows), default=0.0)


def _words(texts: Any) -> list[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(re.findall(r"[a-z]{4,12}", text)))
    common = [word for word, _ in counts.most_common(400)][50:]
    return common or list(counts) or ["the"]


def default_corpus() -> Path:
    """The sources of the standard library of the running Python: about 30 MB of real text."""
    return Path(sysconfig.get_paths()["stdlib"])


def run_demo(
    corpus: Path | None, keep: Path | None, show: Show, files_max: int | None = None, **times: float
) -> Report:
    """Run the demo in `keep`, which must not have been used before, or in a temporary directory that is removed."""
    corpus = corpus or default_corpus()
    if not corpus.is_dir():
        raise ValueError(f"{corpus} is not a folder")
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise ValueError(f"{keep} is not empty; give a new folder")
        return _run_in(keep, corpus, show, files_max, times)
    with tempfile.TemporaryDirectory(prefix="shadowswitch-demo-") as temporary:
        return _run_in(Path(temporary), corpus, show, files_max, times)


def _run_in(data: Path, corpus: Path, show: Show, files_max: int | None, times: dict[str, float]) -> Report:
    with Engine.open(data) as engine:
        return Demo(engine, corpus, show, files_max).run(**times)
