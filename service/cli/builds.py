"""Builds as commands see them: the status of a shadow, the options of a build, and the wait for its end."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.views import RUNNING, moment
from shadowswitch.model.errors import BuildCancelled, BuildFailed, UnknownShadow
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import ShadowIndex
from shadowswitch.service.cli.progress import build_details, steps
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowRow

LOOK_S = 0.1
PREFIX_CHARS_MIN = 4
"""An empty or a very short text is a slip, and names no shadow by chance."""
LISTED_MAX = 5
STOPPED = "no process builds it; the same build command, or serve, goes on with it"
EXTERNAL_STOPPED = "no process has the directory open; its builder cannot report until serve runs"


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
        "estimated_completion_seconds": row.eta_s,
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
        "stands_still": (EXTERNAL_STOPPED if row.external else STOPPED) if stopped else None,
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


def types_of(catalog: Catalog, branch: str) -> list[str]:
    """The resource types with records on a branch. Raises UnknownBranch."""
    names = catalog.types()
    digests = catalog.digests(catalog.branch(branch).number)
    return sorted(names[number] for number, digest in digests.items() if digest.count)


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
