"""Builds as commands see them: the status of a shadow, the options of a build, and the wait for its end.

A command that is killed leaves its shadow BUILDING. The next process that opens the directory goes on with it, and the
next equal `build` joins it. What is left of a `build --switch` waits BUILT for the next one, which switches to it or
discards it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.actors.build import gate
from shadowswitch.engine.engine import Engine
from shadowswitch.engine.views import RUNNING, moment, paused_text, scheduled_view
from shadowswitch.model.errors import (
    BuildCancelled,
    BuildFailed,
    DuplicateBuild,
    InvalidTransition,
    ShadowSwitchError,
    UnknownShadow,
)
from shadowswitch.model.names import check_resource_type
from shadowswitch.model.records import JSON_DEPTH_MAX, nests_too_deep
from shadowswitch.model.search.relevance import JUDGMENT
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.model.views import ShadowIndex, SwitchRequest, SwitchResult
from shadowswitch.service import caller, host_file
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import open_catalog
from shadowswitch.service.cli.progress import build_details, steps
from shadowswitch.service.hints import in_commands
from shadowswitch.service.remote import STATUS_TIMEOUT_S, RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowHead, ShadowRow
from shadowswitch.storage.catalog.source.shadow_table import stored_shadows
from shadowswitch.storage.generations.build_spec import refuse_other_options
from shadowswitch.storage.generations.seeding import AUTO

logger = logging.getLogger("shadowswitch")

LOOK_S = 0.1
SWITCH_WAIT_S = 30.0
REASON_CHARS_MAX = 1000
"""The reason of a cancellation is a part of its address over HTTP."""
PREFIX_CHARS_MIN = 4
"""An empty or a very short text is a slip, and names no shadow by chance."""
LISTED_MAX = 5
STOPPED = "no process builds it; the same build command, or serve, goes on with it"
EXTERNAL_STOPPED = "no process has the directory open; its builder cannot report until serve runs"


def builds_of_server(data: Path, catalog: Catalog) -> dict[str, ShadowIndex]:
    """The builds under way as the server has them now, by id; the catalog follows within seconds. None without one."""
    found = host_file.read(data)
    if found is None:
        return {}
    with contextlib.suppress(ShadowSwitchError), contextlib.closing(RemoteEngine(found, data, catalog)) as server:
        return {one.shadow_index_id: one for state in RUNNING for one in server.shadows(None, state, STATUS_TIMEOUT_S)}
    return {}


def shadow_status(row: ShadowRow, hosted: bool, now: ShadowIndex | None = None) -> dict[str, Any]:
    """A shadow as the catalog has it, under the names of ShadowIndex; with what the server says of its build `now`.

    `stands_still` is the reason why no process builds it; `hosted` is True while a process has the directory open.
    """
    found = _stored_status(row, hosted)
    if now is not None and row.state in RUNNING:
        found |= {
            "build_progress_percent": now.build_progress_percent,
            "estimated_completion_seconds": now.estimated_completion_seconds,
            "queue_position": now.queue_position,
            "stands_still": in_commands(now.stands_still or "") or None,
        }
    return found


def _stored_status(row: ShadowRow, hosted: bool) -> dict[str, Any]:
    stopped = row.state in RUNNING and not hosted
    return {
        "shadow_index_id": row.id,
        "branch_name": row.branch_name,
        "index_type": row.index_type,
        "resource_types": row.resource_types,
        "state": str(row.state),
        "phase": row.phase,
        "build_progress_percent": round(row.progress, 1),
        "estimated_completion_seconds": None if stopped else row.eta_s,
        "switch_ready": row.state == ShadowState.BUILT,
        "index_size_bytes": row.size_bytes,
        "record_count": row.record_count,
        "backend": row.backend,
        "build_config": row.build_config,
        "generation": row.generation,
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "completed_at": moment(row.completed_at),
        "switched_at": moment(row.switched_at),
        "error": in_commands(row.error) if row.error is not None else None,
        "priority": row.priority,
        "seeded_from": row.seeded_from or None,
        "queue_position": None,
        "scheduled_switch": scheduled_view(row),
        "share": row.share,
        "paused_by": row.paused_by or None if row.state in RUNNING else None,
        "stands_still": in_commands(paused_text(row) or "")
        or ((EXTERNAL_STOPPED if row.external else STOPPED) if stopped else None),
    }


def find_shadow(catalog: Catalog, given: str) -> ShadowRow:
    """The shadow of an id, or of the beginning of an id of at least `PREFIX_CHARS_MIN` characters.

    Raises UnknownShadow, also for a beginning that several shadows share.
    """
    exact = catalog.find_shadow(given)
    if exact is not None:
        return exact
    if len(given) < PREFIX_CHARS_MIN:
        raise UnknownShadow(f"there is no shadow {given!r}; the beginning of an id has {PREFIX_CHARS_MIN} characters")
    found = stored_shadows(catalog, lambda head: head.id.startswith(given))
    if len(found) > 1:
        ids = ", ".join(f"{row.id} ({row.state})" for row in found[:LISTED_MAX])
        raise UnknownShadow(f"{len(found)} shadows begin with {given!r:.80}, so give more of the id: {ids}")
    return found[0] if found else catalog.shadow(given)


def full_id(data: Path, given: str) -> str:
    """The id of a shadow. Raises UnknownShadow."""
    with open_catalog(data) as catalog:
        return find_shadow(catalog, given).id


def types_of(catalog: Catalog, branch: str) -> list[str]:
    """The resource types with records on a branch. Raises UnknownBranch."""
    names = catalog.types()
    return sorted(names[number] for number in catalog.counts(catalog.branch(branch).number))


def types_to_build(catalog: Catalog, branch: str, given: list[str] | None, quiet: bool) -> list[str]:
    """The resource types of a build; by default all with records but judgments. Warns of those without records, unless
    `quiet`.

    Raises UnknownBranch; InvalidName; ShadowSwitchError for a branch without a record.
    """
    names = catalog.types()
    records = {names[number]: count for number, count in catalog.counts(catalog.branch(branch).number).items()}
    found = [check_resource_type(name) for name in given] if given else sorted({*records} - {JUDGMENT})
    if not found:
        raise ShadowSwitchError(f"branch {branch!r} has no records", hint="import some, or give --resource-type")
    if not quiet:
        output.warn(*gate.of_types(branch, {name: records.get(name, 0) for name in found}, list(records), []))
    return found


def build_config(
    backend: str | None, tokenizer: str | None, column: list[str] | None, workers: int | None, option: list[str] | None
) -> dict[str, Any]:
    """The build_config of command line options. The value of an option is JSON, or else a string. Raises ValueError."""
    given = {"backend": backend, "tokenizer": tokenizer, "columns": column, "parallel_workers": workers}
    config = {name: value for name, value in given.items() if value is not None}
    for text in option or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--option {text!r} is not name=value")
        if nests_too_deep(value.encode("utf-8", "surrogateescape")):
            raise ValueError(f"--option {name} is nested deeper than {JSON_DEPTH_MAX} levels")
        try:
            config[name] = msgspec.json.decode(value.encode())
        except msgspec.DecodeError:
            config[name] = value
    return config


def wait_until_built(engine: Engine | RemoteEngine, shadow: ShadowIndex, quiet: bool, by: str = "") -> ShadowIndex:
    """Show the progress of a build until it ends. Raises BuildFailed, BuildCancelled.

    Ctrl-C cancels the build, unless another command began it, and still waits for it.
    """
    id = shadow.shadow_index_id
    title = f"build {shadow.index_type} of {shadow.branch_name}"
    with steps(quiet) as show:
        try:
            while shadow.state in RUNNING:
                show(title, shadow.build_progress_percent, build_details(shadow))
                time.sleep(LOOK_S)
                shadow = engine.shadow(id)
        except KeyboardInterrupt:
            if _is_of_another(engine, shadow):
                raise KeyboardInterrupt(f"shadow {id} goes on for the command that began it") from None
            engine.cancel_build(id, "interrupted", by)
            raise KeyboardInterrupt(f"shadow {id} was cancelled") from None
    if shadow.state == ShadowState.FAILED:
        raise BuildFailed(f"shadow {id} failed: {shadow.error}", object=id)
    if shadow.state == ShadowState.CANCELLED:
        raise BuildCancelled(f"shadow {id} was cancelled: {shadow.error or 'no reason given'}")
    return shadow


def switch_or_cancel(
    engine: Engine | RemoteEngine, shadow: ShadowIndex, request: SwitchRequest, before: ShadowRow | None
) -> SwitchResult | None:
    """Switch to the shadow of a `build --switch`; None if an equal command has switched to it.

    A refused or interrupted switch cancels the shadow, unless it is one that a plain `build` left `before`.
    """
    shadow_id = shadow.shadow_index_id
    kept = before is not None and not before.of_rebuild
    try:
        result = engine.switch(shadow_id, request)
    except InvalidTransition:
        if _after_switch(engine, shadow_id) != ShadowState.ACTIVE:
            raise
        return None
    except KeyboardInterrupt:
        ours = not kept and not _is_of_another(engine, shadow)
        cancelled = ours and _cancel(engine, shadow_id, "interrupted", request.performed_by)
        state = ShadowState.CANCELLED if cancelled else _after_switch(engine, shadow_id)
        raise KeyboardInterrupt(f"shadow {shadow_id} is {state}") from None
    except ShadowSwitchError as error:
        if not kept:
            _cancel(engine, shadow_id, str(error), request.performed_by)
        raise
    if result.success or result.rolled_back:
        return result
    if kept:
        end = f"shadow {shadow_id} stays BUILT: switch to it, or discard it with shadowswitch cancel"
    elif _cancel(engine, shadow_id, result.message, request.performed_by):
        end = f"shadow {shadow_id} was cancelled"
    else:
        end = f"shadow {shadow_id} is {_after_switch(engine, shadow_id)}"
    return msgspec.structs.replace(result, message=f"{result.message}; {end}")


def _is_of_another(engine: Engine | RemoteEngine, shadow: ShadowIndex) -> bool:
    """Beside a server the command that began a shadow may still wait for it. Without one no other command runs."""
    return isinstance(engine, RemoteEngine) and caller.is_of_another(shadow.service_name)


def _cancel(engine: Engine | RemoteEngine, shadow_id: str, reason: str, by: str) -> bool:
    """Cancel a shadow once no switch to it is under way; True if that was possible."""
    try:
        _after_switch(engine, shadow_id)
        engine.cancel_build(shadow_id, reason[:REASON_CHARS_MAX], by)
    except ShadowSwitchError as error:
        logger.warning("shadow %s was not cancelled: %s", shadow_id, error)
        return False
    return True


def _after_switch(engine: Engine | RemoteEngine, shadow_id: str) -> ShadowState:
    """The state of a shadow after the switch to it that is under way, or after the longest wait for that."""
    deadline = time.monotonic() + SWITCH_WAIT_S
    while (state := engine.shadow(shadow_id).state) == ShadowState.SWITCHING and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return state


def under_way(catalog: Catalog, branch: str, index_type: str) -> ShadowRow | None:
    """The shadow that is under way of an index before a command, or None."""

    def is_so(head: ShadowHead) -> bool:
        return head.branch_name == branch and head.index_type == index_type and head.state in UNDER_WAY

    return next(iter(stored_shadows(catalog, is_so)), None)


def may_join(before: ShadowRow, served: bool, switch: bool) -> bool:
    """May a `build` of equal options join the shadow that was under way before it?

    Without `switch` that is a build that goes on, but the rest of a `build --switch`: a later one may discard that.
    With `switch` it is also what waits for a switch. Where a server has the directory open, the shadow is one of the
    command line.
    """
    if before.external or before.state == ShadowState.SWITCHING:
        return False
    ours = caller.is_ours(before.service_name)
    if before.state in RUNNING:
        return (ours or not served) and (switch or not before.of_rebuild)
    return ours and switch


def start_or_join(
    engine: Engine | RemoteEngine,
    before: ShadowRow | None,
    branch: str,
    index_type: str,
    resource_types: Sequence[str],
    build_config: dict[str, Any],
    by: str = "",
    reason: str = "",
    priority: int = 0,
    switch: bool = False,
    seed: str = AUTO,
) -> tuple[ShadowIndex, bool]:
    """Start a build, or join the equal one that was under way `before`; True if it was joined.

    With `switch`, what is left of a `build --switch` of other options is discarded, once it is certain that its command
    has ended. Raises DuplicateBuild for any other shadow under way. Ctrl-C cancels what was started.
    """
    own = caller.service_name()
    start = partial(
        engine.start_build, branch, index_type, resource_types, build_config, service_name=own, by=by, reason=reason,
        priority=priority, of_rebuild=switch, seed=seed,
    )  # fmt: skip
    try:
        shadow = start()
        return shadow, before is not None and shadow.shadow_index_id == before.id
    except KeyboardInterrupt:
        found = [one for state in (*RUNNING, ShadowState.BUILT) for one in engine.shadows(branch, state)]
        for id in [one.shadow_index_id for one in found if one.service_name == own]:
            engine.cancel_build(id, "interrupted", by)
            raise KeyboardInterrupt(f"shadow {id} was cancelled") from None
        raise
    except DuplicateBuild as error:
        if before is None or error.shadow_index_id != before.id:
            raise
        if not may_join(before, isinstance(engine, RemoteEngine), switch):
            raise
        shadow = engine.shadow(before.id)
        begun = (shadow.resource_types, shadow.build_config)
        try:
            refuse_other_options(error, index_type, begun, (resource_types, build_config))
        except DuplicateBuild:
            left = before.of_rebuild and caller.has_ended(before.service_name) and shadow.scheduled_switch is None
            if not (switch and left and _cancel(engine, before.id, "its command has ended; another one follows", by)):
                raise
            return start(), False
        if shadow.paused_by:
            error.message += f"; it is {in_commands(shadow.stands_still or '')}"
            raise
        return shadow, True
