"""Hits that can be shown: with the fields of the version that was found, and the places of the query in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.search.snippets import Snippet, snippet
from shadowswitch.storage.backends.protocol import Marked
from shadowswitch.storage.catalog.filtered_search import Behind, Versions, answered

FIELDS_MAX = 100
"""The most names of one search."""

Fields = Sequence[str] | bool | None
"""Names, True for all, None or False for none."""
Marks = Callable[[str, Sequence[Mapping[str, Any]]], list[dict[str, Marked]]]


def check_fields(fields: Fields) -> Fields:
    """The fields that a search is to show. Raises InvalidConfig."""
    if fields is None or isinstance(fields, bool):
        return fields
    hint = f'name up to {FIELDS_MAX} fields, ["title"], or say True for all'
    if isinstance(fields, str) or not isinstance(fields, Sequence) or len(fields) > FIELDS_MAX:
        raise InvalidConfig("fields is no list of names", operation="search", hint=hint)
    if not all(isinstance(name, str) for name in fields):
        raise InvalidConfig("fields has a name that is no string", operation="search", hint=hint)
    return list(fields)


class Showing:
    """What one search shows of its hits. One thread."""

    def __init__(self, query: str, fields: Fields, marks: Marks | None, versions: Versions, limit: TimeLimit) -> None:
        """Without `marks` no place is looked for."""
        self._query = query
        self._fields = fields
        self._marks = marks
        self._versions = versions
        self._limit = limit

    @property
    def is_plain(self) -> bool:
        """Hits are shown as the index gives them."""
        return (self._fields is None or self._fields is False) and self._marks is None

    def of_search(self, search: Callable[[], list[Hit]]) -> list[Hit]:
        """The hits of a search with what is to be shown. It is made again where a version is gone that the index shows.

        Raises Timeout, CorruptData.
        """
        if self.is_plain:
            return search()
        return answered(lambda: self._shown(search(), True), self._versions, self._limit)

    def of_hits(self, hits: list[Hit]) -> list[Hit]:
        """Hits of an earlier search; one whose version is gone stays without fields. Raises Timeout, CorruptData."""
        return hits if self.is_plain else self._shown(hits, False)

    def _shown(self, hits: list[Hit], every: bool) -> list[Hit]:
        """Raises Behind for a version that is gone, if `every` hit needs its own."""
        records = list(self._versions.of(hits, self._limit))
        if every and None in records:
            raise Behind
        places: Sequence[dict[str, Marked] | None] = [None] * len(hits)
        if self._marks is not None:
            places = self._marks(self._query, [record or {} for record in records])
        return [
            msgspec.structs.replace(hit, fields=self._chosen(fields), highlights=_snippets(found))
            for hit, fields, found in zip(hits, records, places, strict=True)
        ]

    def _chosen(self, fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if fields is None:
            return None
        if isinstance(self._fields, bool) or self._fields is None:
            return dict(fields) if self._fields else None
        return {name: fields[name] for name in self._fields if name in fields}


def _snippets(found: dict[str, Marked] | None) -> dict[str, Snippet] | None:
    return None if found is None else {field: snippet(text, marks) for field, (text, marks) in found.items()}
