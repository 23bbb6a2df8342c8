"""The command line. Exit status 0: success; 1: "no" (blocked, refused, failed check, not found); 2: a wrong call.

Reading commands work beside a running host: they read the catalog themselves and pin what they search with a lock on a
file. Changing commands open the engine, so they need the data directory for themselves.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from shadowswitch.actors.dispatcher import event_of
from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import outside_reader
from shadowswitch.model.errors import ShadowSwitchError, UnknownBranch
from shadowswitch.model.states import ShadowState
from shadowswitch.model.views import ShadowIndex, SwitchResult
from shadowswitch.service import output
from shadowswitch.service.demo import run_demo
from shadowswitch.service.importer import import_folder
from shadowswitch.service.status import status_of
from shadowswitch.storage import layout
from shadowswitch.storage.catalog import Catalog
from shadowswitch.storage.fsck import check_data

app = App(
    name="shadowswitch",
    help="Rebuild an index in the shadow while everybody keeps writing, lose nothing, switch in one disk commit.",
    version=version("shadowswitch"),
    help_format="markdown",
)

Data = Annotated[Path, Parameter(help="The data directory.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON value and nothing else.")]


class No(Exception):
    """The answer is no: exit status 1. What there is to say has been printed."""


@contextmanager
def _catalog(data: Path) -> Iterator[Catalog]:
    """The catalog of a data directory, read only, beside whatever host has it open."""
    if not (data / layout.CATALOG / "data.mdb").is_file():
        raise UnknownBranch(f"{data} is not a data directory of shadowswitch", hint="give its path with --data")
    catalog = Catalog(data / layout.CATALOG, readonly=True)
    try:
        yield catalog
    finally:
        catalog.close()


@contextmanager
def _engine(data: Path, make: bool = False) -> Iterator[Engine]:
    if not make and not (data / layout.CATALOG / "data.mdb").is_file():
        raise UnknownBranch(f"{data} is not a data directory of shadowswitch", hint="give its path with --data")
    with Engine.open(data) as engine:
        yield engine


@app.command
def demo(
    directory: Path | None = None, *, keep: Path | None = None, max_files: int | None = None, json: Json = False
) -> None:
    """The whole story on real files: import, build, three rebuilds under load, audit.

    Example: `shadowswitch demo --keep ./demo-data`, then `shadowswitch search main "event loop" --data ./demo-data`.

    Parameters
    ----------
    directory
        A folder of text files; the default is the standard library's sources of the running Python.
    keep
        Leave the data directory here, for the other commands; must be new or empty.
    max_files
        Import at most so many files.
    """
    with output.demo_progress(quiet=json) as show:
        report = run_demo(directory, keep, show, max_files)
    if json:
        output.print_json({"ok": report.ok, **output.plain(report)})
    else:
        output.print_report(report)
        if keep is not None:
            Console().print(f"the data directory is {keep}", highlight=False)
    if not report.ok:
        raise No


@app.command(name="import")
def import_(branch: str, directory: Path, *, data: Data, json: Json = False) -> None:
    """A folder of text files becomes records of resource type `file`; makes data directory and branch if need be.

    Example: `shadowswitch import main ./texts --data ./data`
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a folder")
    with _engine(data, make=True) as engine:
        try:
            engine.branch(branch)
        except UnknownBranch:
            engine.create_branch(branch)
        imported = import_folder(engine, branch, directory)
    if json:
        output.print_json(imported)
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(imported.skipped.items()))
    print(f"{imported.files} files, {imported.bytes} bytes, up to LSN {imported.lsn}; skipped: {skipped or 'none'}")


