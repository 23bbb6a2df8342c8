"""Power cuts: the states that a disk may have after its power failed at some point of a recorded log.

Every write before the last flush is there. Of the writes after it: none, all up to the cut, a random part in random
order, or all with the last write torn at a multiple of a sector.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.crash.recorder import FLUSH, Entry, read_log

MODES = ("flushed", "prefix", "subset", "torn")
SECTOR = 512


class Cuts:
    """The disk images after cuts of one recorded log, in order of the cuts."""

    def __init__(self, empty: Path, log: Path, seed: int, base: Path) -> None:
        """`empty` is the image before the recording; `base` is a copy of it that gets every flushed write."""
        shutil.copyfile(empty, base)
        self.entries = list(read_log(log))
        self.chance = random.Random(seed)
        self._base = os.open(base, os.O_RDWR)
        self._path = base
        self._flushed = 0

    def close(self) -> None:
        """Release the image."""
        os.close(self._base)

    def flushes(self, after: int) -> list[int]:
        """Every cut just behind a flush, behind position `after` of the log."""
        return [place for place, entry in enumerate(self.entries) if entry.end > after and entry.kind == FLUSH]

    def moments(self, positions: set[int]) -> list[int]:
        """The cut at each of these positions of the log: the moments at which entries of a ledger were made."""
        return [place for place, entry in enumerate(self.entries) if entry.end in positions]

    def spread(self, count: int, after: int) -> list[int]:
        """`count` cuts behind position `after` of the log, evenly spread, half of them just behind a flush."""
        places = [place for place, entry in enumerate(self.entries) if entry.end > after]
        flushes = self.flushes(after)
        chosen = {self._near(places, number, count - count // 2) for number in range(count - count // 2)}
        chosen |= {self._near(flushes, number, count // 2) for number in range(count // 2)}
        return sorted(chosen)

    def _near(self, places: list[int], number: int, count: int) -> int:
        step = len(places) / count
        return places[min(len(places) - 1, int((number + self.chance.random()) * step))]

    def image(self, place: int, mode: str, copy: Path) -> int:
        """Make the image of a cut right after an entry; returns the position in the log. Places only grow."""
        loose: list[Entry] = []
        for entry in self.entries[self._flushed : place + 1]:
            if entry.kind == FLUSH:
                for write in loose:
                    os.pwrite(self._base, write.data, write.offset)
                self._flushed += len(loose) + 1
                loose = []
            else:
                loose.append(entry)
        shutil.copyfile(self._path, copy)
        with copy.open("r+b", buffering=0) as file:
            for offset, data in self._survivors(loose, mode):
                os.pwrite(file.fileno(), data, offset)
        return self.entries[place].end

    def _survivors(self, loose: list[Entry], mode: str) -> Iterator[tuple[int, bytes]]:
        if mode == "flushed" or not loose:
            return
        if mode == "subset":
            kept = [entry for entry in loose if self.chance.random() < 0.5]
            self.chance.shuffle(kept)
            yield from ((entry.offset, entry.data) for entry in kept)
            return
        *whole, last = loose
        yield from ((entry.offset, entry.data) for entry in whole)
        sectors = len(last.data) // SECTOR
        cut = len(last.data) if mode == "prefix" else self.chance.randrange(sectors or 1) * SECTOR
        yield last.offset, last.data[:cut]
