"""`shadowswitch demo --search`: an index gets another analyzer. The same queries before and after, side by side, a
verdict from judged queries, a switch; then a bad one, which is refused.

A writer goes on all the time. The audit looks up every note that it wrote in the records and in the live index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put
from shadowswitch.model.search.comparison import Comparison
from shadowswitch.model.views import SwitchRequest
from shadowswitch.service.cli.progress import Show
from shadowswitch.service.demo.demo import directory_of_demo
from shadowswitch.service.demo.notes import TYPE, judgments, notes
from shadowswitch.service.demo.steps import PROBLEMS_MAX, TIMEOUT_S, Step, timed
from shadowswitch.service.demo.story_writer import Writer
from shadowswitch.service.demo.workload import INDEX_TYPE

BRANCH = "main"
BEFORE: dict[str, Any] = {"cjk": "word"}
"""Words as they stand between spaces: what most search engines do with Korean."""
BETTER: dict[str, Any] = {"tokenizer": "cjk"}
WORSE: dict[str, Any] = {"tokenizer": "trigram"}
SHOWN = ("사용자", "문서", "로그인")
HITS = 5
MARK = "기록됨"
"""A word of every note of the writer."""
REQUEST = SwitchRequest(validation_checks=("RELEVANCE",), switch_timeout_seconds=60)


class Side(msgspec.Struct, frozen=True):
    """The hits of one query before and after."""

    query: str
    before: list[str]
    after: list[str]


class SearchStory(msgspec.Struct):
    """What happened; `ok` without a problem."""

    ok: bool = False
    steps: list[Step] = msgspec.field(default_factory=list)
    sides: list[Side] = msgspec.field(default_factory=list)
    better: str = ""
    """The verdict on the better analyzer."""
    refused: str = ""
    """Why the switch to the worse one was refused."""
    written: int = 0
    """Notes that were written meanwhile."""
    problems: list[str] = msgspec.field(default_factory=list)


class Telling:
    """One run."""

    def __init__(self, engine: Engine, show: Show) -> None:
        self._engine = engine
        self._show = show
        self._story = SearchStory()

    def run(self) -> SearchStory:
        """The whole story."""
        with self._step("write notes and judgments, build an index of whole words") as say:
            self._engine.create_branch(BRANCH)
            written = [*notes(), *judgments()]
            self._engine.write(BRANCH, written)
            result = self._engine.rebuild(BRANCH, INDEX_TYPE, [TYPE], BEFORE, timeout_s=TIMEOUT_S)
            self._expect(result.success, f"the first switch was refused: {result.message}")
            say(f"{len(written)} records")
        writer = Writer(self._engine, BRANCH, lambda n: Put(TYPE, f"new-{n}", {"text": f"{MARK} {n}"}))
        writer.start()
        try:
            self._change()
        finally:
            writer.stop()
        self._audit(writer)
        self._story.ok = not self._story.problems
        return self._story

    def _change(self) -> None:
        shadow = self._built("build another one beside it, with the analyzer cjk", BETTER)
        with self._step("ask both the same queries") as say:
            compared = self._engine.compare(shadow)
            self._story.better = compared.verdict.message
            self._story.sides = self._sides(self._engine.compare(shadow, list(SHOWN), HITS))
            say(f"{compared.summary.queries} judged queries")
        with self._step("switch, if the judged queries agree") as say:
            result = self._engine.switch(shadow, REQUEST)
            self._expect(result.success, f"the better index was refused: {result.message}")
            say(f"writers were kept out for {result.sealed_ms:.1f} ms")
        shadow = self._built("build one with the analyzer trigram", WORSE)
        with self._step("switch, if the judged queries agree") as say:
            result = self._engine.switch(shadow, REQUEST)
            self._expect(not result.success, "the worse index was not refused")
            self._story.refused = result.message
            say("refused")

    def _built(self, title: str, build_config: dict[str, Any]) -> str:
        with self._step(title):
            shadow = self._engine.start_build(BRANCH, INDEX_TYPE, [TYPE], build_config)
            return self._engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=TIMEOUT_S).shadow_index_id

    def _sides(self, compared: Comparison) -> list[Side]:
        texts = {one.id: str(one.fields.get("text", "")) for one in self._engine.scan(BRANCH, TYPE)}
        return [
            Side(row.query, [texts[hit.id] for hit in row.live], [texts[hit.id] for hit in row.shadow])
            for row in compared.rows
        ]

    def _audit(self, writer: Writer) -> None:
        with self._step("audit: every note that was written meanwhile") as say:
            self._expect(not writer.failure and not writer.is_alive(), writer.failure or "the writer hangs")
            self._story.written = len(writer.ids)
            stored = {one.id for one in self._engine.scan(BRANCH, TYPE) if one.id.startswith("new-")}
            head = self._engine.head(BRANCH)
            with self._engine.reader(BRANCH, INDEX_TYPE, min_lsn=head, timeout_s=TIMEOUT_S) as reader:
                found = {hit.id for hit in reader.search(MARK, limit=len(writer.ids) + 1)}
            for where, ids in (("the records", stored), ("the live index", found)):
                self._expect(ids == set(writer.ids), f"{where}: {len(set(writer.ids) ^ ids)} notes lost, or too many")
            findings = [str(finding) for finding in self._engine.check()]
            self._expect(not findings, f"check: {findings[:3]}")
            say(f"{len(writer.ids)} written, {len(found)} found")

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[str], None]]:
        with timed(title, self._show, self._story.steps) as say:
            yield say

    def _expect(self, is_so: bool, problem: str) -> None:
        if not is_so and len(self._story.problems) < PROBLEMS_MAX:
            self._story.problems.append(problem)


def run_search_story(keep: Path | None, show: Show) -> SearchStory:
    """Run the story in `keep` or in a temporary directory. `keep` is new or empty."""
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise ValueError(f"{keep} is not empty; the story begins with a new folder")
    with directory_of_demo(keep) as data, Engine.open(data) as engine:
        return Telling(engine, show).run()
