"""Live indexes by page: what is read costs as much as what is asked for, however many indexes there are.

The order is that of the keys: the number of the branch, then the index type. The place of an index in it is a text,
`7/SEARCH_INDEX`, which a switch does not change.
"""

from __future__ import annotations

from collections.abc import Iterator

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import IndexRow, decode_index

SLICE = 100
"""Rows that one transaction reads."""
PLACE_CHARS_MAX = 80


def place_of(row: IndexRow) -> str:
    """The place of an index in the list."""
    return f"{row.branch}/{row.index_type}"


def index_pages(catalog: Catalog, branch: int | None = None, after: str = "") -> Iterator[IndexRow]:
    """The indexes with a live generation behind a place, of one branch or of all. Raises InvalidConfig for no place."""
    prefix = BRANCH.pack(branch) if branch is not None else b""
    last = max(_key(after), prefix)
    while True:
        found: list[IndexRow] = []
        with catalog.read() as txn:
            cursor = txn.cursor(catalog.db["indexes"])
            there = cursor.set_range(last + b"\0")  # the next one: no type begins with a NUL
            while there and len(found) < SLICE and bytes(cursor.key()).startswith(prefix):
                found.append(decode_index(cursor.value()))
                there = cursor.next()
        yield from (row for row in found if row.live)
        if len(found) < SLICE:
            return
        last = _key(place_of(found[-1]))


def _key(place: object) -> bytes:
    if place == "":
        return b""
    number, _, index_type = place.partition("/") if isinstance(place, str) else ("", "", "")
    fits = number.isascii() and number.isdecimal() and len(number) <= 10 and int(number) < 1 << 32
    if not fits or not index_type or not index_type.isascii() or len(index_type) > PLACE_CHARS_MAX:
        raise InvalidConfig(f"{place!r:.80} is no place of an index", hint="use the `place` of the last one of a page")
    return BRANCH.pack(int(number)) + index_type.encode()
