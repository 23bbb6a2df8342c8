"""The oracle: opens the data directory after a crash and demands that every promise is kept. Run as a script:

    python -m tests.crash.oracle DATA LEDGER          prints one line of JSON, status 1 when something is wrong
    python -m tests.crash.oracle serve                answers each line of JSON, a `Question`, with one

The demands (`Demands`) are made after the first recovery, after more work on the recovered engine, and after a second
recovery. They are made from the ledger, never from statements of the engine about itself. What an engine would mend or
hide is looked for in its files (`on_disk`): after a power cut before the first recovery, and when it is closed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch import Change as JournalChange
from shadowswitch import Config, Engine, ShadowState, Timeout, UnknownBranch
from tests.crash.grouped import apart
from tests.crash.ledger import Batch, Key, Ledger, LedgerContent
from tests.crash.on_disk import broken_on_disk
from tests.crash.running import wait_until
from tests.crash.workload import BRANCHES, INDEX, PATIENCE_S, TYPES, Life, Scribe, config

UNDER_WAY = (ShadowState.PREPARING, ShadowState.BUILDING)
RESTING = (ShadowState.BUILT, ShadowState.FAILED, ShadowState.CANCELLED)
JOURNAL_PAGE = 5000
LAG_S = 10.0
"""How long an index on a full disk is waited for."""
Held = dict[Key, tuple[int, str]]
"""(resource type, id) -> (LSN, title)."""


class Demands:
    """All demands on an engine that was just opened; `problems` names the unfulfilled ones. On a full disk an index may
    lag behind an acknowledged write, if it says why: the catalog had room for the write, the index not.
    """

    def __init__(
        self, engine: Engine, ledger: LedgerContent, may_fail: tuple[str, ...] = (), is_full: bool = False
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self.may_fail = may_fail
        self.is_full = is_full
        self.problems = list(ledger.problems)
        self.resumed = 0

    def all(self) -> list[str]:
        """Make every demand."""
        self.problems += [f"not switched: {text}" for text in self.ledger.refusals if not self.allowed(text)]
        self.builds_end()
        self.findings()
        return self.promises()

    def findings(self) -> None:
        """The engine's own check finds nothing."""
        self.problems += [f"check: {finding}" for finding in self.engine.check()]

    def promises(self) -> list[str]:
        """The promises in the ledger, branch by branch."""
        self.locks()
        self.forks()
        self.problems += apart(self.engine, self.ledger.notes)
        for branch in sorted(self.ledger.branches()):
            try:
                held = {(r.resource_type, r.id): (r.lsn, r.fields["title"]) for r in self.engine.scan(branch)}
            except UnknownBranch:
                held = {}
            self.problems += self.ledger.wrong_records(branch, held)
            self.journal(branch)
            self.index(branch, held)
        return self.problems

    def no(self, text: str) -> None:
        """Note that a demand was not fulfilled."""
        self.problems.append(text)

    def allowed(self, reason: str) -> bool:
        """May a test make a build or switch fail for this reason?"""
        return any(text in reason for text in self.may_fail)

    # -- builds ----------------------------------------------------------------------------------------------------

    def builds_end(self) -> None:
        """Each build that was under way resumes at its cursor and comes to its end."""
        for shadow in self.engine.shadows():
            if shadow.state in UNDER_WAY:
                self.resumed += 1
                self.engine.wait_for(shadow.shadow_index_id, *RESTING, timeout_s=PATIENCE_S)
        for shadow in self.engine.shadows():
            if shadow.state == "FAILED" and not self.allowed(shadow.error or ""):
                self.no(f"the build of generation {shadow.generation} failed: {shadow.error}")
        self.no_build_began_twice()

    def no_build_began_twice(self) -> None:
        """A build that had begun to copy is never prepared again."""
        begun: dict[str, int] = {}
        for event in self.engine.events(limit=100_000):
            if event.type.endswith("build.started"):
                begun[event.subject] = begun.get(event.subject, 0) + 1
        for subject, times in begun.items():
            if times > 1:
                self.no(f"the build of shadow {subject} was begun {times} times")

    # -- locks -----------------------------------------------------------------------------------------------------

    def locks(self) -> None:
        """A lock is granted, and its token is larger than every token before (LK-2)."""
        given = [note["token"] for note in self.ledger.notes if note["kind"] == "locked"]
        if given:
            lock = self.engine.acquire_lock(
                "main", "MANUAL", "oracle", "RESOURCE", TYPES[0], f"by {os.getpid()}", ttl_s=60
            )
            self.engine.release_lock(lock.lock_id, lock.token)
            if lock.token <= max(given):
                self.no(f"LK-2 token {lock.token} was granted after {max(given)}")

    # -- forks ---------------------------------------------------------------------------------------------------------

    def forks(self) -> None:
        """A branch that was forked, or is a fork, shows what it showed last, or what the step under way makes of it."""
        steps: dict[str, list[dict[str, Any]]] = {}
        for note in self.ledger.notes:
            if note["kind"] in ("showing", "shows", "dropping"):
                steps.setdefault(note["branch"], []).append(note)
        for branch, notes in steps.items():
            last = max((at for at, note in enumerate(notes) if note["kind"] == "shows"), default=-1)
            try:
                held = {record.id: record.fields["title"] for record in self.engine.scan(branch)}
            except UnknownBranch:
                if last >= 0 and notes[-1]["kind"] != "dropping":
                    self.no(f"the branch {branch} is gone")
                continue
            allowed = [note["records"] for note in notes[max(0, last) :] if note["kind"] != "dropping"]
            for id in allowed[0]:
                may_be = {records[id] for records in allowed} | ({None} if last < 0 else set())
                if held.get(id) not in may_be:
                    self.no(f"{id} of {branch} is {held.get(id)}, expected was one of {may_be}")

    # -- the journal -----------------------------------------------------------------------------------------------

    def journal(self, branch: str) -> None:
        """The journal holds every acknowledged batch at its LSNs; all its other entries are whole intended batches."""
        try:
            oldest = self.engine.branch(branch).oldest_lsn
        except UnknownBranch:
            return
        found = {change.lsn: change for change in self._changes(branch, oldest - 1)}
        for batch in self.ledger.acked(branch):
            for position, change in enumerate(batch.changes):
                lsn = batch.lsn_of(position)
                if lsn < oldest:
                    continue
                entry = found.pop(lsn, None)
                if entry is None:
                    self.no(f"lost: {branch} LSN {lsn} of batch {batch.name} is not in the journal")
                elif not _same(entry, change.resource_type, change.id, change.title):
                    self.no(f"{branch} LSN {lsn} should be {change}, and is {entry}")
        self._whole_intents(branch, [found[lsn] for lsn in sorted(found)], oldest)

    def _changes(self, branch: str, after: int) -> Iterator[JournalChange]:
        while page := self.engine.changes(branch, after, JOURNAL_PAGE):
            yield from page
            after = page[-1].lsn

    def _whole_intents(self, branch: str, rest: list[JournalChange], oldest: int) -> None:
        waiting = self.ledger.open(branch)
        while rest:
            batch = next((b for b in waiting if _begins_with(rest, b)), None)
            if batch is not None:
                waiting.remove(batch)
                rest = rest[len(batch.changes) :]
            elif rest[0].lsn == oldest:  # the end of a batch whose beginning was trimmed
                rest = rest[1:]
                oldest += 1
            else:
                self.no(f"{branch} LSN {rest[0].lsn} belongs to no whole batch that was intended: {rest[0]}")
                return

    # -- indexes ---------------------------------------------------------------------------------------------------

    def index(self, branch: str, held: Held) -> None:
        """One generation is live, an expected one, and it is whole: it holds each record at the LSN of its source."""
        allowed = self.ledger.may_serve((branch, INDEX))
        live = live_generations(self.engine).get((branch, INDEX), 0)
        if live not in allowed:
            self.no(f"generation {live} is live on {branch}, expected was one of {sorted(allowed)}")
        shadows = [s for s in self.engine.shadows(branch) if s.index_type == INDEX]
        serving = [s.generation for s in shadows if s.phase == "live"]
        if serving != ([live] if live else []):
            self.no(f"on {branch} the shadows of generations {serving} say that they are live, the index says {live}")
        if live:
            try:
                self.whole(branch, live, held)
            except Timeout as late:
                if not (self.is_full and "it cannot follow the journal: the disk is full" in str(late)):
                    raise

    def whole(self, branch: str, live: int, held: Held) -> None:
        """The reader gives exactly the records of the branch."""
        patience_s = LAG_S if self.is_full else PATIENCE_S
        with self.engine.reader(branch, INDEX, min_lsn=self.engine.head(branch), timeout_s=patience_s) as reader:
            if reader.generation != live:
                self.no(f"readers get generation {reader.generation}, the index says {live}")
            count = self.engine.count(branch)
            if not reader.count() == count == len(held):
                self.no(f"the index counts {reader.count()}, the engine {count}, a scan {len(held)}")
            listed = {(r.resource_type, r.id): (r.lsn, r.fields["title"]) for r in reader.scan()}
            if listed != held:
                odd = sorted(listed.items() ^ held.items())[:5]
                self.no(f"the index of {branch} and its source differ, for example {odd}")
            for key, (lsn, _) in held.items():
                record = reader.get(*key)
                if record is None or record.lsn != lsn:
                    self.no(f"{key} of LSN {lsn} is read as {record}")


