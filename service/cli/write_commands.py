"""The commands that write. They call the server of the data directory, or else open an engine in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import SWITCH_TIMEOUT_S, ShadowIndex, SwitchRequest, SwitchResult
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import (
    build_config,
    full_id,
    start_or_join,
    switch_or_cancel,
    types_to_build,
    under_way,
    wait_until_built,
)
from shadowswitch.service.cli.directory import (
    AllowEmpty,
    BreakGroup,
    By,
    Checks,
    Data,
    Force,
    Json,
    Reason,
    Refused,
    ShadowId,
    SwitchTimeout,
    open_catalog,
    open_engine,
    with_checks,
)
from shadowswitch.service.cli.progress import steps
from shadowswitch.service.demo.branch_story import Story, run_story
from shadowswitch.service.demo.demo import Plan, run_demo
from shadowswitch.service.demo.report import Report
from shadowswitch.service.demo.report_view import print_any
from shadowswitch.service.demo.search_story import SearchStory, run_search_story
from shadowswitch.service.demo.vector_story import VectorStory, run_vector_story
from shadowswitch.service.hints import in_commands
from shadowswitch.storage.backends.registry import likely_index_type

PLAN = Plan()
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Names = Annotated[list[str] | None, Parameter(negative="")]
Seed = Annotated[
    Literal["auto", "never", "require"],
    Parameter(
        help="Begin with the files of the live index, also of the parent: where that saves time, never, or only so."
    ),
]
Whole = Annotated[int, Parameter(validator=Number(gte=1))]


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(demo)
    for command in (build, switch, rollback, retune, cancel):
        app.command(command)


def demo(
    directory: Path | None = None,
    *,
    keep: Path | None = None,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=3600))] = PLAN.seconds,
    max_files: Whole = PLAN.files_max,
    max_mb: Whole = PLAN.size_max_bytes >> 20,
    branches: Flag = False,
    search: Flag = False,
    vectors: Flag = False,
    json: Json = False,
) -> None:
    """Run the whole story on real files: import, build, three rebuilds under load, audit.

    With --branches another story: fork, edit both sides, search on both, a conflict, merge, audit. With --search:
    Korean notes get another analyzer, the same queries before and after, a verdict, a bad index that is refused. With
    --vectors: an index of vectors gets another embedding model, while records are edited and searched, and goes back.

    Exit status 0: no change was lost, revived or refused, and no read went back in time.

    Example: `shadowswitch demo --keep ./demo-data`, then `shadowswitch search main "event loop" --data ./demo-data`

    Parameters
    ----------
    directory
        A folder of text files. Default: the sources of the standard library of the running Python.
    keep
        Keep the data directory here for other commands. The folder is new, empty, or made by a demo.
    seconds
        The time under load, in addition to the rebuilds.
    max_files
        Import at most this many files.
    max_mb
        Import at most this many MiB.
    branches
        Tell the story of a branch that is forked and merged.
    search
        Tell the story of an index that gets another analyzer.
    vectors
        Tell the story of an index that gets another embedding model.
    """
    plan = Plan(seconds=seconds, files_max=max_files, size_max_bytes=max_mb << 20)
    if branches + search + vectors > 1:
        raise ValueError("--branches, --search and --vectors are stories of their own: name one")
    with steps(quiet=json) as show:
        report: Report | Story | SearchStory | VectorStory
        if search or vectors:
            report = (run_search_story if search else run_vector_story)(keep, show)
        else:
            report = (run_story if branches else run_demo)(directory, keep, show, plan)
    if json:
        output.print_json(report)
    else:
        print_any(report)
        if keep is not None:
            output.say(f"the data directory is {keep}; try: shadowswitch search main 'event loop' --data {keep}")
    if not report.ok:
        raise Refused


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
    priority: int = 0,
    seed: Seed = "auto",
    switch: Flag = False,
    switch_timeout: SwitchTimeout = SWITCH_TIMEOUT_S,
    allow_empty: AllowEmpty = False,
    force: Force = False,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Build an index in the shadow and wait until it is BUILT. Ctrl-C cancels the build.

    A killed build goes on: the same command joins it. Ctrl-C of one that joined leaves the build to the first. With
    --switch it also joins an equal BUILT shadow, and discards what a killed `build --switch` of other options left.

    Example: `shadowswitch build main SEARCH_INDEX --data ./data --tokenizer porter --switch`

    Parameters
    ----------
    resource_type
        A resource type to index; may be repeated. Default: every type with records on the branch.
    backend
        The backend of the index. Default for SEARCH_INDEX: `fts5`.
    tokenizer
        For fts5: unicode61, ascii, porter or trigram, and behind it cjk, code (see docs/analyzers.md).
    column
        For fts5: a field to index; may be repeated. Default: every string of a record.
    workers
        The number of worker processes.
    option
        A further option of the backend, as `name=value` with a JSON value; may be repeated.
    priority
        Where many builds wait, the highest goes first.
    switch
        Switch to the index after the build. A refused switch cancels the shadow that this command built.
    """
    with open_catalog(data) as catalog:
        types, before = types_to_build(catalog, branch, resource_type, json), under_way(catalog, branch, index_type)
    what = (branch, index_type, types, build_config(backend, tokenizer, column, workers, option))
    request = _request(switch_timeout, force, allow_empty, by, reason)
    with open_engine(data) as engine:
        shadow, joined = start_or_join(engine, before, *what, by, reason, priority, switch, seed)
        shadow = wait_until_built(engine, shadow, json, by)
        result = switch_or_cancel(engine, shadow, request, before if joined else None) if switch else None
        shadow = shadow if not switch or (result and result.success) else engine.shadow(shadow.shadow_index_id)
    found = {"shadow": shadow, "switch": result, "joined": joined}
    output.print_result(found, _built_text(shadow, joined, result), json)
    _refuse_failed(result)