@app.command
def build(
    branch: str,
    index_type: str = "SEARCH_INDEX",
    *,
    data: Data,
    resource_type: list[str] | None = None,
    backend: str | None = None,
    tokenizer: str | None = None,
    column: list[str] | None = None,
    workers: int | None = None,
    option: list[str] | None = None,
    switch: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Build an index in the shadow and wait until it is BUILT.

    Example: `shadowswitch build main SEARCH_INDEX --data ./data --tokenizer porter --switch`

    Parameters
    ----------
    resource_type
        What it covers; may be repeated. Default: every type that the branch has.
    option
        Another option of the backend, as `name=value` with a JSON value; may be repeated.
    switch
        Switch to it as well.
    """
    config = _build_config(backend, tokenizer, column, workers, option)
    with _engine(data) as engine:
        types = resource_type or sorted({record.resource_type for record in engine.scan(branch)})
        if not types:
            raise UnknownBranch(f"branch {branch!r} has no records", hint="import some, or say --resource-type")
        shadow = engine.start_build(branch, index_type, types, config, service_name="cli")
        shadow = _watch(engine, shadow, quiet=json)
        result = engine.switch(shadow.shadow_index_id) if switch else None
    if json:
        output.print_json({"shadow": shadow, "switch": result})
    elif result is not None:
        print(result.message)
    else:
        print(f"{shadow.shadow_index_id} is {shadow.state} with {shadow.record_count} records")
    if result is not None and not result.success:
        raise No


def _build_config(
    backend: str | None, tokenizer: str | None, column: list[str] | None, workers: int | None, option: list[str] | None
) -> dict[str, Any]:
    given = {"backend": backend, "tokenizer": tokenizer, "columns": column, "parallel_workers": workers}
    config = {name: value for name, value in given.items() if value is not None}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--option {text!r} is not name=value")
        try:
            config[name] = msgspec.json.decode(value.encode())
        except msgspec.DecodeError:
            config[name] = value
    return config


def _watch(engine: Engine, shadow: ShadowIndex, quiet: bool) -> ShadowIndex:
    with output.build_progress(quiet) as show:
        try:
            while shadow.state in (ShadowState.PREPARING, ShadowState.BUILDING):
                show(shadow)
                time.sleep(0.1)
                shadow = engine.shadow(shadow.shadow_index_id)
        except KeyboardInterrupt:
            engine.cancel_build(shadow.shadow_index_id, "interrupted")
            raise
    return engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=1)


def _tell_switch(result: SwitchResult, json: bool) -> None:
    if json:
        output.print_json(result)
    else:
        print(result.message)
    if not result.success:
        raise No


@app.command
def switch(shadow_id: str, *, data: Data, json: Json = False) -> None:
    """Make a BUILT shadow the live index.

    Example: `shadowswitch switch 5f0c... --data ./data`
    """
    with _engine(data) as engine:
        _tell_switch(engine.switch(shadow_id), json)


@app.command
def rollback(branch: str, index_type: str = "SEARCH_INDEX", *, data: Data, json: Json = False) -> None:
    """Go back to the previous generation; nothing written since is lost. Again: forward.

    Example: `shadowswitch rollback main SEARCH_INDEX --data ./data`
    """
    with _engine(data) as engine:
        _tell_switch(engine.rollback(branch, index_type), json)


@app.command
def cancel(shadow_id: str, *, data: Data, reason: str = "", json: Json = False) -> None:
    """End a build, or discard a BUILT or FAILED shadow.

    Example: `shadowswitch cancel 5f0c... --data ./data --reason "wrong tokenizer"`
    """
    with _engine(data) as engine:
        shadow = engine.cancel_build(shadow_id, reason)
    if json:
        output.print_json(shadow)
    else:
        print(f"{shadow.shadow_index_id} is {shadow.state}")


@app.command
def search(
    branch: str, query: str, *, data: Data, index_type: str = "SEARCH_INDEX", limit: int = 10, json: Json = False
) -> None:
    """Search a live index; works beside a running host.

    Example: `shadowswitch search main "event loop" --data ./data --limit 3`
    """
    with _catalog(data) as catalog, outside_reader(data, catalog, branch, index_type) as reader:
        hits = reader.search(query, limit)
        lsn, generation = reader.lsn, reader.generation
    if json:
        output.print_json({"hits": hits, "lsn": lsn, "generation": generation})
        return
    rows = [[hit.resource_type, hit.id, f"{hit.score:.3f}", hit.lsn] for hit in hits]
    output.table(f"{len(hits)} hits, LSN {lsn}, generation {generation}", ["type", "id", "score", "lsn"], rows)


@app.command
def status(*, data: Data, json: Json = False) -> None:
    """Branches, live indexes and shadows; works beside a running host.

    Example: `shadowswitch status --data ./data`
    """
    with _catalog(data) as catalog:
        found = status_of(catalog, data)
    if json:
        output.print_json(found)
        return
    holder = found["host"]
    print(f"open in process {holder['pid']}: {holder['command']}" if holder else "not open in any process")
    for title in ("branches", "indexes", "shadows"):
        rows = [list(row.values()) for row in found[title]]
        output.table(title, list(found[title][0]) if rows else [], rows)


@app.command
def events(*, data: Data, after: int = 0, limit: int = 100, json: Json = False) -> None:
    """The event log, in order; works beside a running host.

    Example: `shadowswitch events --data ./data --after 100`
    """
    with _catalog(data) as catalog:
        found = [event_of(row, catalog.uuid) for row in catalog.events(after, limit)]
    if json:
        output.print_json(found)
        return
    rows = [
        [e.sequence, f"{e.time:%Y-%m-%d %H:%M:%S}", e.type, e.subject, msgspec.json.encode(e.data).decode()]
        for e in found
    ]
    output.table("events", ["sequence", "time", "type", "subject", "data"], rows)


@app.command
def check(*, data: Data, json: Json = False) -> None:
    """Verify every invariant over everything on disk; works beside a running host.

    Example: `shadowswitch check --data ./data`
    """
    with _catalog(data) as catalog:
        findings = check_data(catalog, data.absolute())
    if json:
        output.print_json(findings)
    else:
        for finding in findings:
            print(finding)
        print(f"{len(findings)} findings" if findings else "sound")
    if findings:
        raise No


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    debug = bool(os.environ.get("SHADOWSWITCH_DEBUG"))
    try:
        app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
        sys.stdout.flush()
    except No:
        return 1
    except CycloptsError:
        return 2
    except ValueError as error:
        return _say(error, 1 if isinstance(error, ShadowSwitchError) else 2, debug)
    except (ShadowSwitchError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  so that the interpreter's last flush is silent
            return 1
        return _say(error, 1, debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _say(error: Exception, status: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"shadowswitch: {error}", file=sys.stderr)
    return status