def live_generations(engine: Engine) -> dict[Key, int]:
    """The number of the live generation of each index."""
    return {(index.branch_name, index.index_type): index.generation for index in engine.indexes()}


def _same(entry: JournalChange, resource_type: str, id: str, title: str | None) -> bool:
    found = entry.fields["title"] if entry.fields is not None else None
    return (entry.resource_type, entry.id, found) == (resource_type, id, title)


def _begins_with(rest: list[JournalChange], batch: Batch) -> bool:
    if len(rest) < len(batch.changes):
        return False
    pairs = list(zip(rest, batch.changes, strict=False))
    in_a_row = all(entry.lsn == rest[0].lsn + place for place, (entry, _) in enumerate(pairs))
    return in_a_row and all(_same(e, c.resource_type, c.id, c.title) for e, c in pairs)


def work_on(engine: Engine, ledger: Ledger) -> None:
    """Write records, build an index, switch to it, write more, roll back: each step must go well."""
    for branch in BRANCHES:
        if branch not in {info.name for info in engine.branches()}:
            engine.create_branch(branch)
    Scribe(engine, ledger, 99, 60).some("main", 5)
    life = Life(engine, ledger)
    for shadow in engine.shadows("main", "BUILT"):
        life.switch(shadow.shadow_index_id)
    life.switch(life.build())
    Scribe(engine, ledger, 98, 60).some("main", 5)
    if engine.index("main", INDEX).previous_generation:
        life.rollback()
    engine.clean_up(PATIENCE_S)


