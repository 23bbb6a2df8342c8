"""Helpers of the tests of the engine: records, waiting without sleeping, threads that report their errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pykka

from shadowswitch import Delete, Engine, Put, ShadowIndex, ShadowSwitchError, SwitchRequest

KIND = "SEARCH_INDEX"
TYPES = ["object_type"]
ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.01


def put(id: str, text: str = "hello", resource_type: str = "object_type") -> Put:
    """A record that is found by its text and by `word<id>`."""
    return Put(resource_type, id, {"text": f"{text} word{id}"})


def fill(engine: Engine, count: int, branch: str = "main", text: str = "hello") -> int:
    """Write records `0` to `count - 1`; returns the last LSN."""
    lsn = 0
    for start in range(0, count, 1000):
        batch = [put(str(n), text) for n in range(start, min(start + 1000, count))]
        lsn = engine.write(branch, batch).lsn
    return lsn


def built(engine: Engine, branch: str = "main", **config: Any) -> ShadowIndex:
    """A shadow that waits for its switch."""
    shadow = engine.start_build(branch, KIND, TYPES, {"parallel_workers": 1, **config})
    return engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)


def live(engine: Engine, branch: str = "main", **config: Any) -> int:
    """Build an index, which may be empty, and switch to it; returns its generation."""
    request = SwitchRequest(allow_empty=True)
    result = engine.rebuild(branch, KIND, TYPES, {"parallel_workers": 1, **config}, request, timeout_s=60)
    assert result.success, result.message
    return result.generation


def found(engine: Engine, query: str, branch: str = "main", **how: Any) -> set[str]:
    """The ids that the live index gives for a query."""
    with engine.reader(branch, KIND, **how) as reader:
        return {hit.id for hit in reader.search(query, limit=1000)}


def reads(engine: Engine) -> int:
    """The generation that a new reader of the live index gets."""
    with engine.reader("main", KIND) as reader:
        return reader.generation


def works(engine: Engine) -> None:
    """Take all steps: write, build, switch, read the own write, roll back."""
    fill(engine, 20, text="works")
    live(engine)
    receipt = engine.write("main", [put("again", "worksagain"), Delete("object_type", "1")])
    assert found(engine, "worksagain", min_lsn=receipt.lsn) == {"again"}
    assert engine.check() == []


def attempt(call: Callable[[], object]) -> object:
    """Returns the result of a call, or the error of this library that it raised."""
    try:
        return call()
    except ShadowSwitchError as error:
        return error


def wait_until(is_so: Callable[[], object], deadline_s: float = 30.0, what: str = "it") -> None:
    """Wait until `is_so` is true; raises AssertionError at the deadline."""
    pause = threading.Event()
    for _ in range(int(deadline_s / POLL_S)):
        if is_so():
            return
        pause.wait(POLL_S)
    raise AssertionError(f"{what} did not happen in {deadline_s:g} s")


class Crew:
    """Threads that work until `finish`, which raises the error that one of them raised."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object], count: int = 1) -> None:
        """Repeat `work` on `count` threads."""
        for _ in range(count):
            thread = threading.Thread(target=self._loop, args=(work,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _loop(self, work: Callable[[], object]) -> None:
        try:
            while not self.stop.is_set():
                work()
        except BaseException as error:
            self.errors.append(error)

    def finish(self, deadline_s: float = 60.0) -> None:
        """Stop all threads; raises the error that one of them raised."""
        self.stop.set()
        for thread in self._threads:
            thread.join(deadline_s)
            assert not thread.is_alive(), "a thread hangs"
        if self.errors:
            raise self.errors[0]


@contextmanager
def crew() -> Iterator[Crew]:
    """A crew; the end of the test stops its threads."""
    hands = Crew()
    try:
        yield hands
    finally:
        hands.finish()


def outside_environment(**more: str) -> dict[str, str]:
    """The environment for processes of the tests: ours, without planned failpoints, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHADOWSWITCH_")}
    return {**kept, **more}


def worker_processes() -> list[int]:
    """The worker processes that this process has started and that still run."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == os.getpid() and b"generations.worker" in (folder / "cmdline").read_bytes():
                    pids.append(int(folder.name))
            except OSError:
                continue
    return pids


class HostActor(pykka.ThreadingActor):
    """An actor of the host that the engine does not know."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message
