"""`shadowswitch query`: what an index answers beyond search."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.model.search.bounds import SEARCH_TIMEOUT_S
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Data, Json
from shadowswitch.service.cli.read_commands import given_object, opened_reader


def add_to(app: App) -> None:
    """Register the command."""
    app.command(query)


def query(
    branch: str,
    index_type: str,
    kind: str,
    call: str,
    arguments: str = "{}",
    *,
    data: Data,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = SEARCH_TIMEOUT_S,
    shadow: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
) -> None:
    """Ask an index a query of a kind that it answers: the links of a record, what a schema uses. Works beside a host.

    Kinds and calls: docs/query-kinds.md. A key is a list of resource type and id.

    Example: `shadowswitch query main GRAPH_INDEX graph neighbours '{"key": ["object_type", "o1"]}' --data ./data`

    Parameters
    ----------
    kind
        The query kind, such as graph.
    call
        The query, such as neighbours.
    arguments
        Its arguments, as a JSON object.
    timeout
        Stop a query that takes longer than so many seconds.
    shadow
        Ask this shadow, which is BUILT, live or soaking: its id, or the beginning of its id.
    """
    given = given_object(arguments, "ARGUMENTS")
    with opened_reader(data, branch, index_type, shadow) as reader:
        result = reader.query(kind, call, given, timeout_s=timeout)
        lsn, generation = reader.lsn, reader.generation
    found = msgspec.to_builtins(result, str_keys=True)
    rows = found if isinstance(found, list) else []
    if json or not rows or not all(isinstance(row, dict) for row in rows):
        output.print_json({"result": found, "lsn": lsn, "generation": generation})
        return
    columns = list(rows[0])
    title = f"{output.counted(len(rows), 'row')}, LSN {lsn}, generation {generation}"
    output.print_table(title, columns, [[output.cell(row.get(name)) for name in columns] for row in rows])
