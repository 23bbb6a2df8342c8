"""Another program that opens the indexes by their paths, in a process of its own: PATH... until its input ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from benchmarks.common import ROOT
from benchmarks.paths import BACKEND, OPTIONS, SHARD
from shadowswitch.model.errors import ShadowSwitchError

THINK_S = 0.0002


class Seen(msgspec.Struct):
    """How often an index was opened and read, and how often that failed."""

    reads: int = 0
    failed: int = 0
    example: str = ""


class OutsideReader:
    """The process, from the side of the simulation."""

    def __init__(self, paths: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simulation.outside", *paths],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the outside reader did not start")

    def stop(self) -> Seen:
        """End it; what it saw."""
        out, _ = self._process.communicate(timeout=60)
        return msgspec.json.decode(out, type=Seen)


def look(path: Path) -> None:
    """Look whether the path leads anywhere; then open the index there and read of it."""
    real = Path(os.path.realpath(path, strict=True))
    reader = BACKEND.open_reader([real / SHARD], OPTIONS)
    try:
        reader.count()
    finally:
        reader.close()


def main() -> None:
    """The process."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    seen, paths = Seen(), [Path(path) for path in sys.argv[1:]]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not over.is_set():
        for path in paths:
            try:
                look(path)
                seen.reads += 1
            except (OSError, ShadowSwitchError) as error:
                seen.failed += 1
                seen.example = f"{type(error).__name__}: {error}"
            time.sleep(THINK_S)
    sys.stdout.write(msgspec.json.encode(seen).decode())


if __name__ == "__main__":
    main()
