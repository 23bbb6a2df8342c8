"""Reads the judgments of a branch. In a worker process: a branch may have many thousands."""

from __future__ import annotations

from collections.abc import Callable

from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.search.judgments import Judgments
from shadowswitch.model.search.relevance import JUDGMENT
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.reading import Count

SLICE = 500
JUDGMENTS_MAX = 100_000


def read_judgments(catalog: Catalog, branch: int, looked: Count, is_late: Callable[[], bool]) -> Judgments:
    """The judgments of a branch as they are now, up to a bound; further ones are named as left out."""
    found = Judgments()
    number = next((number for number, name in catalog.types().items() if name == JUDGMENT), None)
    cursor, done, count = b"", number is None, 0
    while not done and number is not None:
        chunk = read_records(
            catalog, branch, number, JUDGMENT, range(BUCKETS), cursor, SLICE,
            lambda id: found.leave_out(id, "the record is damaged"),
        )  # fmt: skip
        for item in chunk.items:
            found.add(item.id, item.lsn, item.fields or {})
        cursor, done, count = chunk.cursor, chunk.done, count + len(chunk.items)
        looked(len(chunk.items))
        if not done and (count >= JUDGMENTS_MAX or is_late()):
            found.leave_out("", f"only {count} judgments were read, there are more")
            break
    return found
