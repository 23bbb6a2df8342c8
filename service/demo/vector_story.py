"""`shadowswitch demo --vectors`: an index of vectors gets another embedding model, while it is written and searched.

The records are the first lines of the documentation of Python's modules. The first model counts words and parts of
words; the second one is WordLlama, where its package is installed, and else the same model in another version. Shown
are hits before and after, the bill (texts embedded), and the way back.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.records import Put
from shadowswitch.service.cli.progress import Show
from shadowswitch.service.demo.demo import directory_of_demo
from shadowswitch.service.demo.steps import PROBLEMS_MAX, TIMEOUT_S, Step, timed
from shadowswitch.service.demo.story_writer import Writer

BRANCH, INDEX_TYPE, TYPE, NOTE = "main", "VECTOR_INDEX", "module", "note"
SHOWN = ("run things at the same time", "make a file smaller", "talk to a web server")
HITS = 4
MODULES_MAX = 400
LOOK_S = 0.01


class Side(msgspec.Struct, frozen=True):
    """The hits of one query by the old model and by the new one."""

    query: str
    before: list[str]
    after: list[str]


class VectorStory(msgspec.Struct):
    """What happened; `ok` without a problem."""

    ok: bool = False
    steps: list[Step] = msgspec.field(default_factory=list)
    sides: list[Side] = msgspec.field(default_factory=list)
    embedded: dict[str, int] = msgspec.field(default_factory=dict)
    """The bill: the texts that each step embedded."""
    written: int = 0
    searches: int = 0
    """Records written and searches answered meanwhile."""
    problems: list[str] = msgspec.field(default_factory=list)


def modules() -> Iterator[Put]:
    """What each module of the standard library says of itself."""
    folder = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names)[:MODULES_MAX]:
        file = next((one for one in (folder / f"{name}.py", folder / name / "__init__.py") if one.is_file()), None)
        if file is None or name.startswith("_"):
            continue
        try:
            said = ast.get_docstring(ast.parse(file.read_text("utf-8")))
        except (SyntaxError, ValueError):
            continue
        if said:
            yield Put(TYPE, name, {"text": f"{name}: {said.splitlines()[0]}"})


class Searcher(threading.Thread):
    """Asks the live index again and again, each time by a new reader."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="demo-searcher", daemon=True)
        self._engine = engine
        self._stop_event = threading.Event()
        self.answered = 0
        self.failure = ""

    def run(self) -> None:
        try:
            while not self._stop_event.wait(LOOK_S):
                with self._engine.reader(BRANCH, INDEX_TYPE) as reader:
                    if not reader.vector.nearest((TYPE, "json"), HITS):
                        self.failure = "a search found nothing"
                self.answered += 1
        except ShadowSwitchError as error:
            self.failure = f"a search failed: {error}"

    def stop(self) -> None:
        """End behind the search that runs."""
        self._stop_event.set()
        self.join(TIMEOUT_S)


