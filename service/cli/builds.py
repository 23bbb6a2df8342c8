"""Builds as commands see them: the status of a shadow, the options of a build, and the wait for its end.

A command that is killed leaves its shadow BUILDING. The next process that opens the directory goes on with it, and the
next equal `build` joins it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.views import RUNNING, moment, paused_text, scheduled_view
from shadowswitch.model.errors import BuildCancelled, BuildFailed, DuplicateBuild, ShadowSwitchError, UnknownShadow
from shadowswitch.model.records import JSON_DEPTH_MAX, nests_too_deep
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import ShadowIndex
from shadowswitch.service import host_file
from shadowswitch.service.cli.directory import open_catalog
from shadowswitch.service.cli.progress import build_details, steps
from shadowswitch.service.hints import in_commands
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.build_spec import refuse_other_options

LOOK_S = 0.1
PREFIX_CHARS_MIN = 4
"""An empty or a very short text is a slip, and names no shadow by chance."""
LISTED_MAX = 5
STOPPED = "no process builds it; the same build command, or serve, goes on with it"
EXTERNAL_STOPPED = "no process has the directory open; its builder cannot report until serve runs"
SERVICE = "cli"
"""The service name of a build of the command line."""


def shadow_status(row: ShadowRow, hosted: bool) -> dict[str, Any]:
    """A shadow as the catalog has it, under the names of ShadowIndex.

    `stands_still` is the reason why no process builds it; `hosted` is True while a process has the directory open.
    """
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
        "error": row.error,
        "priority": row.priority,
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
    if len(given) < PREFIX_CHARS_MIN or catalog.find_shadow(given) is not None:
        return catalog.shadow(given)
    found = [row for row in catalog.shadows() if row.id.startswith(given)]
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


def types_to_build(catalog: Catalog, branch: str, given: list[str] | None) -> list[str]:
    """The resource types of a build. Raises UnknownBranch; ShadowSwitchError for a branch without a record."""
    found = given or types_of(catalog, branch)
    if not found:
        raise ShadowSwitchError(f"branch {branch!r} has no records", hint="import some, or give --resource-type")
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
    """Show the progress of a build until it ends. Ctrl-C cancels the build. Raises BuildFailed, BuildCancelled."""
    id = shadow.shadow_index_id
    title = f"build {shadow.index_type} of {shadow.branch_name}"
    with steps(quiet) as show:
        try:
            while shadow.state in RUNNING:
                show(title, shadow.build_progress_percent, build_details(shadow))
                time.sleep(LOOK_S)
                shadow = engine.shadow(id)
        except KeyboardInterrupt:
            engine.cancel_build(id, "interrupted", by)
            raise
    if shadow.state == ShadowState.FAILED:
        raise BuildFailed(f"shadow {id} failed: {shadow.error}", object=id)
    if shadow.state == ShadowState.CANCELLED:
        raise BuildCancelled(f"shadow {id} was cancelled: {shadow.error or 'no reason given'}")
    return shadow


def cut_off_build(catalog: Catalog, data: Path, branch: str, index_type: str) -> str:
    """The id of a build of the index that a `build` may join; "" without one.

    Where a server has the directory open, that is a build of the command line only.
    """
    served = host_file.read(data) is not None
    for row in catalog.shadows():
        same = row.branch_name == branch and row.index_type == index_type
        if same and row.state in RUNNING and not row.external and (not served or row.service_name == SERVICE):
            return row.id
    return ""


def start_or_join(
    engine: Engine | RemoteEngine,
    cut_off: str,
    branch: str,
    index_type: str,
    resource_types: Sequence[str],
    build_config: dict[str, Any],
    by: str = "",
    reason: str = "",
    priority: int = 0,
) -> tuple[ShadowIndex, bool]:
    """Start a build, or join the equal one that was cut off; True if it was joined.

    Raises DuplicateBuild while another build of the index is under way, or one with other options, or a paused one.
    """
    try:
        shadow = engine.start_build(
            branch, index_type, resource_types, build_config, service_name=SERVICE, by=by, reason=reason,
            priority=priority,
        )  # fmt: skip
        return shadow, False
    except DuplicateBuild as error:
        if not cut_off or error.shadow_index_id != cut_off:
            raise
        shadow = engine.shadow(cut_off)
        begun = (shadow.resource_types, shadow.build_config)
        refuse_other_options(error, index_type, begun, (resource_types, build_config))
        if shadow.paused_by:
            error.message += f"; it is {in_commands(shadow.stands_still or '')}"
            raise
        return shadow, True
