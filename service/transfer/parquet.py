"""Records as Parquet, by pyarrow: a column for each field, typed where every value of it has that type.

A field whose values are all texts, whole numbers of 64 bits, other numbers or truths has a column of that type, without
a value where a record has no such field. Any other one has its values as JSON, which its column says in its metadata.
So an import gives the same records. The records are read twice: for the types, and for the rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, datetime
from datetime import time as dt_time
from decimal import Decimal
from typing import Any, BinaryIO
from uuid import UUID

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.records import Item
from shadowswitch.service.transfer.lines import Line, Shape, WrongLine, line_of

try:
    import pyarrow
    from pyarrow import parquet
except ImportError as error:
    raise InvalidConfig(
        "Parquet needs the package pyarrow, which is not installed", hint="pip install 'shadowswitch[parquet]'"
    ) from error

OWN = ("resource_type", "id")
ROWS_OF_A_GROUP, BYTES_OF_A_GROUP = 50_000, 64 << 20
READ_ROWS = 500
MARK, JSON = b"shadowswitch", b"json"
INT64 = range(-(1 << 63), 1 << 63)
TYPES: dict[str, Any] = {
    "str": pyarrow.string(),
    "int": pyarrow.int64(),
    "float": pyarrow.float64(),
    "bool": pyarrow.bool_(),
}


class Columns:
    """The columns of records, learned from all of them."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def learn(self, item: Item) -> None:
        """Look at a record."""
        for name, value in (item.fields or {}).items():
            kind = type(value).__name__
            if kind == "int" and value not in INT64:
                kind = "large"
            self._kinds.setdefault(name, set()).add(kind)

    def is_json(self, name: str) -> bool:
        """Has the column its values as JSON?"""
        kinds = self._kinds[name]
        return len(kinds) > 1 or not kinds <= TYPES.keys()

    def knows(self, item: Item) -> bool:
        """Has each field of a record a column of its type? Not if it was written since the columns were learned."""
        for name, value in (item.fields or {}).items():
            kinds = self._kinds.get(name, ())
            kind = type(value).__name__
            if not kinds or (not self.is_json(name) and (kind not in kinds or (kind == "int" and value not in INT64))):
                return False
        return True

    def schema(self) -> Any:
        """The schema. Raises ValueError for a field that has the name of an own column."""
        own = [name for name in OWN if name in self._kinds]
        if own:
            raise ValueError(f"a record has a field {own[0]!r}, which is a column of the file; use --format jsonl")
        fields = [pyarrow.field(name, pyarrow.string(), nullable=False) for name in OWN]
        for name, kinds in self._kinds.items():
            if self.is_json(name):
                fields.append(pyarrow.field(name, pyarrow.string(), metadata={MARK: JSON}))
            else:
                fields.append(pyarrow.field(name, TYPES[next(iter(kinds))]))
        return pyarrow.schema(fields)


class Rows:
    """Writes records to a stream, in groups of rows. `close` ends the file."""

    def __init__(self, out: io.RawIOBase, columns: Columns) -> None:
        self._columns, self._schema = columns, columns.schema()
        self._json = {name for name in self._schema.names if name not in OWN and columns.is_json(name)}
        self._writer = parquet.ParquetWriter(out, self._schema, compression="zstd")
        self._begin()

    def _begin(self) -> None:
        self._cells: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._rows = self._size_bytes = 0

    def add(self, item: Item) -> None:
        """One record. Raises ValueError for one whose fields have no column."""
        fields = item.fields or {}
        if not self._columns.knows(item):
            raise ValueError(
                f"the record {item.resource_type} {item.id[:80]!r} was written meanwhile, and a field of it has no"
                " column; export again"
            )
        for name, cells in self._cells.items():
            value = fields.get(name)
            if name in self._json and name in fields:
                value = msgspec.json.encode(value).decode()
            cells.append(value)
            self._size_bytes += len(value) if isinstance(value, str) else 8
        self._cells["resource_type"][-1], self._cells["id"][-1] = item.resource_type, item.id
        self._rows += 1
        if self._rows >= ROWS_OF_A_GROUP or self._size_bytes >= BYTES_OF_A_GROUP:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._writer.write_table(pyarrow.table(self._cells, schema=self._schema))
        self._begin()

    def close(self) -> None:
        """Write the last rows, and the end of the file."""
        self._write()
        self._writer.close()


def _plain(value: Any) -> Any:
    """A value as JSON has it: a date or a time is its text, and so is a decimal number."""
    if isinstance(value, datetime | date | dt_time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID) else value


def read_parquet(stream: BinaryIO, shape: Shape) -> Iterator[Line]:
    """The records of a file, which can be read anywhere. Raises WrongLine with the number of a row."""
    try:
        file = parquet.ParquetFile(stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise WrongLine(f"it is no Parquet: {' '.join(str(error).split())}", 0) from error
    as_json = [field.name for field in file.schema_arrow if (field.metadata or {}).get(MARK) == JSON]
    size, rows, number = stream.seek(0, 2), max(1, file.metadata.num_rows), 0
    for batch in file.iter_batches(READ_ROWS):
        for row in batch.to_pylist():
            number += 1
            found = {name: _plain(value) for name, value in row.items() if value is not None}
            try:
                found |= {name: msgspec.json.decode(found[name]) for name in as_json if name in found}
            except (msgspec.DecodeError, TypeError) as error:
                raise WrongLine(f"a value that is marked as JSON is none: {error}", number) from error
            yield line_of(number, size * number // rows, found, shape)
