"""A backend for tests: a search for `slow` goes on until its time limit."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit
from shadowswitch.storage.backends.kv.backend import KvBackend
from shadowswitch.storage.backends.kv.reader import KvReader

SPEC = f"{__name__}:SlowBackend"


class SlowReader(KvReader):
    def search(self, query: str, limit: int, *, time_limit: TimeLimit = UNLIMITED, **how: Any) -> list[Hit]:
        while query == "slow":
            time_limit.check()
            threading.Event().wait(0.01)
        return super().search(query, limit, time_limit=time_limit, **how)


class SlowBackend(KvBackend):
    def open_reader(self, shards: Sequence[Path], options: Mapping[str, Any]) -> SlowReader:
        return SlowReader(shards, options)
