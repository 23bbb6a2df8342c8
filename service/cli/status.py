"""The view of a data directory: host, branches, live indexes, shadows and locks, read from the disk beside a host.

The names are those of BranchInfo, IndexInfo and ShadowIndex. A running host writes progress and the LSN of a shadow
within some seconds, so the view may be that old. The daemon of a server keeps its status in memory only; its part of
the view comes from the server, and is absent without an answer.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType

from shadowswitch.engine.groups.calls import group_view
from shadowswitch.engine.reader import outside_reader
from shadowswitch.engine.views import RUNNING, moment
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.groups.views import BOUND
from shadowswitch.model.groups.views import Group as IndexGroup
from shadowswitch.model.locks.info import Lock, LockWaiter
from shadowswitch.service import host_file
from shadowswitch.service.cli import output
from shadowswitch.service.cli.branches.shown import fork_text
from shadowswitch.service.cli.builds import builds_of_server, shadow_status
from shadowswitch.service.cli.locks import LOCK_HEADINGS, held_and_waiting, lock_cells
from shadowswitch.service.daemon.text_files import counts_text
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.locks import all_locks
from shadowswitch.storage.catalog.rows import BranchRow, IndexRow
from shadowswitch.storage.catalog.source.branch_pages import branch_count, branch_pages, branch_rows
from shadowswitch.storage.catalog.source.group_table import group_rows
from shadowswitch.storage.catalog.source.index_pages import index_pages
from shadowswitch.storage.catalog.source.shadow_table import shadow_heads

COLUMNS = {
    "branches": ("name", "state", "fork", "record_count", "head_lsn", "locks", "waiting", "created_at"),
    "indexes": (
        "branch_name", "index_type", "generation", "previous_generation", "record_count", "lag_changes", "build_config",
        "switched_at", "error",
    ),
    "shadows": (
        "shadow_index_id", "branch_name", "index_type", "state", "phase", "build_progress_percent", "record_count",
        "error",
    ),
}  # fmt: skip
"""The columns of each table; `--json` has every value."""
HEADINGS = {
    "branch_name": "branch", "build_progress_percent": "%", "fork": "fork of", "lag_changes": "lag",
    "previous_generation": "previous", "record_count": "records",
}  # fmt: skip


PAGE = 1000


def status_of(catalog: Catalog, data: Path, limit: int = PAGE, after: int = 0) -> output.View:
    """The view of the whole data directory: `limit` branches with a number above `after`, and the newest shadows."""
    page = list(islice(branch_pages(catalog, after), limit))
    parents = branch_rows(catalog, [row.parent for row in page if row.parent])
    live = list(index_pages(catalog))
    with catalog.read() as txn:
        places = sorted((head.generation, head.id, head.branch) for head in shadow_heads(catalog, txn))
    host = host_file.holder_of(data)
    stored = {row.branch: row for row in all_locks(catalog)}
    held = {number: held_and_waiting(catalog, row, hosted=host is not None) for number, row in stored.items()}
    branches = branch_rows(catalog, [*(row.branch for row in live), *(branch for _, _, branch in places), *stored])
    ids = [id for _, id, branch in places if branch in branches]
    shadows = filter(None, map(catalog.find_shadow, ids[-limit:]))
    live = [row for row in live if row.branch in branches]
    builds = builds_of_server(data, catalog)
    locks = [lock for locks, _ in held.values() for lock in locks]
    waiters = [
        {"branch": branches[number].name, **msgspec.structs.asdict(waiter)}
        for number, (_, waiters) in held.items()
        for waiter in waiters
    ]
    counts = {
        "branches": branch_count(catalog), "indexes": len(live), "shadows": len(ids), "locks": len(locks),
        "waiters": len(waiters),
    }  # fmt: skip
    return {
        "host": host,
        "branches": [_branch(catalog, row, held.get(row.number), parents.get(row.parent)) for row in page],
        "indexes": [_index(catalog, data, row, branches[row.branch].name) for row in live[:limit]],
        "shadows": [shadow_status(row, host is not None, builds.get(row.id)) for row in shadows],
        "counts": counts,
        "next_after": page[-1].number if len(page) == limit else None,
        "locks": locks[:limit],
        "waiters": waiters[:limit],
        "groups": [group_view(catalog, row) for row in group_rows(catalog) if row.state in BOUND],
        "upkeep": _daemon_status(data, catalog),
    }


def _branch(
    catalog: Catalog,
    row: BranchRow,
    held: tuple[list[Lock], tuple[LockWaiter, ...]] | None,
    parent: BranchRow | None,
) -> dict[str, Any]:
    head, oldest = catalog.head(row.number)
    locks, waiters = held or ([], ())
    return {
        "name": row.name,
        "state": row.state,
        "head_lsn": head,
        "record_count": catalog.record_count(row.number),
        "locks": len(locks),
        "waiting": len(waiters),
        "oldest_lsn": oldest,
        "created_at": moment(row.created_at),
        "parent": parent.name if parent is not None else None,
        "fork_lsn": row.fork_lsn if parent is not None else None,
        "mode": row.mode if parent is not None else None,
    }


def _index(catalog: Catalog, data: Path, row: IndexRow, branch: str) -> dict[str, Any]:
    """A live index. `lag_changes` counts from the LSN of its readers; `error`: why it cannot be read,
    or does not follow the journal."""
    head = catalog.head(row.branch)[0]
    generation = catalog.generation(row.live)
    shadow = catalog.find_shadow(generation.shadow_id) if generation is not None else None
    found: dict[str, Any] = {
        "branch_name": branch,
        "index_type": row.index_type,
        "resource_types": generation.resource_types if generation is not None else [],
        "generation": row.live,
        "shadow_index_id": shadow.id if shadow is not None else "",
        "previous_generation": row.previous or None,
        "head_lsn": head,
        "switches": row.epoch,
        "switched_at": moment(row.switched_at),
        "build_config": shadow.build_config if shadow is not None else {},
        "error": (generation.hindered if generation is not None else "") or None,
    }
    try:
        with outside_reader(data, catalog, branch, row.index_type) as reader:
            count = reader.count()
            found |= {"record_count": count, "applied_lsn": reader.lsn, "lag_changes": max(0, head - reader.lsn)}
    except ShadowSwitchError as error:
        found |= {"record_count": None, "applied_lsn": None, "lag_changes": None, "error": str(error)}
    return found


def _daemon_status(data: Path, catalog: Catalog) -> dict[str, Any] | None:
    """The answer of the server to GET /upkeep; None without a server, and without an answer."""
    found = host_file.read(data)
    if found is None:
        return None
    with contextlib.suppress(ShadowSwitchError), contextlib.closing(RemoteEngine(found, data, catalog)) as server:
        return server.daemon_status()
    return None


# -- the view on a terminal ----------------------------------------------------------------------------------------


def stable_status(found: output.View) -> Any:
    """The part of the view without values that change by themselves, and without counters."""
    return {**found, "locks": None, "upkeep": _stable_daemon(found["upkeep"])}


def _stable_daemon(found: dict[str, Any] | None) -> Any:
    if found is None:
        return None
    mirrors = [(one["folder"], one["branch"], one["skipped"], one["error"]) for one in found["mirrors"]]
    indexes = [(one["branch"], one["index_type"], one["as_described"], one["error"]) for one in found["indexes"]]
    return mirrors, indexes, found["error"], found["not_started"], found["restart_needed"]


def render_status(found: output.View) -> RenderableType:
    """The view as text and tables."""
    host = found["host"]
    holder = f"open in process {host['pid']}: {host['command']}" if host else "not open in any process"
    parts: list[RenderableType] = [output.plain(holder)]
    for name, count in found["counts"].items():
        if count > len(found[name]):
            parts.append(output.plain(f"{len(found[name])} of {count} {name}; --limit and --after show others"))
    for title, columns in COLUMNS.items():
        columns = tuple(name for name in columns if name != "fork" or any(row["parent"] for row in found[title]))
        headings = [HEADINGS.get(name, name.replace("_", " ")) for name in columns]
        cells = [[output.cell(_as_shown(row)[name]) for name in columns] for row in found[title]]
        parts.append(output.table(title, headings, cells))
    if found["locks"]:
        held = [[lock.branch, *lock_cells(lock)] for lock in found["locks"]]
        parts.append(output.table("locks", ["branch", *LOCK_HEADINGS], held))
    if found["waiters"]:
        cells = [[waiter["branch"], waiter["owner"], ", ".join(waiter["wants"])] for waiter in found["waiters"]]
        parts.append(output.table("waiting for locks", ["branch", "owner", "for"], cells))
    if found["groups"]:
        cells = [[one.id, one.name, one.state, _members(one)] for one in found["groups"]]
        parts.append(output.table("groups that hold their indexes", ["id", "name", "state", "members"], cells))
    return Group(*parts, *_render_daemon(found["upkeep"]))


def _members(group: IndexGroup) -> str:
    return ", ".join(f"{one.index_type} of {one.branch_name}" for one in group.members)


def _as_shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: the phase of a throttled build with its share; where no error is shown, the reason why a build
    stands still; of which branch one is a fork."""
    slower = output.time_share(row.get("share")) if row.get("state") in RUNNING else ""
    shown = {"phase": f"{row['phase']}, {slower}"} if slower else {}
    shown["fork"] = fork_text(row.get("parent"), row.get("fork_lsn"), row.get("mode")).removeprefix("fork of ")
    return {**row, **shown, "error": row.get("error") or row.get("stands_still")}


def _render_daemon(found: dict[str, Any] | None) -> list[RenderableType]:
    if found is None:
        return []
    parts: list[RenderableType] = []
    if found["mirrors"]:
        columns = ["folder", "branch", "files", "left out", "error"]
        cells = [
            [one["folder"], one["branch"], one["files"], counts_text(one["skipped"]), one["error"]]
            for one in found["mirrors"]
        ]
        parts.append(output.table("folders that are followed", columns, cells))
    errors = [f"{one['index_type']} of {one['branch']}: {one['error']}" for one in found["indexes"] if one["error"]]
    errors += [f"webhook {one['name']}: {one['error']}" for one in found["webhooks"] if one["error"]]
    errors += [f"{name} cannot be started: {error}" for name, error in found["not_started"].items()]
    if found["error"]:
        errors.append(f"the settings stay as they were: {found['error']}")
    if found["restart_needed"]:
        errors.append("[incoming] and [engine] of the settings take effect at the next start")
    return [*parts, *map(output.plain, errors)]


def render_shadow(found: output.View) -> RenderableType:
    """One shadow as a table."""
    rows = [[name, output.cell(value)] for name, value in found.items()]
    return output.table(f"shadow {found['shadow_index_id']}", ["", ""], rows)
