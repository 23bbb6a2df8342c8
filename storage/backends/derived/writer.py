"""The writer of a shard with entries: those of a row change in the transaction of the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lmdb

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.writer import KvWriter, Project

Derive = Callable[[str, str, Mapping[str, Any]], Iterable[entries.Entry]]
"""The entries of a record: by its resource type, id and fields. Pure; it raises nothing, whatever the fields are."""


class DerivedWriter(KvWriter):
    """See `protocol.SeedableWriter`. One thread at a time, any thread."""

    def __init__(self, environment: store.Environment, project: Project, derive: Derive) -> None:
        super().__init__(environment, project)
        self._derive = derive

    def _stored(self, transaction: lmdb.Transaction[bytes], key: bytes, item: Item) -> None:
        found = self._derive(item.resource_type, item.id, item.fields or {})
        entries.store(transaction, derived_of(self._opened()), key, found)

    def _left(self, transaction: lmdb.Transaction[bytes], key: bytes) -> None:
        entries.remove(transaction, derived_of(self._opened()), key)


def derived_of(environment: store.Environment) -> tuple[Any, ...]:
    """The databases of the entries. Raises CorruptData for a shard without them."""
    if not environment.derived:
        hint = "build the index again"
        raise CorruptData("the shard has no databases of entries", object=str(environment.path), hint=hint)
    return environment.derived
