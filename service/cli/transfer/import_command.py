"""`shadowswitch import`: a folder of text files, or the records of a file, into a branch."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from cyclopts import App, Parameter

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import By, Data, Json, Reason, open_engine
from shadowswitch.service.cli.progress import Show, steps
from shadowswitch.service.daemon.importer import Imported, Progressed, ensure_branch, import_folder
from shadowswitch.service.daemon.text_files import counts_text
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.service.transfer.importing import ImportedRecords, RecordImport
from shadowswitch.service.transfer.lines import Shape, WrongLine
from shadowswitch.service.transfer.reading import read_lines

Format = Literal["jsonl", "csv", "parquet"]
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STANDARD = Path("-")


def add_to(app: App) -> None:
    """Register the command."""
    app.command(import_, name="import")


def import_(
    branch: str,
    source: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    data: Data,
    format: Annotated[Format | None, Parameter(show_default=False)] = None,
    resource_type: Annotated[str, Parameter(show_default=False)] = "",
    id_field: Annotated[str, Parameter(show_default=False)] = "",
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Import records of a file (JSON lines, CSV, Parquet, `-` for standard input), or a folder of text files.

    Creates a missing data directory or branch. What the branch has already is not written again: an import that ended
    early is begun again. Of a folder each text file becomes a record of type `file`; it leaves out binary files, files
    too large for a record, symbolic links, and folders such as `.git`.

    Example: `shadowswitch import main ./texts --data ./data`, `shadowswitch import main pages.csv --resource-type page`

    Parameters
    ----------
    source
        A file or a folder. A line of JSON is a record as `export` writes it, or an object of which each key is a field.
    format
        Of a file; by default by its name, and `jsonl` for standard input.
    resource_type
        The resource type of records that name none.
    id_field
        The key or column with the id of a record. Default: `id`.
    """
    if source.is_dir() and not (format or resource_type or id_field):
        _import_folder(branch, source, data, by, reason, json)
    elif source.is_file() or source == STANDARD:
        shape = Shape(resource_type, id_field or "id")
        _import_records(branch, source, data, format or _format_of(source), shape, by, reason, json)
    elif source.is_dir():
        raise ValueError("--format, --resource-type and --id-field are for a file; a folder gives records of type file")
    else:
        raise ValueError(f"{source} is not a folder, nor a file")


def _format_of(source: Path) -> Format:
    if source == STANDARD:
        return "jsonl"
    found = SUFFIXES.get(source.suffix.lower())
    if found is None:
        raise ValueError(f"the format of {source} is not in its name; say --format jsonl or --format csv")
    return found


def _import_records(
    branch: str, source: Path, data: Path, format: Format, shape: Shape, by: str, reason: str, json: bool
) -> None:
    if format == "parquet" and source == STANDARD:
        raise ValueError("Parquet is read from a file, not from standard input")
    total = source.stat().st_size if source != STANDARD else 0
    opened: nullcontext[BinaryIO] | BinaryIO = (
        nullcontext(sys.stdin.buffer) if source == STANDARD else source.open("rb")
    )
    with opened as stream, open_engine(data, create=True) as engine, steps(quiet=json) as show:
        ensure_branch(engine, branch, by, reason)

        def progressed(records: int, done: int) -> None:
            show(f"import into {branch}", 100 * done / total if total else 0.0, f"{records:,} records")

        name = "standard input" if source == STANDARD else str(source)
        work = RecordImport(engine, branch, name, progressed)
        try:
            work.run(read_lines(stream, format, shape, name))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_of(work.result)) from None
        except WrongLine as error:
            raise ValueError(f"{error}; {_of(work.result)}") from error
        except ShadowSwitchError as error:
            error.message += f"; {_of(work.result)}"
            raise
    result = work.result
    text = f"{output.counted(result.records, 'record')} written, {result.unchanged:,} unchanged, LSN {result.lsn}"
    output.print_result(result, text, json)


def _of(result: ImportedRecords) -> str:
    count = result.records + result.unchanged
    return f"{output.counted(count, 'record')} before are stored; the same import goes on"


def _import_folder(branch: str, directory: Path, data: Path, by: str, reason: str, json: bool) -> None:
    with open_engine(data, create=True) as engine, steps(quiet=json) as show:
        ensure_branch(engine, branch, by, reason)
        imported = _import_whole(engine, branch, directory, _shown(show, branch))
    output.print_result(imported, _import_text(imported), json)


def _shown(show: Show, branch: str) -> Progressed:
    def progressed(done: int, total: int) -> None:
        show(f"import into {branch}", 100 * done / max(1, total), f"{output.size(done)} of {output.size(total)}")

    return progressed


def _import_whole(engine: Engine | RemoteEngine, branch: str, folder: Path, progressed: Progressed) -> Imported:
    """An import that fails or is interrupted says how many files the branch has by then."""
    stored: list[str] = []
    try:
        return import_folder(engine, branch, folder, stored=lambda id, _: stored.append(id), progressed=progressed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{_stored(stored)}") from None
    except ShadowSwitchError as error:
        error.message += f"; {_stored(stored)}"
        raise


def _stored(files: list[str]) -> str:
    return f"{output.counted(len(files), 'file')} of the folder are stored; the same import goes on"


def _import_text(imported: Imported) -> str:
    return (
        f"{imported.files} files written, {imported.unchanged} unchanged ({output.size(imported.size_bytes)},"
        f" {imported.not_utf8} not UTF-8), LSN {imported.lsn}; skipped: {counts_text(imported.skipped) or 'none'}"
    )
