"""One query of several readers: texts by their words, vectors by the nearest, merged by rank. The caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shadowswitch.engine.reader import Reader
from shadowswitch.engine.search.showing import Fields
from shadowswitch.model.records import Hit
from shadowswitch.model.search.merged import Index, MergedHit, merge_by_rank


def ask(
    reader: Reader,
    query: str,
    limit: int,
    resource_types: Sequence[str] | None,
    where: Mapping[str, Any] | None,
    fields: Fields,
    highlight: bool,
    timeout_s: float,
) -> list[Hit]:
    """The best hits of an index for a text. A vector index without an embedder raises InvalidConfig."""
    if "vector" in reader.kinds:
        return reader.vector.nearest(query, limit, where, resource_types, fields, timeout_s)
    return reader.search(
        query, limit, resource_types=resource_types, where=where, fields=fields, highlight=highlight,
        timeout_s=timeout_s,
    )  # fmt: skip


def ask_all(
    readers: Mapping[Index, Reader],
    query: str,
    limit: int,
    resource_types: Sequence[str] | None,
    where: Mapping[str, Any] | None,
    fields: Fields,
    highlight: bool,
    left_s: Callable[[], float],
) -> list[MergedHit]:
    """The best hits of open readers. `left_s` is the time for those that are left; it raises when there is none."""
    found = {
        index: ask(reader, query, limit, resource_types, where, fields, highlight, left_s())
        for index, reader in readers.items()
    }
    return merge_by_rank(found, limit)
