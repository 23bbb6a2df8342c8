"""What an embedding costs before it is paid: the texts whose vectors are not kept yet, and the time for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shadowswitch.model.views import BuildCost
from shadowswitch.storage.backends.vector.cache import Cache, hash_of
from shadowswitch.storage.backends.vector.embedder import file_of, text_of

LOOKED_UP = 500
"""Texts of one question to the file of vectors."""
SHORT_BYTES = 8
"""Of the hash of a text: two of ten million are alike in one of 300,000 counts, which then misses one."""


class EmbeddingTally:
    """See `protocol.Tally`."""

    def __init__(self, options: Mapping[str, Any], data: Path) -> None:
        path = file_of(options, data)
        self._cache = Cache(path if path.is_file() else None, 4 * options["dimensions"])
        self._names: list[str] = options["field"]
        self._waiting: list[bytes] = []
        self._missing: set[bytes] = set()
        self._records = self._texts = 0

    def add(self, fields: Mapping[str, Any]) -> None:
        self._records += 1
        text = text_of(fields, self._names)
        if text:
            self._texts += 1
            self._waiting.append(hash_of(text))
            if len(self._waiting) == LOOKED_UP:
                self._look_up()

    def _look_up(self) -> None:
        asked, self._waiting = self._waiting, []
        known = self._cache.known(asked)
        self._missing.update(key[:SHORT_BYTES] for key in asked if key not in known)

    def cost(self) -> BuildCost:
        self._look_up()
        missing, text_s = len(self._missing), self._cache.text_s()
        seconds = missing * text_s if text_s is not None else None if missing else 0.0
        return BuildCost(self._records, self._texts, missing, seconds)

    def close(self) -> None:
        self._cache.close()
