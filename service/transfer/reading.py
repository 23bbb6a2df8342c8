"""The records of a file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from shadowswitch.service.transfer.lines import Line, Shape, WrongLine, read_csv, read_json


def read_lines(stream: BinaryIO, format: str, shape: Shape, name: str) -> Iterator[Line]:
    """The records of a stream. Raises WrongLine with `name` and the number of the line, or of the row.

    Raises InvalidConfig for Parquet without the extra `parquet`.
    """
    reading = _reading(stream, format, shape)
    while True:
        try:
            line = next(reading, None)
        except WrongLine as error:
            raise WrongLine(f"{name}, line {error.args[1]}: {error.args[0]}") from error
        if line is None:
            return
        yield line


def _reading(stream: BinaryIO, format: str, shape: Shape) -> Iterator[Line]:
    if format == "parquet":
        from shadowswitch.service.transfer.parquet import read_parquet  # the extra `parquet`

        return read_parquet(stream, shape)
    return read_csv(stream, shape) if format == "csv" else read_json(stream, shape)
