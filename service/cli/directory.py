"""The data directory of a command: its read-only catalog beside a running host, or an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter, Token
from cyclopts.validators import Number

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.views import SWITCH_TIMEOUT_S_MAX, SwitchRequest
from shadowswitch.service import host_file
from shadowswitch.service.cli import output
from shadowswitch.service.daemon import settings
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog

DATA_VARIABLE = "SHADOWSWITCH_DATA"


def _directory(kind: Any, tokens: Sequence[Token]) -> Path:
    """The path of a data directory. An empty text is no path: `Path("")` would be the working directory."""
    if not tokens[0].value:
        raise ValueError(f"the path is empty; give a data directory with --data or {DATA_VARIABLE}")
    return Path(tokens[0].value)


Data = Annotated[Path, Parameter(env_var=DATA_VARIABLE, converter=_directory, n_tokens=1, help="The data directory.")]
ShadowId = Annotated[str, Parameter(help="The id of a shadow, or its beginning if no other shadow has it.")]
Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print one JSON value and nothing else, also for an error."
    ),
]
By = Annotated[
    str, Parameter(show_default=False, help="The author, for the audit history. Default: the user, host and process.")
]
AllowEmpty = Annotated[
    bool, Parameter(negative="", show_default=False, help="An index, or a resource type of it, may have no records.")
]
Checks = Annotated[
    list[str] | None,
    Parameter(
        name="--check", negative="", show_default=False,
        help="A further check before the switch, such as RELEVANCE or QUERY_COMPARISON; may be repeated.",
    ),
]  # fmt: skip
Force = Annotated[bool, Parameter(negative="", show_default=False, help="Override advisory checks; never the digest.")]
BreakGroup = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Switch a member of a group alone, and break the group up."),
]
SwitchTimeout = Annotated[
    float,
    Parameter(
        validator=Number(gt=0, lte=SWITCH_TIMEOUT_S_MAX),
        help="Seconds; a switch that has not come to its commit by then is given up, and nothing is changed.",
    ),
]
Reason = Annotated[str, Parameter(show_default=False, help="The reason, for the audit history.")]

OURS = frozenset(
    {data_directory.LOCK, data_directory.CATALOG, data_directory.GENERATIONS, "published", host_file.NAME}
    | {settings.FILE_NAME}
)
"""The entries of a directory in which an engine has just started."""


def with_checks(request: SwitchRequest, names: Sequence[str] | None) -> SwitchRequest:
    """A request with further checks. An unknown name is refused by the engine."""
    checks = tuple(dict.fromkeys([*request.validation_checks, *(names or ())]))
    return msgspec.structs.replace(request, validation_checks=checks)


class Refused(Exception):
    """The operation was refused: exit status 1. The command has printed the reason."""


class NotADataDirectory(ShadowSwitchError):
    """The folder does not exist, or has no data of shadowswitch."""


def holds_data(data: Path) -> bool:
    """Is the folder a data directory of shadowswitch?"""
    return (data / data_directory.CATALOG / data_directory.DATA_FILE).is_file()


def require_data(data: Path) -> None:
    """Raise NotADataDirectory unless the folder is a data directory; CorruptData where its catalog is lost."""
    data_directory.refuse_lost_catalog(data)
    if holds_data(data):
        _warn_of_others(data)
        return
    what = "is not a data directory of shadowswitch" if data.exists() else "does not exist"
    raise NotADataDirectory(
        f"{data} {what}", hint=f"give the right path with --data or {DATA_VARIABLE}, or create one with import"
    )


def _warn_of_others(data: Path) -> None:
    exposed = data_directory.written_by_others(data, data_directory.EXPOSED)
    if exposed:
        output.warn(exposed)


def require_free(data: Path) -> None:
    """Raise ValueError where a new data directory would mix with other files."""
    if data.exists() and not data.is_dir():
        raise ValueError(f"{data} is not a folder")
    if data.is_dir() and not holds_data(data):
        strange = sorted(path.name for path in data.iterdir() if path.name not in OURS)
        if strange:
            raise ValueError(f"{data} is not a data directory and holds {strange[0]!r}; give a new or empty folder")


@contextlib.contextmanager
def open_catalog(data: Path) -> Iterator[Catalog]:
    """The read-only catalog of a data directory, also beside a running host. Raises NotADataDirectory."""
    require_data(data)
    with contextlib.closing(Catalog(data / data_directory.CATALOG, readonly=True)) as catalog:
        yield catalog


@contextlib.contextmanager
def open_engine(data: Path, create: bool = False) -> Iterator[Engine | RemoteEngine]:
    """The engine of the server that has the directory open; without a server, an engine in this process.

    Raises NotADataDirectory; with `create`, ValueError for a folder with other files; EngineAlreadyOpen when a process
    that is no server has the directory open.
    """
    found = host_file.read(data)
    if found is not None:
        with open_catalog(data) as catalog, contextlib.closing(RemoteEngine(found, data, catalog)) as engine:
            yield engine
        return
    if create:
        require_free(data)
        if data.is_dir():
            _warn_of_others(data)
    else:
        require_data(data)
    with Engine.open(data, settings.engine_config(data)) as own:
        yield own
