"""What `status` tells of what a running server keeps going: folders, what is left out of them, what is wrong.

Asked of the server, because it is nowhere on the disk; without one, or without an answer soon, nothing is told.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.service import host_file
from shadowswitch.service.cli import output
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog

Found = dict[str, Any]


def ask_upkeep(data: Path, catalog: Catalog) -> Found | None:
    """The answer of GET /upkeep; None without a server."""
    found = host_file.read(data)
    if found is None:
        return None
    with contextlib.suppress(ShadowSwitchError), contextlib.closing(RemoteEngine(found, data, catalog)) as server:
        return server.upkeep()
    return None


def lasting_upkeep(found: Found | None) -> Any:
    """What of it changes only when something happens that a person wants to know."""
    if found is None:
        return None
    mirrors = [(one["folder"], one["branch"], one["skipped"], one["error"]) for one in found["mirrors"]]
    indexes = [(one["branch"], one["index_type"], one["as_described"], one["error"]) for one in found["indexes"]]
    return mirrors, indexes, found["error"], found["not_started"], found["restart_needed"]


def drawn_upkeep(found: Found | None) -> list[RenderableType]:
    """As it is to be seen: nothing of a server that keeps nothing going."""
    if found is None:
        return []
    parts: list[RenderableType] = []
    if found["mirrors"]:
        columns = ["folder", "branch", "files", "left out", "wrong"]
        parts.append(output.drawn("folders that are followed", columns, map(_mirror_cells, found["mirrors"])))
    wrong = [f"{one['index_type']} of {one['branch']}: {one['error']}" for one in found["indexes"] if one["error"]]
    wrong += [f"webhook {one['name']}: {one['error']}" for one in found["webhooks"] if one["error"]]
    wrong += [f"{name} cannot be started: {why}" for name, why in found["not_started"].items()]
    if found["error"]:
        wrong.append(f"the settings stay as they were: {found['error']}")
    if found["restart_needed"]:
        wrong.append("the rules for incoming events are used from the next start on")
    return [*parts, *map(Text, wrong)]


def _mirror_cells(mirror: Found) -> list[Any]:
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(mirror["skipped"].items()))
    return [mirror["folder"], mirror["branch"], mirror["files"], left_out, mirror["error"] or ""]
