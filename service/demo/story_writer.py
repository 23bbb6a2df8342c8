"""The writer of a story, which goes on while indexes are built and switched."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.records import Put
from shadowswitch.service.demo.steps import TIMEOUT_S

PAUSE_S = 0.005


class Writer(threading.Thread):
    """Writes record after record. `ids` are the acknowledged ones."""

    def __init__(self, engine: Engine, branch: str, make: Callable[[int], Put]) -> None:
        """`make` gives the record of a number."""
        super().__init__(name="demo-writer", daemon=True)
        self._engine = engine
        self._branch = branch
        self._make = make
        self._stop_event = threading.Event()
        self.ids: list[str] = []
        self.failure = ""

    def run(self) -> None:
        try:
            while not self._stop_event.wait(PAUSE_S):
                record = self._make(len(self.ids))
                self._engine.write(self._branch, [record], timeout_s=TIMEOUT_S)
                self.ids.append(record.id)
        except ShadowSwitchError as error:
            self.failure = f"a write failed: {error}"

    def stop(self) -> None:
        """End behind the write that runs."""
        self._stop_event.set()
        self.join(TIMEOUT_S)