def threads_left() -> list[str]:
    """A closed engine leaves no thread behind."""

    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("shadowswitch")]

    try:
        wait_until(lambda: not names(), "all threads of the engine have ended", 20)
    except TimeoutError:
        return [f"threads outlive the engine: {names()}"]
    return []


def unexpected_repairs(engine: Engine, ledger: LedgerContent) -> list[str]:
    """Repairs in a run that damaged no bucket: there the validation of a build hides a loss."""
    repaired = engine.stats()["counters"].get("buckets_repaired", 0)
    damaged = any(note["kind"] == "damaging" for note in ledger.notes)
    return [f"{repaired} buckets were repaired; nothing was damaged"] if repaired and not damaged else []


def judge(data: Path, path: Path, settings: Config, may_fail: tuple[str, ...] = ()) -> dict[str, object]:
    """Recover, demand, work, demand, recover again, demand."""
    ledger = Ledger(path)
    with Engine.open(data, settings) as engine:
        first = Demands(engine, LedgerContent(path), may_fail)
        problems = first.all()
        deaths = engine.stats()["counters"].get("worker_deaths", 0)
        if not problems:
            work_on(engine, ledger)
            problems = Demands(engine, LedgerContent(path), may_fail).all()
        problems += unexpected_repairs(engine, LedgerContent(path))
    problems += threads_left()
    if not problems:
        with Engine.open(data, settings) as engine:
            problems = [f"second recovery: {text}" for text in Demands(engine, LedgerContent(path), may_fail).all()]
            live = live_generations(engine)
        problems += broken_on_disk(data, LedgerContent(path), live)
    ledger.close()
    counts = LedgerContent(path).counts()
    return {"problems": problems[:20], "resumed": first.resumed, "worker_deaths": deaths, **counts}


class Question(msgspec.Struct, frozen=True):
    """A data directory and its ledger; `upto` is the position in the log of the recorder at which the power failed."""

    data: str
    ledger: str
    upto: int


def answer(question: Question) -> list[str]:
    """The problems of a data directory after a power cut: in its files, in one recovery, in its files after that."""
    data, ledger = Path(question.data), LedgerContent(Path(question.ledger), question.upto)
    problems: list[str] = []
    try:
        problems += [f"before recovery: {text}" for text in broken_on_disk(data, ledger)]
        with Engine.open(data, config()) as engine:
            problems += Demands(engine, ledger).all()
            live = live_generations(engine)
        problems += [f"after recovery: {text}" for text in broken_on_disk(data, ledger, live)]
    except Exception as error:
        problems.append(f"{type(error).__name__}: {error}")
    return [*problems, *threads_left()]


def serve() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        problems = answer(msgspec.json.decode(line, type=Question))
        print(json.dumps({"answer": problems[:10]}), flush=True)


def main() -> None:
    """The script."""
    if sys.argv[1] == "serve":
        serve()
        return
    found = judge(Path(sys.argv[1]), Path(sys.argv[2]), config(), tuple(sys.argv[3:]))
    print(json.dumps(found))
    sys.exit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
