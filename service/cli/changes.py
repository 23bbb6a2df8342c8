"""Commands that change something: through the server of the data directory, else with an engine of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import BuildCancelled, BuildFailed, ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import ShadowIndex, SwitchResult
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Data, Json, Refused, open_catalog, open_engine
from shadowswitch.service.cli.progress import build_details, steps
from shadowswitch.service.cli.status import types_of
from shadowswitch.service.daemon.importer import Imported, ensure_branch, import_folder
from shadowswitch.service.demo.demo import Plan, run_demo
from shadowswitch.service.demo.report_view import print_report
from shadowswitch.service.remote import RemoteEngine

LOOK_S = 0.1
PLAN = Plan()
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Names = Annotated[list[str] | None, Parameter(negative="")]
Whole = Annotated[int, Parameter(validator=Number(gte=1))]


def add_to(app: App) -> None:
    """Make these commands of the application."""
    app.command(demo)
    app.command(import_, name="import")
    for command in (build, switch, rollback, cancel, branch):
        app.command(command)


def demo(
    directory: Path | None = None,
    *,
    keep: Path | None = None,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=3600))] = PLAN.seconds,
    max_files: Whole = PLAN.files_max,
    max_mb: Whole = PLAN.size_max_bytes >> 20,
    json: Json = False,
) -> None:
    """The whole story on real files: import, build, three rebuilds under load, audit.

    Exit status 0 says: nothing was lost, revived, refused or out of order.

    Example: `shadowswitch demo --keep ./demo-data`, then `shadowswitch search main "event loop" --data ./demo-data`

    Parameters
    ----------
    directory
        A folder of text files; the default is the standard library's sources of the running Python.
    keep
        Leave the data directory here, for the other commands: new, or made by a demo.
    seconds
        Time under load besides the rebuilds.
    max_files
        Import at most so many files.
    max_mb
        Import at most so many MiB.
    """
    plan = Plan(seconds=seconds, files_max=max_files, size_max_bytes=max_mb << 20)
    with steps(quiet=json) as show:
        report = run_demo(directory, keep, show, plan)
    if json:
        output.print_json(report)
    else:
        print_report(report)
        if keep is not None:
            output.say(f"the data directory is {keep}; try: shadowswitch search main 'event loop' --data {keep}")
    if not report.ok:
        raise Refused


def import_(branch: str, directory: Path, *, data: Data, json: Json = False) -> None:
    """A folder of text files becomes records of resource type `file`; makes data directory and branch if need be.

    Left out are what is not text or too large for a record, symbolic links, and folders such as `.git`.

    Example: `shadowswitch import main ./texts --data ./data`
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a folder")
    with open_engine(data, make=True) as engine, steps(quiet=json) as show:
        ensure_branch(engine, branch)

        def progressed(done: int, total: int) -> None:
            show(f"import into {branch}", 100 * done / max(1, total), f"{output.size(done)} of {output.size(total)}")

        imported = import_folder(engine, branch, directory, progressed=progressed)
    if json:
        output.print_json(imported)
    else:
        _tell_import(imported)


def _tell_import(imported: Imported) -> None:
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(imported.skipped.items()))
    output.say(
        f"{imported.files} files written, {imported.unchanged} unchanged ({output.size(imported.size_bytes)},"
        f" {imported.not_utf8} not UTF-8), LSN {imported.lsn}; skipped: {skipped or 'none'}"
    )


def build(
    branch: str,
    index_type: str = "SEARCH_INDEX",
    *,
    data: Data,
    resource_type: Names = None,
    backend: str | None = None,
    tokenizer: str | None = None,
    column: Names = None,
    workers: Whole | None = None,
    option: Names = None,
    switch: Flag = False,
    json: Json = False,
) -> None:
    """Build an index in the shadow and wait until it is BUILT. Ctrl-C cancels the build.

    Example: `shadowswitch build main SEARCH_INDEX --data ./data --tokenizer porter --switch`

    Parameters
    ----------
    resource_type
        What it covers; may be repeated. Default: every type of which the branch has records.
    backend
        What builds it; default `fts5` for SEARCH_INDEX.
    tokenizer
        For fts5: unicode61, ascii, porter or trigram.
    column
        For fts5: a field to index; may be repeated. Default: every string of a record.
    workers
        Worker processes.
    option
        Another option of the backend, as `name=value` with a JSON value; may be repeated.
    switch
        Switch to it as well.
    """
    config = build_config(backend, tokenizer, column, workers, option)
    with open_catalog(data) as catalog:
        types = resource_type or types_of(catalog, branch)
    if not types:
        raise ShadowSwitchError(f"branch {branch!r} has no records", hint="import some, or say --resource-type")
    with open_engine(data) as engine:
        shadow = engine.start_build(branch, index_type, types, config, service_name="cli")
        shadow = _watch(engine, shadow, quiet=json)
        result = engine.switch(shadow.shadow_index_id) if switch else None
    if json:
        output.print_json({"shadow": shadow, "switch": result})
    else:
        output.say(f"{shadow.shadow_index_id} is {shadow.state} with {shadow.record_count} records")
    _tell_switch(result, json)


