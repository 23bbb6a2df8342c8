"""Backends for tests. `SlowBackend`: a search for `slow` goes on until its time limit. `SlowRowsBackend`: a reading of
every row waits for `SLOW_ROWS_S` seconds (a variable of the environment) after each thousand."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit
from shadowswitch.storage.backends.kv.backend import KvBackend
from shadowswitch.storage.backends.kv.reader import KvReader
from shadowswitch.storage.backends.protocol import ShardState

SPEC = f"{__name__}:SlowBackend"
SLOW_ROWS = f"{__name__}:SlowRowsBackend"
SLOW_ROWS_S = "SLOW_ROWS_S"


class SlowReader(KvReader):
    def search(self, query: str, limit: int, *, time_limit: TimeLimit = UNLIMITED, **how: Any) -> list[Hit]:
        while query == "slow":
            time_limit.check()
            threading.Event().wait(0.01)
        return super().search(query, limit, time_limit=time_limit, **how)


class SlowBackend(KvBackend):
    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> SlowReader:
        return SlowReader(shards, options)


class SlowRowsReader(KvReader):
    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        state, versions = super().shard_versions(shard)
        return state, _slowly(versions, float(os.environ.get(SLOW_ROWS_S, "0")))


def _slowly(versions: Iterator[tuple[str, str, int]], pause_s: float) -> Iterator[tuple[str, str, int]]:
    for number, version in enumerate(versions, 1):
        yield version
        if number % 1000 == 0:
            threading.Event().wait(pause_s)


class SlowRowsBackend(KvBackend):
    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> SlowRowsReader:
        return SlowRowsReader(shards, options)
