"""Records as lines: JSON lines and CSV.

    {"resource_type": "page", "id": "p1", "fields": {"title": "Home"}}      as `export` writes them
    {"id": 1, "title": "Home"}                                              an object: each further key is a field
    id,title                                                                CSV with a head: each cell that is not
    1,Home                                                                  empty is a text

An object names its id in `id`, or in the key that the caller says. One without `resource_type` has that of the caller.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

from shadowswitch.model.records import Put

LINE_BYTES_MAX = 64 << 20
RECORD_KEYS = {"resource_type", "id", "fields", "lsn"}


class WrongLine(ValueError):
    """A line that is no record."""


class Line(NamedTuple):
    """A record, and where it was: the number of its line, from 1, and the bytes up to its end."""

    number: int
    end: int
    put: Put


class Shape(NamedTuple):
    """What the caller says of objects and rows: their resource type, and the key of their id."""

    resource_type: str = ""
    id_key: str = "id"


def read_json(stream: BinaryIO, shape: Shape) -> Iterator[Line]:
    """The records of JSON lines. Raises WrongLine with the number of the line."""
    decode = msgspec.json.Decoder().decode
    number = end = 0
    while text := stream.readline(LINE_BYTES_MAX):
        number += 1
        end += len(text)
        if len(text) == LINE_BYTES_MAX:
            raise WrongLine(f"it has more than {LINE_BYTES_MAX >> 20} MiB", number)
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if not text.strip():
            continue
        try:
            found = decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WrongLine(f"it is no JSON: {error}", number) from error
        yield Line(number, end, _at(number, _put, found, shape))


def read_csv(stream: BinaryIO, shape: Shape) -> Iterator[Line]:
    """The records of CSV with a head. Raises WrongLine with the number of the line."""
    csv.field_size_limit(LINE_BYTES_MAX)
    counted = _Counted(stream)
    rows = csv.reader(io.TextIOWrapper(io.BufferedReader(counted), "utf-8-sig", newline=""), strict=True)
    head: list[str] = []
    while True:
        try:
            row = next(rows, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise WrongLine(f"it is no CSV in UTF-8: {error}", rows.line_num + 1) from error
        if row is None:
            return
        if not head:
            head = row
            if len({*head}) != len(head) or "" in head:
                raise WrongLine("the head names each column once", rows.line_num)
        elif row:
            if len(row) != len(head):
                raise WrongLine(f"it has {len(row)} cells, and the head has {len(head)}", rows.line_num)
            cells = {name: cell for name, cell in zip(head, row, strict=True) if cell}
            yield line_of(rows.line_num, counted.read_bytes, cells, shape)


class _Counted(io.RawIOBase):
    """A stream that counts what was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self.read_bytes += len(part)
        return len(part)


def line_of(number: int, end: int, found: dict[str, Any], shape: Shape) -> Line:
    """An object, such as a row of a table, as a line. Raises WrongLine."""
    return Line(number, end, _at(number, _object, found, shape))


def _at(number: int, make: Callable[[Any, Shape], Put], found: Any, shape: Shape) -> Put:
    try:
        return make(found, shape)
    except WrongLine as error:
        raise WrongLine(error.args[0], number) from error


def _put(found: Any, shape: Shape) -> Put:
    if not isinstance(found, dict):
        raise WrongLine("it is no object")
    if "id" in found and isinstance(found.get("fields"), dict) and found.keys() <= RECORD_KEYS:
        return Put(_type_of(found, shape), _id_of(found["id"], "id"), found["fields"])
    return _object(found, shape)


def _object(found: dict[str, Any], shape: Shape) -> Put:
    if shape.id_key not in found:
        raise WrongLine(f"it has no {shape.id_key!r} to be the id of the record (--id-field)")
    fields = {name: value for name, value in found.items() if name not in ("resource_type", shape.id_key)}
    return Put(_type_of(found, shape), _id_of(found[shape.id_key], shape.id_key), fields)


def _type_of(found: dict[str, Any], shape: Shape) -> str:
    resource_type = found.get("resource_type", shape.resource_type)
    if not isinstance(resource_type, str) or not resource_type:
        raise WrongLine("it has no resource_type, and none is given (--resource-type)")
    return resource_type


def _id_of(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise WrongLine(f"its {key} is {value!r:.80}, not a text or a whole number")
    return str(value)
