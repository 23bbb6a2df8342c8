"""A host on a disk that fails or fills up. Run as a script:

    python -m tests.crash.trouble DATA LEDGER injected            works on after every error (strace injects them)
    python -m tests.crash.trouble DATA LEDGER full BALLAST        fills the disk with the file BALLAST, frees it again
    python -m tests.crash.trouble DATA LEDGER beside BALLAST      leaves too little room for a build, enough for writers
    python -m tests.crash.trouble DATA LEDGER map                 a memory map that is too small

The ledger gets a note of each failure: `trouble` (a step that ended with an error of the library), `unserved` (the live
index could not be read), `problem` (another error than one of the library, or a broken promise).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, Reader, ShadowState, ShadowSwitchError, UnknownBranch, UnknownIndex
from tests.crash.ledger import Change, Ledger, LedgerContent
from tests.crash.of_backend import BUILD
from tests.crash.oracle import RESTING, Demands
from tests.crash.workload import INDEX, PATIENCE_S, TYPES, Beside, Life, Scribe, config, patient
from tests.support import inside

LARGE = "x" * 20_000
READERS = 200
"""More than LMDB's reader slots in one page of its lock file."""
TURNS_MAX = 20_000


class Troubled:
    """Takes steps, notes the end of each, and then reads the live index."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.engine = engine
        self.ledger = ledger
        self.live = 0

    def step(self, name: str, do: Callable[[], object]) -> bool:
        """Take a step; True when it succeeded."""
        try:
            do()
        except ShadowSwitchError as error:
            self.ledger.enter("trouble", step=name, error=type(error).__name__, text=str(error))
            return False
        except Exception as error:
            self.ledger.enter("problem", text=f"{name} raised {type(error).__name__}: {error}")
            return False
        finally:
            self.look()
        return True

    def _shows_all(self, reader: Reader) -> bool:
        """Is there anything to show, and was all of it applied?"""
        return self.engine.count("main") > 0 and reader.applied_lsn() >= self.engine.head("main")

    def look(self) -> None:
        """The live index answers, if there was a switch."""
        try:
            with self.engine.reader("main", INDEX) as reader:
                self.live = reader.generation
                if not reader.count() and self._shows_all(reader) and not reader.count():
                    self.ledger.enter("problem", text="the live index is empty")
        except (UnknownBranch, UnknownIndex):
            if self.live:
                self.ledger.enter("problem", text="the live index is gone")
        except ShadowSwitchError as error:
            self.ledger.enter("unserved", generation=self.live, text=f"{type(error).__name__}: {error}")
        except Exception as error:
            self.ledger.enter("problem", text=f"reading raised {type(error).__name__}: {error}")


def injected(data: Path, ledger: Ledger) -> None:
    """The life of an index; it goes on after every error. A build waits three times for what it cannot open."""
    with pytest.MonkeyPatch.context() as patch, Engine.open(data, config()) as engine:
        inside.patch_limit(patch, inside.Limit.SHORTAGES_MAX, 3)
        troubled = Troubled(engine, ledger)
        life = Life(engine, ledger, {**BUILD, "shards": 1, "parallel_workers": 1})
        scribe = Scribe(engine, ledger, 1, 12)
        troubled.step("create branch", lambda: engine.create_branch("main"))
        troubled.step("seed", lambda: scribe.seed("main", 1, 12))
        for number in range(2):
            troubled.step(f"rebuild {number}", lambda: life.switch(afresh(engine, life)))
            troubled.step(f"write {number}", lambda: scribe.some("main", 2))
        troubled.step("roll back", lambda: has_previous(engine) and life.rollback())
        troubled.step("rebuild 2", lambda: life.switch(afresh(engine, life), request=patient(strategy="ATOMIC_RENAME")))
        troubled.step("clean up", lambda: engine.clean_up(PATIENCE_S))
        troubled.step("write 3", lambda: scribe.some("main", 2))


def afresh(engine: Engine, life: Life) -> str:
    """Build a shadow; one that waits after a failed switch, or for a resource, is cancelled first."""
    for shadow in engine.shadows("main"):
        if shadow.state in ("BUILT", "BUILDING"):
            engine.cancel_build(shadow.shadow_index_id, "another one is built")
    return life.build()


def has_previous(engine: Engine) -> bool:
    """Is there a previous generation?"""
    return any(index.previous_generation for index in engine.indexes("main"))


def fill(ballast: Path, leave_bytes: int) -> None:
    """Fill the disk; leave `leave_bytes` free."""
    room = os.statvfs(ballast.parent)
    descriptor = os.open(ballast, os.O_RDWR | os.O_CREAT)
    try:
        free = room.f_bavail * room.f_frsize
        while free > leave_bytes:
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, max(4096, free - leave_bytes))
            except OSError:
                break
            room = os.statvfs(ballast.parent)
            free = room.f_bavail * room.f_frsize
    finally:
        os.close(descriptor)


class Large(Scribe):
    """Writes records of 20 KB."""

    def large(self) -> bool:
        """One new or changed large record; True when acknowledged."""
        name = self.ledger.new_batch()
        id = f"large{self.chance.randrange(100)}"
        title = f"{name}/0 {LARGE}"
        self.ledger.enter("intent", batch=name, branch="main", changes=[["object_type", id, title]])
        return self.write_intended(name, "main", [Change("object_type", id, title)])


def until_refused(scribe: Large, ledger: Ledger) -> None:
    """Write until a write is refused for lack of room; the error must be StorageFull."""
    for _ in range(TURNS_MAX):
        if not scribe.large():
            return
    ledger.enter("problem", text="the disk never became full")


def many_readers(engine: Engine, ledger: Ledger) -> None:
    """Many threads read at the same moment: a read must need no room on the disk."""
    together = threading.Barrier(READERS)

    def read() -> None:
        try:
            together.wait(PATIENCE_S)
            list(engine.scan("main", "link_type"))
            engine.get("main", "object_type", "r1")
        except Exception as error:
            ledger.enter("problem", text=f"a reader failed on a full disk: {error}")

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)


def prepared(engine: Engine, ledger: Ledger) -> tuple[Troubled, Life, Large]:
    """A branch with records and a live index."""
    engine.create_branch("main")
    scribe = Large(engine, ledger, 1, 60)
    scribe.seed("main", 6, 10)
    life = Life(engine, ledger)
    life.switch(life.build())
    return Troubled(engine, ledger), life, scribe


def demand(engine: Engine, ledger: Ledger, path: Path, is_full: bool = False) -> None:
    """Make the demands of the oracle on the running engine. A full disk has no room to end a build, or to check."""
    demands = Demands(engine, LedgerContent(path), ("",), is_full)
    if not is_full:
        demands.builds_end()
        demands.findings()
    for problem in demands.promises():
        ledger.enter("problem", text=problem)


def full(data: Path, ledger: Ledger, path: Path, ballast: Path) -> None:
    """Fill the disk to the last block, and free it; the engine is not restarted."""
    with Engine.open(data, config()) as engine:
        troubled, life, scribe = prepared(engine, ledger)
        under_way = engine.start_build("main", INDEX, TYPES, BUILD).shadow_index_id
        fill(ballast, 0)
        until_refused(scribe, ledger)
        many_readers(engine, ledger)
        troubled.step("small write", lambda: scribe.some("main", 3))
        if troubled.step("build", life.build):
            ledger.enter("problem", text="a build found room on a full disk")
        troubled.step("clean up", lambda: engine.clean_up(PATIENCE_S))
        demand(engine, ledger, path, is_full=True)
        ballast.unlink()
        ledger.enter("freed")
        if not scribe.large():
            ledger.enter("problem", text="a write is refused although there is room again")
        troubled.step(
            "the build that was under way", lambda: engine.wait_for(under_way, *RESTING, timeout_s=PATIENCE_S)
        )
        engine.clean_up(PATIENCE_S)
        troubled.step("build again", lambda: life.switch(afresh(engine, life)))
        demand(engine, ledger, path)


def beside(data: Path, ledger: Ledger, path: Path, ballast: Path) -> None:
    """A build without enough room ends FAILED or is refused; a write beside it is never refused."""
    with Engine.open(data, config(disk_reserve_bytes=4 << 20)) as engine:
        troubled, life, scribe = prepared(engine, ledger)
        for _ in range(100):
            scribe.large()
        fill(ballast, 6 << 20)
        writer = Beside(ledger, lambda: Scribe(engine, ledger, 2, 60).one("main"))
        if troubled.step("build", life.build):
            ledger.enter("problem", text="a build took the reserve")
        writer.stop()
        states = [shadow.state for shadow in engine.shadows("main")]
        ledger.enter("states", states=states)
        if ShadowState.BUILDING in states:
            ledger.enter("problem", text="the build does not end")
        demand(engine, ledger, path)
        ballast.unlink()
        ledger.enter("freed")
        troubled.step("build again", lambda: life.switch(life.build()))


def small_map(data: Path, ledger: Ledger, path: Path) -> None:
    """The memory map is full: StorageFull, no acknowledged write is lost, and with a larger map writes go well."""
    with Engine.open(data, config(map_size_bytes=2 << 20)) as engine:
        troubled, life, scribe = prepared(engine, ledger)
        until_refused(scribe, ledger)
        troubled.step("build", life.build)
        demand(engine, ledger, path)
    with Engine.open(data, config()) as engine:
        if not Large(engine, ledger, 3, 60).large():
            ledger.enter("problem", text="a write is refused although the map is larger")


def main() -> None:
    """The script."""
    data, path, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    ledger = Ledger(path)
    if mode == "injected":
        injected(data, ledger)
    elif mode == "map":
        small_map(data, ledger, path)
    else:
        {"full": full, "beside": beside}[mode](data, ledger, path, Path(sys.argv[4]))
    ledger.enter("end")


if __name__ == "__main__":
    try:
        main()
    except ShadowSwitchError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(3)