def build_config(
    backend: str | None, tokenizer: str | None, column: list[str] | None, workers: int | None, option: list[str] | None
) -> dict[str, Any]:
    """What start_build takes. A value of `name=value` that is no JSON is a string. Raises ValueError."""
    given = {"backend": backend, "tokenizer": tokenizer, "columns": column, "parallel_workers": workers}
    config = {name: value for name, value in given.items() if value is not None}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--option {text!r} is not name=value")
        try:
            config[name] = msgspec.json.decode(value.encode())
        except msgspec.DecodeError:
            config[name] = value
    return config


def _watch(engine: Engine | RemoteEngine, shadow: ShadowIndex, quiet: bool) -> ShadowIndex:
    title = f"build {shadow.index_type} of {shadow.branch_name}"
    with steps(quiet) as show:
        try:
            while shadow.state in (ShadowState.PREPARING, ShadowState.BUILDING):
                show(title, shadow.build_progress_percent, build_details(shadow))
                time.sleep(LOOK_S)
                shadow = engine.shadow(shadow.shadow_index_id)
        except KeyboardInterrupt:
            engine.cancel_build(shadow.shadow_index_id, "interrupted")
            raise
    if shadow.state == ShadowState.FAILED:
        raise BuildFailed(f"shadow {shadow.shadow_index_id} failed: {shadow.error}", object=shadow.shadow_index_id)
    if shadow.state == ShadowState.CANCELLED:
        raise BuildCancelled(f"shadow {shadow.shadow_index_id} was cancelled: {shadow.error or 'no reason given'}")
    return shadow


def switch(shadow_id: str, *, data: Data, json: Json = False) -> None:
    """Make a BUILT shadow the live index.

    Example: `shadowswitch switch 5f0c... --data ./data`
    """
    with open_engine(data) as engine:
        result = engine.switch(shadow_id)
    if json:
        output.print_json(result)
    _tell_switch(result, json)


def rollback(branch: str, index_type: str = "SEARCH_INDEX", *, data: Data, json: Json = False) -> None:
    """Go back to the previous generation; nothing written since is lost. Again: forward.

    Example: `shadowswitch rollback main SEARCH_INDEX --data ./data`
    """
    with open_engine(data) as engine:
        result = engine.rollback(branch, index_type)
    if json:
        output.print_json(result)
    _tell_switch(result, json)


def _tell_switch(result: SwitchResult | None, json: bool) -> None:
    """Raises No for a switch that did not succeed."""
    if result is None:
        return
    if not json:
        output.say(result.message)
    if not result.success:
        raise Refused


def cancel(shadow_id: str, *, data: Data, reason: str = "", json: Json = False) -> None:
    """End a build, or discard a BUILT or FAILED shadow.

    Example: `shadowswitch cancel 5f0c... --data ./data --reason "wrong tokenizer"`

    Parameters
    ----------
    reason
        Is kept in the audit history.
    """
    with open_engine(data) as engine:
        shadow = engine.cancel_build(shadow_id, reason)
    if json:
        output.print_json(shadow)
    else:
        output.say(f"{shadow.shadow_index_id} is {shadow.state}")


def branch(
    operation: Literal["recover", "reopen", "merge", "archive"],
    name: str,
    *,
    data: Data,
    reason: str = "",
    json: Json = False,
) -> None:
    """Lead a branch from one state to another.

    Example: `shadowswitch branch recover main --data ./data --reason "the disk was replaced"`

    Parameters
    ----------
    operation
        recover: the cause of its ERROR is gone. reopen: go on with a READY or MERGED one. merge: a READY one was merged
        elsewhere. archive: close it for good; it stays readable.
    reason
        Is kept in the audit history.
    """
    with open_engine(data) as engine:
        operations = {
            "recover": engine.recover_branch,
            "reopen": engine.reopen_branch,
            "merge": engine.merge_branch,
            "archive": engine.archive_branch,
        }
        found = operations[operation](name, f"user-{os.getuid()}", reason)
    if json:
        output.print_json(found)
    else:
        output.say(f"branch {found.name} is {found.state}")