def _built_text(shadow: ShadowIndex, joined: bool, result: SwitchResult | None) -> list[str]:
    text = [output.built(shadow)]
    text += ["another command began it, and this one joined it"] if joined else []
    likely = likely_index_type(shadow.index_type)
    text += [f"{shadow.index_type} is an index type of its own: did you mean {likely}?"] if likely else []
    if result is not None:
        text.append(in_commands(result.message))
    elif shadow.state == ShadowState.ACTIVE:
        text.append("an equal command has switched to it")
    elif not shadow.record_count:
        text.append("it has no records: a switch to it is refused without --allow-empty")
    return text


def switch(
    shadow_id: ShadowId,
    *,
    data: Data,
    switch_timeout: SwitchTimeout = SWITCH_TIMEOUT_S,
    allow_empty: AllowEmpty = False,
    force: Force = False,
    break_group: BreakGroup = False,
    check: Checks = None,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make a BUILT shadow the live index.

    Example: `shadowswitch switch 5f0c... --data ./data`
    """
    shadow_id = full_id(data, shadow_id)
    with open_engine(data) as engine:
        request = with_checks(_request(switch_timeout, force, allow_empty, by, reason, break_group), check)
        _print_switch(engine.switch(shadow_id, request), json)


def rollback(
    branch: str,
    index_type: str = "SEARCH_INDEX",
    *,
    data: Data,
    switch_timeout: SwitchTimeout = SWITCH_TIMEOUT_S,
    break_group: BreakGroup = False,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Switch back to the previous generation; every write is kept. A second rollback switches forward again.

    Example: `shadowswitch rollback main SEARCH_INDEX --data ./data`
    """
    with open_engine(data) as engine:
        request = _request(switch_timeout, False, False, by, reason, break_group)
        _print_switch(engine.rollback(branch, index_type, request), json)


def retune(
    branch: str,
    index_type: str = "SEARCH_INDEX",
    *,
    data: Data,
    option: Names = None,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Let a live index answer with other weights of its columns. No build; the files stay.

    Example: `shadowswitch retune main --option 'columns={"title": 4, "body": 1}' --data ./data`

    Parameters
    ----------
    option
        An option of the backend that its files serve as they are, as `name=value` with a JSON value; may be repeated.
    """
    with open_engine(data) as engine:
        found = engine.retune(branch, index_type, build_config(None, None, None, None, option), by, reason)
    output.print_result(found, f"{index_type} of {branch} answers with {found.build_config}", json)


def _request(
    timeout_s: float, force: bool, allow_empty: bool, by: str, reason: str, break_group: bool = False
) -> SwitchRequest:
    return SwitchRequest(
        switch_timeout_seconds=timeout_s, force_switch=force, allow_empty=allow_empty, performed_by=by, reason=reason,
        break_group=break_group,
    )  # fmt: skip


def _print_switch(result: SwitchResult, json: bool) -> None:
    output.print_result(result, in_commands(result.message), json)
    _refuse_failed(result)


def _refuse_failed(result: SwitchResult | None) -> None:
    if result is not None and not result.success:
        raise Refused


def cancel(shadow_id: ShadowId, *, data: Data, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Cancel a build, or discard a BUILT or FAILED shadow.

    Example: `shadowswitch cancel 5f0c... --data ./data --reason "wrong tokenizer"`
    """
    shadow_id = full_id(data, shadow_id)
    with open_engine(data) as engine:
        shadow = engine.cancel_build(shadow_id, reason, by)
    output.print_result(shadow, f"{shadow.shadow_index_id} is {shadow.state}", json)