class Telling:
    """One run."""

    def __init__(self, engine: Engine, data: Path, show: Show) -> None:
        from shadowswitch.storage.backends.vector import models  # of the extra: it says what to install

        self._engine = engine
        self._data = data
        self._show = show
        self._story = VectorStory()
        base = {"backend": "vector", "field": "text", "embedder": "words", "dimensions": models.WORDS_DIMENSIONS}
        llama = {**base, "embedder": "word_llama", "dimensions": models.WORD_LLAMA_DIMENSIONS}
        self._writer: Writer | None = None
        self._old: dict[str, Any] = base
        self._new: dict[str, Any] = llama if models.is_installed() else {**base, "embedder_version": "2"}

    def run(self) -> VectorStory:
        """The whole story."""
        with self._step("write records, build an index with the first model") as say:
            self._engine.create_branch(BRANCH)
            written = list(modules())
            self._engine.write(BRANCH, [*written, Put(NOTE, "first", {"text": "the first note"})])
            result = self._engine.rebuild(BRANCH, INDEX_TYPE, [TYPE, NOTE], self._old, timeout_s=TIMEOUT_S)
            self._expect(result.success, f"the first switch was refused: {result.message}")
            say(f"{len(written)} records")
        writer = self._writer = Writer(self._engine, BRANCH, lambda n: Put(NOTE, f"n{n}", {"text": f"note {n}"}))
        searcher = Searcher(self._engine)
        for one in (writer, searcher):
            one.start()
        try:
            self._change()
        finally:
            for one in (writer, searcher):
                one.stop()
        self._audit(writer, searcher)
        self._story.ok = not self._story.problems
        return self._story

    def _change(self) -> None:
        engine = self._engine
        with self._step("build another one beside it, with the second model") as say:
            cost = engine.build_cost(BRANCH, INDEX_TYPE, [TYPE, NOTE], self._new)
            shadow = engine.start_build(BRANCH, INDEX_TYPE, [TYPE, NOTE], self._new).shadow_index_id
            engine.wait_for(shadow, "BUILT", timeout_s=TIMEOUT_S)
            say(f"{self._new['embedder']}, counted before: {cost.to_embed} texts to embed")
        with self._step("ask both the same questions"):
            self._story.sides = self._sides(shadow)
        with self._step("switch") as say:
            result = engine.switch(shadow)
            self._expect(result.success, f"the switch was refused: {result.message}")
            say(f"writers were kept out for {result.sealed_ms:.1f} ms")
        for title in ("go back", "and forward again"):
            with self._step(title) as say:
                result = engine.rollback(BRANCH, INDEX_TYPE)
                self._expect(result.success, f"the way back was refused: {result.message}")
                say(f"writers were kept out for {result.sealed_ms:.1f} ms")

    def _sides(self, shadow: str) -> list[Side]:
        texts = {one.id: str(one.fields.get("text", "")) for one in self._engine.scan(BRANCH, TYPE)}
        found: list[list[list[str]]] = []
        for id in (None, shadow):
            with self._engine.reader(BRANCH, INDEX_TYPE, shadow_index_id=id) as reader:
                nearest = [
                    reader.vector.nearest(query, HITS, resource_types=[TYPE], timeout_s=TIMEOUT_S) for query in SHOWN
                ]
                found.append([[texts.get(hit.id, hit.id) for hit in hits] for hits in nearest])
        return [Side(*one) for one in zip(SHOWN, *found, strict=True)]

    def _audit(self, writer: Writer, searcher: Searcher) -> None:
        with self._step("audit: every record that was written meanwhile") as say:
            for one in (writer, searcher):
                self._expect(not one.failure and not one.is_alive(), one.failure or f"{one.name} hangs")
            self._story.written, self._story.searches = len(writer.ids), searcher.answered
            head = self._engine.head(BRANCH)
            with self._engine.reader(BRANCH, INDEX_TYPE, min_lsn=head, timeout_s=TIMEOUT_S) as reader:
                lost = [id for id in writer.ids if reader.get(NOTE, id) is None]
                unlike = reader.count() - reader.vector.size()
            self._expect(not lost, f"{len(lost)} records were lost, such as {lost[:3]}")
            self._expect(not unlike, f"{unlike} records have no vector")
            findings = [str(finding) for finding in self._engine.check()]
            self._expect(not findings, f"check: {findings[:3]}")
            say(f"{len(writer.ids)} written, {len(writer.ids) - len(lost)} found")

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[str], None]]:
        from shadowswitch.storage.backends.vector.cache import embedded_in

        before, notes = embedded_in(self._data), self._notes()
        with timed(title, self._show, self._story.steps) as say:
            yield say
            count, more = embedded_in(self._data) - before, self._notes() - notes
            self._story.embedded[title] = count
            say(f"{count} texts embedded" + (f", with those of {more} notes" if more else ""))

    def _notes(self) -> int:
        return len(self._writer.ids) if self._writer is not None else 0

    def _expect(self, is_so: bool, problem: str) -> None:
        if not is_so and len(self._story.problems) < PROBLEMS_MAX:
            self._story.problems.append(problem)


def run_vector_story(keep: Path | None, show: Show) -> VectorStory:
    """Run the story in `keep`, new or empty, or in a temporary directory. Raises InvalidConfig without numpy."""
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise ValueError(f"{keep} is not empty; the story begins with a new folder")
    with directory_of_demo(keep) as data, Engine.open(data) as engine:
        return Telling(engine, data, show).run()
