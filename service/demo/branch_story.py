"""`shadowswitch demo --branches`: a branch is forked, worked on, searched and merged, with an audit at the end.

Two writers edit at the same time, one the parent, one the fork. Each record has one writer, except for one record that
both edit: it is the conflict. The audit compares every record of both branches, and of both indexes, with what was
acknowledged and merged.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.forks.views import Conflict
from shadowswitch.model.records import Delete, Put
from shadowswitch.service.cli.progress import Show
from shadowswitch.service.daemon.importer import ensure_branch, import_folder
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE
from shadowswitch.service.demo.demo import Plan, default_corpus, directory_of_demo
from shadowswitch.service.demo.steps import PROBLEMS_MAX, Step, timed
from shadowswitch.service.demo.workload import INDEX_TYPE
from shadowswitch.storage import disk

MAIN, FORK = "main", "feature/rewrite"
EDITED_MAX = 400
"""Records that each side edits, again and again; every tenth is deleted."""
TIMEOUT_S = 300.0
TEXT_CHARS = 60
"""Of each text of the conflict."""

Texts = dict[str, str | None]
"""By id, the text; None for a record that was deleted."""


class Story(msgspec.Struct):
    """What happened; `ok` without a problem."""

    ok: bool = False
    steps: list[Step] = msgspec.field(default_factory=list)
    conflict: dict[str, Any] = msgspec.field(default_factory=dict)
    """The conflict as it was shown: record, fields, and the three versions."""
    applied: int = 0
    audited: int = 0
    """Records compared, of both branches and both indexes."""
    problems: list[str] = msgspec.field(default_factory=list)


class Side(threading.Thread):
    """The writer of one branch. `texts` has the last acknowledged text of each record that it wrote."""

    def __init__(self, engine: Engine, branch: str, ids: list[str], stop: threading.Event) -> None:
        super().__init__(name=f"demo-{branch}", daemon=True)
        self._engine = engine
        self._branch = branch
        self._ids = ids
        self._stop_event = stop
        self.texts: Texts = {}
        self.writes = 0
        self.failure = ""

    @property
    def word(self) -> str:
        """A word of every text that this side wrote."""
        return _word(self._branch)

    def run(self) -> None:
        try:
            for number, id in enumerate(itertools.cycle(self._ids)):
                if self._stop_event.is_set():
                    return
                text = None if number % 10 == 9 else f"{self.word} edit{number}"
                self.write(id, text)
        except ShadowSwitchError as error:
            self.failure = f"a write to {self._branch} failed: {error}"

    def write(self, id: str, text: str | None) -> None:
        """Write a text, or delete the record; it is acknowledged when this returns."""
        change = Delete(RESOURCE_TYPE, id) if text is None else Put(RESOURCE_TYPE, id, {"path": id, "text": text})
        self._engine.write(self._branch, [change], timeout_s=TIMEOUT_S)
        self.texts[id] = text
        self.writes += 1


class BranchStory:
    """One run."""

    def __init__(self, engine: Engine, corpus: Path, show: Show, plan: Plan) -> None:
        self._engine = engine
        self._corpus = corpus
        self._show = show
        self._plan = plan
        self._story = Story()
        self._both = ""
        """The record that both sides edit."""

    def run(self) -> Story:
        """The whole story."""
        shown = self._import()
        self._fork()
        sides = self._work(shown)
        merged = self._merge(sides)
        for side in sides.values():
            shown |= side.texts
        shown[self._both] = merged
        self._audit(shown)
        self._story.ok = not self._story.problems
        return self._story

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[str], None]]:
        with timed(title, self._show, self._story.steps) as say:
            yield say

    def _import(self) -> Texts:
        with self._step("import a folder") as say:
            ensure_branch(self._engine, MAIN)
            plan = self._plan
            import_folder(
                self._engine, MAIN, self._corpus, files_max=plan.files_max, size_max_bytes=plan.size_max_bytes,
                stored=lambda id, lsn: None, progressed=lambda done, total: None,
            )  # fmt: skip
            texts: Texts = {one.id: one.fields.get("text", "") for one in self._engine.scan(MAIN, RESOURCE_TYPE)}
            if len(texts) < 3:
                raise ValueError(f"{self._corpus} has {len(texts)} text files; the story needs 3")
            say(f"{len(texts)} records on {MAIN}")
        with self._step(f"build {INDEX_TYPE} of {MAIN}, switch to it") as say:
            result = self._engine.rebuild(MAIN, INDEX_TYPE, [RESOURCE_TYPE], timeout_s=TIMEOUT_S)
            self._expect(result.success, f"the first switch was refused: {result.message}")
        return texts

    def _fork(self) -> None:
        with self._step(f"fork {FORK} from {MAIN}") as say:
            before = disk.directory_size_bytes(self._engine.path)
            self._engine.fork_branch(FORK, MAIN)
            say(f"{self._engine.count(FORK, RESOURCE_TYPE)} records")
            say(f"{max(0, disk.directory_size_bytes(self._engine.path) - before) / 1024:.0f} KiB more on disk")
        with self._step(f"the first search on {FORK}, which has its index made") as say:
            with self._engine.reader(FORK, INDEX_TYPE, timeout_s=TIMEOUT_S) as reader:
                say(f"{reader.count()} records in its index")

    def _work(self, shown: Texts) -> dict[str, Side]:
        ids = sorted(shown)
        self._both, rest = ids[0], ids[1:]
        half = min(EDITED_MAX, len(rest) // 2)
        stop = threading.Event()
        sides = {
            MAIN: Side(self._engine, MAIN, rest[:half], stop),
            FORK: Side(self._engine, FORK, rest[half : 2 * half], stop),
        }
        with self._step("edit both branches at the same time") as say:
            for side in sides.values():
                side.start()
            stop.wait(self._plan.seconds / 4)
            stop.set()
            for branch, side in sides.items():
                side.join(TIMEOUT_S)
                self._expect(not side.failure and not side.is_alive(), side.failure or f"{branch}: its writer hangs")
                side.write(self._both, f"{side.word} of both")
                say(f"{side.writes} writes to {branch}")
        with self._step("search both branches") as say:
            for branch, other in ((MAIN, FORK), (FORK, MAIN)):
                own, foreign = (self._hits(branch, sides[name].word) for name in (branch, other))
                alive = sum(text is not None for text in sides[branch].texts.values())
                self._expect(own == alive, f"{branch}: {own} hits of its own edits, and it has {alive}")
                self._expect(foreign == 0, f"{branch} shows {foreign} edits of {other}")
                say(f"{branch}: {own} of its own edits, {foreign} of the other")
        return sides

    def _hits(self, branch: str, word: str) -> int:
        lsn = self._engine.head(branch)
        with self._engine.reader(branch, INDEX_TYPE, min_lsn=lsn, timeout_s=TIMEOUT_S) as reader:
            return len(reader.search(word, limit=EDITED_MAX * 2))

    def _merge(self, sides: dict[str, Side]) -> str:
        with self._step(f"try the merge of {FORK} into {MAIN}") as say:
            tried = self._engine.merge_into(MAIN, FORK, dry_run=True)
            found = [(one.resource_type, one.id) for one in tried.conflicts]
            self._expect(found == [(RESOURCE_TYPE, self._both)], f"the conflicts are {found}, not that of {self._both}")
            changed = sum(1 for _ in self._engine.diff(FORK))
            say(f"{changed} records changed on {FORK}, {len(found)} conflict, nothing written")
            for one in tried.conflicts:
                self._story.conflict = {
                    "id": one.id, "fields": one.fields,
                    **{name: _text_of(getattr(one, name)) for name in ("base", "ours", "theirs")},
                }  # fmt: skip
        with self._step("merge, the conflict settled by a function") as say:
            result = self._engine.merge_into(MAIN, FORK, on_conflict=_both_texts, timeout_s=TIMEOUT_S)
            self._story.applied = result.applied
            say(f"{result.applied} records brought into {MAIN}")
        with self._step(f"rebase {FORK}: it goes on from what {MAIN} is now"):
            self._engine.rebase(FORK, on_conflict="theirs", timeout_s=TIMEOUT_S)
        return f"{sides[FORK].texts[self._both]} | {sides[MAIN].texts[self._both]}"

    def _audit(self, shown: Texts) -> None:
        expected = {id: text for id, text in shown.items() if text is not None}
        with self._step("audit: every record of both branches and both indexes") as say:
            for branch in (MAIN, FORK):
                records = {one.id: one.fields.get("text") for one in self._engine.scan(branch, RESOURCE_TYPE)}
                self._compare(branch, records, expected)
                lsn = self._engine.head(branch)
                with self._engine.reader(branch, INDEX_TYPE, min_lsn=lsn, timeout_s=TIMEOUT_S) as reader:
                    indexed = {one.id for one in reader.scan()}
                    sides = sum(text.startswith((_word(MAIN), _word(FORK))) for text in expected.values())
                    hits = {hit.id for word in (MAIN, FORK) for hit in reader.search(_word(word), limit=4 * EDITED_MAX)}
                self._compare(f"the index of {branch}", dict.fromkeys(indexed), dict.fromkeys(expected))
                self._expect(len(hits) == sides, f"{branch}: {len(hits)} hits of edits, and there are {sides}")
                self._story.audited += len(records) + len(indexed)
            findings = [str(finding) for finding in self._engine.check()]
            self._expect(not findings, f"check: {findings[:3]}")
            say(f"{self._story.audited} compared")

    def _compare(self, where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
        if found == expected:
            return
        for id in sorted(found.keys() | expected.keys()):
            if id not in found:
                self._expect(False, f"{where} has lost {id}")
            elif id not in expected:
                self._expect(False, f"{where} has {id} again, which was deleted")
            else:
                self._expect(found[id] == expected[id], f"{where} has another text of {id}")

    def _expect(self, is_so: bool, problem: str) -> None:
        if not is_so and len(self._story.problems) < PROBLEMS_MAX:
            self._story.problems.append(problem)


def _word(branch: str) -> str:
    return f"{branch.rpartition('/')[2]}side"


def _text_of(fields: dict[str, Any] | None) -> str | None:
    return None if fields is None else str(fields.get("text", ""))[:TEXT_CHARS]


def _both_texts(conflict: Conflict) -> dict[str, Any] | None:
    """Settles the conflict: both texts."""
    ours, theirs = conflict.ours or {}, conflict.theirs or {}
    return {**theirs, "text": f"{ours.get('text', '')} | {theirs.get('text', '')}"}


def run_story(corpus: Path | None, keep: Path | None, show: Show, plan: Plan | None = None) -> Story:
    """Run the story in `keep` or in a temporary directory. `keep` is new or empty."""
    corpus = corpus or default_corpus()
    if not corpus.is_dir():
        raise ValueError(f"{corpus} is not a folder")
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise ValueError(f"{keep} is not empty; the story begins with a new folder")
    with directory_of_demo(keep) as data, Engine.open(data) as engine:
        return BranchStory(engine, corpus, show, plan or Plan()).run()
