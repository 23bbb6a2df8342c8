"""The data directory as commands open it: read only beside a running host, or with an engine of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.service import host_file
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog

Data = Annotated[Path, Parameter(help="The data directory.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="Print one JSON value and nothing else.")
]

OURS = frozenset({data_directory.LOCK, data_directory.CATALOG, data_directory.GENERATIONS, "published", host_file.NAME})
"""What may lie in a directory in which an engine was only just started."""


class Refused(Exception):
    """The answer is no: exit status 1. What there is to say has been printed."""


class NotADataDirectory(ShadowSwitchError):
    """Nothing of ours lies there (status 1), or something else does."""


def holds_data(data: Path) -> bool:
    """Is this a data directory of shadowswitch?"""
    return (data / data_directory.CATALOG / "data.mdb").is_file()


def _require_data(data: Path) -> None:
    if holds_data(data):
        return
    what = "is not a data directory of shadowswitch" if data.exists() else "does not exist"
    raise NotADataDirectory(f"{data} {what}", hint="give the right path with --data, or make one with import")


def require_free(data: Path) -> None:
    """Raise ValueError where a new data directory would be laid among somebody else's files."""
    if data.exists() and not data.is_dir():
        raise ValueError(f"{data} is not a folder")
    if data.is_dir() and not holds_data(data):
        strange = sorted(path.name for path in data.iterdir() if path.name not in OURS)
        if strange:
            raise ValueError(f"{data} is not a data directory and holds {strange[0]!r}; give a new or empty folder")


@contextlib.contextmanager
def open_catalog(data: Path) -> Iterator[Catalog]:
    """The catalog of a data directory, read only, beside whatever host has it open. Raises NotADataDirectory."""
    _require_data(data)
    catalog = Catalog(data / data_directory.CATALOG, readonly=True)
    try:
        yield catalog
    finally:
        catalog.close()


@contextlib.contextmanager
def open_engine(data: Path, make: bool = False) -> Iterator[Engine | RemoteEngine]:
    """The engine of the server that has the directory open, or one of this process. Raises NotADataDirectory, or
    ValueError when one cannot be made there, and EngineAlreadyOpen, naming a holder that is no server."""
    found = host_file.read(data)
    if found is not None:
        with open_catalog(data) as catalog, contextlib.closing(RemoteEngine(found, data, catalog)) as engine:
            yield engine
        return
    if make:
        require_free(data)
    else:
        _require_data(data)
    with Engine.open(data) as own:
        yield own
