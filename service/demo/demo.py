"""`shadowswitch demo`: the whole story on real files, under load, with an audit at the end.

The demo imports a folder, builds a first index and switches to it. It rebuilds the index with other tokenizers, while
writers edit records and readers search. The audit reads every acknowledged change back. A change that is lost or
revived, and a read that goes back in time, are failures and give the exit status 1.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import Event, ShadowIndex, SwitchRequest
from shadowswitch.service.cli.progress import Show, build_details
from shadowswitch.service.daemon.importer import Imported, ensure_branch, import_folder
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE
from shadowswitch.service.demo.audit import Audited, audit
from shadowswitch.service.demo.report import Build, Report, latency, problems_of, stalls_of
from shadowswitch.service.demo.workload import INDEX_TYPE, Acked, Load, Loop
from shadowswitch.storage import disk

BRANCH = "main"
FIRST = "unicode61"
TOKENIZERS = ("porter", "ascii", "unicode61")
"""A trigram index is several times larger than the texts, so the demo leaves it out."""
WRITERS = 4
READERS = 4
EDITED_MAX_BYTES = 16 << 10
"""Writers edit files up to this size. An index takes about a millisecond for 10 KiB of text, and a switch moves readers
after the index has the last committed texts."""
BUILD_TIMEOUT_S = 300.0
SWITCH_TIMEOUT_S = 60.0
"""A busy machine may need several attempts."""
LOOK_S = 0.05
MADE_BY_DEMO = "made-by-demo"
"""The mark of a data directory of a demo: only there a demo edits existing records."""


class Plan(msgspec.Struct, frozen=True):
    """The size and the time of a run.

    `seconds` is the time under load in addition to the rebuilds, a quarter of it before, between and after them.
    `window_s` is the width of the windows that compare stalls.
    """

    seconds: float = 24.0
    window_s: float = 1.0
    files_max: int = 50_000
    size_max_bytes: int = 64 << 20
    """Both limits keep the demo under two minutes on two cores with any folder."""


def default_corpus() -> Path:
    """The sources of the standard library of the running Python: about 30 MB of text."""
    return Path(sysconfig.get_paths()["stdlib"])


def run_demo(corpus: Path | None, keep: Path | None, show: Show, plan: Plan | None = None) -> Report:
    """Run the demo in `keep` or in a temporary directory. `keep` is new, empty, or made by a demo."""
    corpus = corpus or default_corpus()
    if not corpus.is_dir():
        raise ValueError(f"{corpus} is not a folder")
    with directory_of_demo(keep) as data, Engine.open(data) as engine:
        return Demo(engine, corpus, show, plan or Plan()).run()


@contextlib.contextmanager
def directory_of_demo(keep: Path | None) -> Iterator[Path]:
    """The data directory of a run: `keep`, or a temporary one. Raises ValueError for a folder that no demo made."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="shadowswitch-demo-") as temporary:
            yield Path(temporary)
        return
    if keep.exists() and not keep.is_dir():
        raise ValueError(f"{keep} is not a folder")
    if keep.exists() and any(keep.iterdir()) and not (keep / MADE_BY_DEMO).exists():
        raise ValueError(f"{keep} is not empty, and no demo made it; a demo edits all records, so give a new folder")
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    (keep / MADE_BY_DEMO).touch(mode=0o600)
    yield keep


