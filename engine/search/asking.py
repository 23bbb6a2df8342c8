"""One query of several open readers, merged by rank. On the caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shadowswitch.engine.reader import Reader
from shadowswitch.engine.search.showing import Fields
from shadowswitch.model.search.merged import Index, MergedHit, merge_by_rank


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
        index: reader.search(
            query, limit, resource_types=resource_types, where=where, fields=fields, highlight=highlight,
            timeout_s=left_s(),
        )
        for index, reader in readers.items()
    }  # fmt: skip
    return merge_by_rank(found, limit)
