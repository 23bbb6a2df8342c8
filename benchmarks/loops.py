"""Closed loops with a millisecond of thought, as a host has them: they note the time of each success."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable

from benchmarks.common import Window, gaps_ms, quantile

THINK_S = 0.001
EXAMPLES_MAX = 20
JOIN_S = 120.0

Step = Callable[[random.Random], object]


class Loop(threading.Thread):
    """One loop; `done` has the time (perf_counter) of each success, `took_ms` what it took."""

    def __init__(self, name: str, step: Step, stop: threading.Event, seed: int, think_s: float) -> None:
        super().__init__(name=name, daemon=True)
        self._step = step
        self._over = stop
        self._chance = random.Random(seed)
        self._think_s = think_s
        self.done: list[float] = []
        self.took_ms: list[float] = []
        self.failures = 0
        self.errors: list[str] = []

    def run(self) -> None:
        """Repeat the step until the loops are stopped."""
        while not self._over.is_set():
            begun = time.perf_counter()
            try:
                self._step(self._chance)
            except Exception as error:
                self.failures += 1
                if len(self.errors) < EXAMPLES_MAX:
                    self.errors.append(f"{self.name}: {type(error).__name__}: {error}")
            else:
                now = time.perf_counter()
                self.done.append(now)
                self.took_ms.append((now - begun) * 1000)
            if self._think_s:
                self._over.wait(self._think_s)


class Loops:
    """Writers and readers that run while something is measured. A context manager."""

    def __init__(
        self, write: Step | None, read: Step | None, writers: int, readers: int, think_s: float = THINK_S
    ) -> None:
        self._stop = threading.Event()
        kinds = [(write, f"writer {n}", n) for n in range(writers if write else 0)]
        self.writers = [Loop(name, step, self._stop, n, think_s) for step, name, n in kinds if step]
        others = [(read, f"reader {n}", 1000 + n) for n in range(readers if read else 0)]
        self.readers = [Loop(name, step, self._stop, n, think_s) for step, name, n in others if step]

    def __enter__(self) -> Loops:
        gc.collect()
        gc.freeze()  # else the collector walks the ledgers of the harness: each time every thread stands for 17 ms
        for loop in (*self.writers, *self.readers):
            loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for loop in (*self.writers, *self.readers):
            loop.join(JOIN_S)
            if loop.is_alive():
                loop.errors.append(f"{loop.name} hangs")
        gc.unfreeze()

    @property
    def errors(self) -> list[str]:
        """What went wrong in any loop; a few examples of each."""
        return [error for loop in (*self.writers, *self.readers) for error in loop.errors]

    def writer_gaps(self, windows: list[Window]) -> list[float]:
        """The stall of each writer in each window, in ms."""
        return gaps_ms([loop.done for loop in self.writers], windows)

    def reader_gaps(self, windows: list[Window]) -> list[float]:
        """The stall of each reader in each window, in ms."""
        return gaps_ms([loop.done for loop in self.readers], windows)


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum in words."""
    return f"{quantile(values, 0.5):.2f} / {quantile(values, 0.99):.2f} / {max(values, default=0.0):.2f}"
