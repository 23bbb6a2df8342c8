"""Writes that wait just ahead of the turn of a switch: the JournalWriter commits them first."""

from __future__ import annotations

import threading

from shadowswitch import Engine, Receipt
from tests.support import inside
from tests.support.engine_helpers import KIND, put, wait_until

HELD_S = 30.0


class Gathered:
    """Three writes that wait for the JournalWriter together with the next switch."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.receipts: list[Receipt] = []
        self.refused: list[Exception] = []
        self.armed = False
        self.threads: list[threading.Thread] = []

    def _write(self, number: int) -> None:
        try:
            self.receipts.append(self.engine.write("main", [put(f"g{number}", "gathered")], timeout_s=HELD_S))
        except Exception as error:
            self.refused.append(error)

    def begin(self) -> None:
        """Hold the JournalWriter until the writes and the switch wait for it together."""
        self.armed = False
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            busy.set()
            go_on.wait(HELD_S)

        inside.hold_journal_writer(self.engine, hold)
        assert busy.wait(HELD_S)

        def let_go() -> None:
            wait_until(lambda: inside.journal_backlog(self.engine) >= 4, what="three writes and the switch")
            go_on.set()

        self.threads = [threading.Thread(target=self._write, args=(n,)) for n in range(3)]
        for thread in self.threads:
            thread.start()
        wait_until(lambda: inside.journal_backlog(self.engine) >= 3, what="the writes wait for the JournalWriter")
        self.threads.append(threading.Thread(target=let_go))
        self.threads[-1].start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(HELD_S)
            assert not thread.is_alive()


def is_whole(engine: Engine) -> bool:
    """Does a reader get the live generation of the catalog, with all gathered writes?"""
    with engine.reader("main", KIND) as reader:
        same = reader.generation == engine.index("main", KIND).generation
        return same and {hit.id for hit in reader.search("gathered")} == {"g0", "g1", "g2"}