class Demo:
    """One run."""

    def __init__(self, engine: Engine, corpus: Path, show: Show, plan: Plan) -> None:
        self.engine = engine
        self.corpus = corpus
        self.show = show
        self.plan = plan
        self.load = Load(engine, BRANCH)
        self.rates = _Rates()
        self.acked: dict[str, Acked] = {}
        """The last acknowledged change of each record without a writer."""
        self.committed: dict[str, float] = {}
        """The time of the commit of each switch by shadow, by perf_counter."""

    def run(self) -> Report:
        """The whole run: less than a minute on two cores for the standard library."""
        begun = time.perf_counter()
        imported = self._import()
        import_s = time.perf_counter() - begun
        unsubscribe = self.engine.subscribe(self._on_event)
        builds = [self._build(FIRST, "first index")]
        self._start_load()
        try:
            self._wait("quiet time, for comparison")
            for number, tokenizer in enumerate(TOKENIZERS, 1):
                builds.append(self._build(tokenizer, f"rebuild {number}/{len(TOKENIZERS)} {tokenizer}"))
                self._wait(f"on the new index ({tokenizer})")
        finally:
            self.load.end()
            unsubscribe()
        return self._report(begun, imported, import_s, builds)

    # -- import and load -------------------------------------------------------------------------------------------

    def _import(self) -> Imported:
        title = "import"
        self.show(title, 0.0, str(self.corpus))
        ensure_branch(self.engine, BRANCH)
        imported = import_folder(
            self.engine,
            BRANCH,
            self.corpus,
            files_max=self.plan.files_max,
            size_max_bytes=self.plan.size_max_bytes,
            stored=lambda id, lsn: self.acked.update({id: Acked(lsn)}),
            progressed=lambda done, total: self.show(title, 100 * done / max(1, total), f"{done / 1e6:.1f} MB"),
        )
        if not self.acked:
            raise ValueError(f"{self.corpus} has no text files")
        for record in self.engine.scan(BRANCH, RESOURCE_TYPE):  # a kept directory may have further records
            self.acked.setdefault(record.id, Acked(record.lsn))
        return imported

    def _start_load(self) -> None:
        records = ((record.id, record.fields) for record in self.engine.scan(BRANCH, RESOURCE_TYPE))
        texts = [(id, fields["text"]) for id, fields in records if fields["size_bytes"] <= EDITED_MAX_BYTES]
        if not texts:
            raise ValueError(f"{self.corpus} has no text file of at most {EDITED_MAX_BYTES} bytes to edit")
        words = common_words(text for _, text in texts[:500])
        self.load.start(texts, words, self.acked, WRITERS, READERS)

    def _wait(self, title: str) -> None:
        """Let the load run for its share of the time."""
        seconds = self.plan.seconds / (len(TOKENIZERS) + 1)
        begun = time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            self._show(title, 100 * passed / seconds)
            time.sleep(min(LOOK_S, seconds))

    def _show(self, title: str, percent: float, details: str = "") -> None:
        """Show the progress of a step, and the rates of the load."""
        writes, searches = self.rates.of(self.load.counts())
        rates = f"{writes:.0f} writes/s  {searches:.0f} searches/s" if self.load.loops else ""
        self.show(title, percent, "  ".join(filter(None, (details, rates))))

    # -- builds ----------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        """Note the time of a committed switch. Runs on the dispatcher's thread."""
        if event.type.endswith("switch.committed"):
            self.committed[event.subject] = time.perf_counter()

    def _build(self, tokenizer: str, title: str) -> Build:
        begun = time.perf_counter()
        shadow = self.engine.start_build(BRANCH, INDEX_TYPE, [RESOURCE_TYPE], {"tokenizer": tokenizer})
        id = shadow.shadow_index_id
        phases_s = self._follow(shadow, title, begun)
        built = self.engine.wait_for(id, "BUILT", timeout_s=1)
        self._show(title, 100.0, "switching")
        asked = time.perf_counter()
        result = self.engine.switch(id, SwitchRequest(switch_timeout_seconds=SWITCH_TIMEOUT_S, reason="demo"))
        ended = time.perf_counter()
        phases_s["switching"] = ended - asked
        committed = self.committed.get(id, ended)
        return Build(tokenizer, built.record_count or 0, ended - begun, phases_s, result, begun, committed, ended)

    def _follow(self, shadow: ShadowIndex, title: str, begun: float) -> dict[str, float]:
        """Show a build until its end. Returns the seconds of each phase."""
        phases_s: dict[str, float] = {}
        last = begun
        while shadow.state in (ShadowState.PREPARING, ShadowState.BUILDING):
            time.sleep(LOOK_S)
            now = time.perf_counter()
            phases_s[shadow.phase] = phases_s.get(shadow.phase, 0.0) + now - last
            last = now
            self._show(title, shadow.build_progress_percent, build_details(shadow))
            if now - begun > BUILD_TIMEOUT_S:
                self.engine.cancel_build(shadow.shadow_index_id, "the demo ran out of time")
            shadow = self.engine.shadow(shadow.shadow_index_id)
        return phases_s

    # -- report ----------------------------------------------------------------------------------------------------

    def _audit(self) -> Audited:
        self.show("audit", 0.0, "reading every acknowledged change back")
        for writer in self.load.writers:
            self.acked |= writer.acked
        return audit(self.engine, BRANCH, self.acked)

    def _report(self, begun: float, imported: Imported, import_s: float, builds: list[Build]) -> Report:
        load, rebuilds, stats = self.load, builds[1:], self.engine.stats()
        audited = self._audit()
        self.show("check of every invariant", 0.0, "")
        checked = time.perf_counter()
        check = [str(finding) for finding in self.engine.check()]
        problems = problems_of(load, builds, audited, check)
        turns_ms = [build.switch.sealed_ms for build in rebuilds]
        kinds = sum((writer.kinds for writer in load.writers), Counter[str]())
        writes, searches = load.counts()
        groups: dict[str, Sequence[Loop]] = {"writers": load.writers, "readers": load.searchers}
        return Report(
            ok=not problems,
            problems=problems,
            corpus=str(self.corpus),
            filesystem=disk.filesystem_type(self.engine.path),
            seconds=time.perf_counter() - begun,
            imported=imported,
            import_s=import_s,
            builds=[build.since(begun) for build in builds],
            sealed_p50_ms=statistics.median(turns_ms),
            sealed_max_ms=max(turns_ms),
            window_s=self.plan.window_s,
            load_s=load.ended - load.begun,
            stalls={group: stalls_of(loops, load, rebuilds, self.plan.window_s) for group, loops in groups.items()},
            writes=writes,
            writes_by_kind=dict(sorted(kinds.items())),
            write_p50_ms=latency(stats, "write", "p50_ms"),
            write_p99_ms=latency(stats, "write", "p99_ms"),
            searches=searches,
            generations_read=len(set().union(*(searcher.generations for searcher in load.searchers))),
            failed_writes=sum(writer.failures for writer in load.writers),
            failed_reads=sum(searcher.failures for searcher in load.searchers),
            reads_back_in_time=sum(len(searcher.back_in_time) for searcher in load.searchers),
            audit=audited,
            check=check,
            check_s=time.perf_counter() - checked,
        )


class _Rates:
    """Writes and searches per second, averaged over about a second."""

    def __init__(self) -> None:
        self.at, self.counts, self.rates = time.monotonic(), (0, 0), (0.0, 0.0)

    def of(self, counts: tuple[int, int]) -> tuple[float, float]:
        now = time.monotonic()
        if now - self.at >= 1.0:
            span = now - self.at
            self.rates = ((counts[0] - self.counts[0]) / span, (counts[1] - self.counts[1]) / span)
            self.at, self.counts = now, counts
        return self.rates


def common_words(texts: Iterable[str]) -> list[str]:
    """Words of many texts, without the most frequent ones: a search for them has work to do."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(re.findall(r"[a-z]{4,12}", text)))
    common = [word for word, _ in counts.most_common(400)]
    return common[50:] or common or ["the"]
