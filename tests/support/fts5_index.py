"""One shard of the fts5 backend, with its writer and a reader, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.fts5.backend import Fts5Backend

BACKEND = Fts5Backend()


def put(lsn: int, id: str, /, **fields: Any) -> Item:
    return Item(lsn, "t", id, key_hash("t", id), fields)


class Index:
    """One shard with its writer and a reader."""

    def __init__(self, path: Path, options: dict[str, Any] | None = None, **build_config: Any) -> None:
        """With canonical options, or with those of a `build_config`."""
        self.path = path
        self.options = options or BACKEND.configure(build_config)
        BACKEND.create_shard(path, self.options)
        self.writer = BACKEND.open_writer(path, self.options)
        self.reader = BACKEND.open_reader([path], self.options)
        self.lsn = 0

    def add(self, **texts: Any) -> None:
        """Put records with a field `body` (or the given fields)."""
        items = []
        for id, text in texts.items():
            self.lsn += 1
            items.append(put(self.lsn, id, **(text if isinstance(text, dict) else {"body": text})))
        self.writer.apply(items, self.lsn)

    def find(self, query: str, limit: int = 10) -> list[str]:
        return [hit.id for hit in self.reader.search(query, limit)]

    def close(self) -> None:
        self.reader.close()
        self.writer.close()
