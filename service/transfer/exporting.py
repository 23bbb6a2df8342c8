"""The records of a branch as lines of a file, read from the catalog as it is, also beside a running host."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.records import Item
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.catalog.rows import BranchRow

SLICE_ROWS = 500
Progressed = Callable[[int], None]
"""Receives the records done."""
OWN_COLUMNS = ("resource_type", "id")


class Exported(msgspec.Struct):
    """The result."""

    records: int = 0
    size_bytes: int = 0


def export(
    catalog: Catalog, branch: BranchRow, types: Sequence[str], format: str, out: BinaryIO, progressed: Progressed
) -> Exported:
    """Write the records of these types; a record that is written meanwhile may be there as it was before.

    Raises ValueError for a field that has the name of a column of CSV, CorruptData, OSError.
    """
    done = Exported()
    if format == "parquet":
        return _as_parquet(catalog, branch, types, out, progressed)
    lines = _csv_lines(catalog, branch, types) if format == "csv" else _json_lines(catalog, branch, types)
    for count, text in lines:
        out.write(text)
        done.records += count
        done.size_bytes += len(text)
        progressed(done.records)
    out.flush()
    return done


def _slices(catalog: Catalog, branch: BranchRow, types: Sequence[str]) -> Iterator[list[Item]]:
    numbers = catalog.type_numbers()
    for name in types:
        cursor, done = b"", name not in numbers
        while not done:
            found = read_records(catalog, branch.number, numbers[name], name, range(BUCKETS), cursor, SLICE_ROWS)
            cursor, done = found.cursor, found.done
            yield found.items


def _json_lines(catalog: Catalog, branch: BranchRow, types: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    encode = msgspec.json.Encoder().encode_lines
    for items in _slices(catalog, branch, types):
        records = [{"resource_type": one.resource_type, "id": one.id, "fields": one.fields} for one in items]
        yield len(records), encode(records)


def _csv_lines(catalog: Catalog, branch: BranchRow, types: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """The columns are the fields of all records, which are read twice. A value that is no text is there as JSON."""
    columns = dict.fromkeys(
        name for items in _slices(catalog, branch, types) for item in items for name in item.fields or {}
    )
    own = [name for name in OWN_COLUMNS if name in columns]
    if own:
        raise ValueError(f"a record has a field {own[0]!r}, which is a column of the CSV; use --format jsonl")
    yield 0, _row([*OWN_COLUMNS, *columns])
    for items in _slices(catalog, branch, types):
        rows = [
            _row([one.resource_type, one.id, *(_cell((one.fields or {}).get(name)) for name in columns)])
            for one in items
        ]
        yield len(rows), b"".join(rows)


def _as_parquet(
    catalog: Catalog, branch: BranchRow, types: Sequence[str], out: BinaryIO, progressed: Progressed
) -> Exported:
    """The records are read twice, as for CSV. A field that comes between is an error of the second time."""
    from shadowswitch.service.transfer.parquet import Columns, Rows  # the extra `parquet`

    columns, done, counted = Columns(), Exported(), _Counted(out)
    for items in _slices(catalog, branch, types):
        for item in items:
            columns.learn(item)
    rows = Rows(counted, columns)
    for items in _slices(catalog, branch, types):
        for item in items:
            rows.add(item)
        done.records += len(items)
        progressed(done.records)
    rows.close()
    out.flush()
    done.size_bytes = counted.tell()
    return done


class _Counted(io.RawIOBase):
    """A stream that counts what was written: a pipe has no place."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._out.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written


def _row(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
