"""`shadowswitch export`: the records of a branch, as lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from shadowswitch.model.names import check_resource_type
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Data, Json, open_catalog
from shadowswitch.service.cli.progress import Show, steps
from shadowswitch.service.transfer.exporting import Exported, Progressed, export
from shadowswitch.storage.catalog.environment import Catalog


def add_to(app: App) -> None:
    """Register the command."""
    app.command(export_, name="export")


def export_(
    branch: str,
    *,
    data: Data,
    resource_type: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    format: Literal["jsonl", "csv", "parquet"] = "jsonl",
    output_file: Annotated[Path | None, Parameter(name="--output", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Write the records of a branch to standard output or to a file, also beside a running host.

    `import` reads it again, into a branch of any data directory. LSNs and indexes are not part of it. A record that is
    written meanwhile is there as before, or as after.

    Example: `shadowswitch export main --data ./data > records.jsonl`

    Parameters
    ----------
    resource_type
        Only this resource type; may be repeated. Default: every type with records on the branch.
    format
        `jsonl` keeps every value as it is. `csv` has a column for each field; a value that is no text is there as JSON.
        `parquet` has typed columns, where every value of a field has the same type, and JSON where not.
    output_file
        A new file. It has its name when it is whole.
    """
    if json and output_file is None:
        raise ValueError("--json says what was written to a file: give --output")
    with open_catalog(data) as catalog, steps(quiet=output_file is None or json) as show:
        row = catalog.branch(branch)
        counts = catalog.counts(row.number)
        names = catalog.types()
        given = sorted({check_resource_type(name) for name in resource_type or ()})
        types = given or sorted(names[number] for number in counts if number in names)
        total = sum(count for number, count in counts.items() if names.get(number) in types)
        progressed = _shown(show, branch, total)
        if output_file is None:
            export(catalog, row, types, format, sys.stdout.buffer, progressed)
            return
        done = _to_file(catalog, branch, types, format, output_file, progressed)
    text = f"{output.counted(done.records, 'record')} written to {output_file} ({output.size(done.size_bytes)})"
    output.print_result(done, text, json)


def _shown(show: Show, branch: str, total: int) -> Progressed:
    return lambda done: show(f"export of {branch}", 100 * done / max(1, total), f"{done:,} of {total:,} records")


def _to_file(
    catalog: Catalog, branch: str, types: list[str], format: str, file: Path, progressed: Progressed
) -> Exported:
    if file.exists() or file.is_symlink():
        raise ValueError(f"{file} is there already; remove it, or name another file")
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as opened:
            done = export(catalog, catalog.branch(branch), types, format, opened, progressed)
            os.fsync(opened.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return done
