"""Judgments: which records are right for a query, as records of the type `judgment` in the branch itself.

    {"query": "event loop", "resource_type": "object_type", "id": "user-1", "grade": 3, "pinned": false}

`grade` is a whole number from 0 (wrong) to 3 (the best). `pinned` marks a query that must not lose; it is optional, and
one pinned judgment pins its query. Of several judgments of one record for one query the newest counts. A judgment that
is wrong is named and left out: it never ends a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadowswitch.model.search.bounds import QUERY_CHARS_MAX
from shadowswitch.model.search.relevance import GRADE_MAX, Key

NAMED_MAX = 10


class Judgments:
    """The judgments of a branch, by query. One thread."""

    def __init__(self) -> None:
        self.grades: dict[str, dict[Key, int]] = {}
        self.pinned: set[str] = set()
        self.wrong: list[str] = []
        """What is wrong with the first of those that are left out, by the id of the judgment."""
        self.left_out = 0
        self._lsns: dict[tuple[str, Key], int] = {}

    def add(self, id: str, lsn: int, fields: Mapping[str, Any]) -> None:
        """Take a record of the type `judgment`."""
        problem = _problem(fields)
        if problem:
            self.leave_out(id, problem)
            return
        query, key = fields["query"], (fields["resource_type"], fields["id"])
        if self._lsns.get((query, key), -1) < lsn:
            self._lsns[query, key] = lsn
            self.grades.setdefault(query, {})[key] = fields["grade"]
        if fields.get("pinned"):
            self.pinned.add(query)

    def leave_out(self, id: str, problem: str) -> None:
        """Note a judgment that does not count."""
        self.left_out += 1
        if len(self.wrong) < NAMED_MAX:
            self.wrong.append(f"{id[:80]!r}: {problem}")

    def judged(self) -> list[str]:
        """The queries with a record of a grade above 0, the pinned ones first, otherwise by name."""
        found = [query for query, grades in self.grades.items() if any(grades.values())]
        return sorted(found, key=lambda query: (query not in self.pinned, query))


def _problem(fields: Mapping[str, Any]) -> str:
    for name in ("query", "resource_type", "id"):
        value = fields.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"{name} is {value!r:.80}, not a text"
    if len(fields["query"]) > QUERY_CHARS_MAX:
        return f"the query is longer than {QUERY_CHARS_MAX} characters"
    grade = fields.get("grade")
    if isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade <= GRADE_MAX:
        return f"grade is {grade!r:.80}, not a whole number from 0 to {GRADE_MAX}"
    if not isinstance(fields.get("pinned", False), bool):
        return f"pinned is {fields['pinned']!r:.80}, not true or false"
    return ""
