"""Commands that read: they open the catalog read only, so they work beside a running host and change nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console, Group, RenderableType
from rich.text import Text

from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.engine.reader import outside_reader
from shadowswitch.model.events import EVENT_PREFIX
from shadowswitch.model.views import Event
from shadowswitch.service.cli import output
from shadowswitch.service.cli.daemon_view import ask_upkeep, drawn_upkeep, lasting_upkeep
from shadowswitch.service.cli.directory import Data, Json, Refused, open_catalog
from shadowswitch.service.cli.lock_view import LOCK_HEADINGS, drawn, lasting, lock_cells, show
from shadowswitch.service.cli.locks import locks_of
from shadowswitch.service.cli.status import shadow_status, status_of
from shadowswitch.service.cli.watch import WATCH_S, follow
from shadowswitch.storage.fsck import check_data

After = Annotated[int, Parameter(validator=Number(gte=0), help="Begin after this sequence number.")]
Watch = Annotated[
    bool, Parameter(negative="", show_default=False, help="Go on and show every change, until interrupted.")
]
Follow = Annotated[
    bool, Parameter(negative="", show_default=False, help="Go on with those that come, a line each, until interrupted.")
]
Limit = Annotated[int, Parameter(validator=Number(gte=1), help="At most so many.")]

FOLLOWED = 1000


def add_to(app: App) -> None:
    """Make these commands of the application."""
    for command in (search, status, locks, events, audit, check):
        app.command(command)


def search(
    branch: str, query: str, *, data: Data, index_type: str = "SEARCH_INDEX", limit: Limit = 10, json: Json = False
) -> None:
    """Search a live index; works beside a running host.

    Words are all wanted, "..." is a phrase, a trailing * finds words that begin so.

    Example: `shadowswitch search main "event loop" --data ./data --limit 3`

    Parameters
    ----------
    index_type
        Which index of the branch.
    """
    with open_catalog(data) as catalog, outside_reader(data, catalog, branch, index_type) as reader:
        hits = reader.search(query, limit)
        lsn, generation = reader.lsn, reader.generation
    if json:
        output.print_json({"hits": hits, "lsn": lsn, "generation": generation})
        return
    rows = [[hit.resource_type, hit.id, f"{hit.score:.3f}", hit.lsn] for hit in hits]
    output.table(f"{len(hits)} hits, LSN {lsn}, generation {generation}", ["type", "id", "score", "lsn"], rows)


def status(shadow_id: str | None = None, *, data: Data, watch: Watch = False, json: Json = False) -> None:
    """Who has the data directory open; branches, live indexes and shadows. Works beside a running host.

    Of a running server also what it keeps going: folders, what is left out of them and why, and what is wrong.

    Example: `shadowswitch status --data ./data`

    Parameters
    ----------
    shadow_id
        Only this shadow, in full.
    """

    def look() -> dict[str, Any]:
        if shadow_id is not None:
            return shadow_status(catalog.shadow(shadow_id))
        return {**status_of(catalog, data), "upkeep": ask_upkeep(data, catalog)}

    def drawn(found: dict[str, Any]) -> RenderableType:
        return _drawn_shadow(found) if shadow_id is not None else _drawn_status(found)

    with open_catalog(data) as catalog:
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                follow(look, drawn, _lasting, json)
        elif json:
            output.print_json(look())
        else:
            output.console().print(drawn(look()))


def _lasting(found: dict[str, Any]) -> Any:
    """What of a status changes only when something happens."""
    return {**found, "locks": None, "upkeep": lasting_upkeep(found.get("upkeep"))}


def _drawn_shadow(found: dict[str, Any]) -> RenderableType:
    rows = [[name, _cell(value)] for name, value in found.items()]
    return output.drawn(f"shadow {found['shadow_index_id']}", ["", ""], rows)


COLUMNS = {
    "branches": ("name", "state", "record_count", "head_lsn", "locks", "waiting", "created_at"),
    "indexes": (
        "branch_name", "index_type", "generation", "previous_generation", "record_count", "lag_changes", "build_config",
        "switched_at",
    ),
    "shadows": (
        "shadow_index_id", "branch_name", "index_type", "state", "phase", "build_progress_percent", "record_count",
        "error",
    ),
}  # fmt: skip
"""What a person wants to see of each; `--json` has more."""
HEADINGS = {
    "branch_name": "branch", "build_progress_percent": "%", "lag_changes": "lag", "previous_generation": "previous",
    "record_count": "records",
}  # fmt: skip


def _drawn_status(found: dict[str, Any]) -> RenderableType:
    host = found["host"]
    parts: list[RenderableType] = [
        Text(f"open in process {host['pid']}: {host['command']}" if host else "not open in any process")
    ]
    for title, columns in COLUMNS.items():
        headings = [HEADINGS.get(name, name.replace("_", " ")) for name in columns]
        parts.append(output.drawn(title, headings, [[_cell(row[name]) for name in columns] for row in found[title]]))
    if found["locks"]:
        held = [[lock.branch, *lock_cells(lock)] for lock in found["locks"]]
        parts.append(output.drawn("locks", ["branch", *LOCK_HEADINGS], held))
    if found["waiters"]:
        cells = [[waiter["branch"], waiter["owner"], ", ".join(waiter["wants"])] for waiter in found["waiters"]]
        parts.append(output.drawn("waiting for locks", ["branch", "owner", "for"], cells))
    return Group(*parts, *drawn_upkeep(found["upkeep"]))


def locks(branch: str, *, data: Data, watch: Watch = False, json: Json = False) -> None:
    """Who holds what on a branch, who waits, what is being built; works beside a running host.

    Example: `shadowswitch locks main --data ./data --watch`
    """
    with open_catalog(data) as catalog:
        if not watch:
            show(locks_of(catalog, data, branch), json)
            return
        with contextlib.suppress(KeyboardInterrupt):
            follow(lambda: locks_of(catalog, data, branch), drawn, lasting, json)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def events(*, data: Data, after: After = 0, limit: Limit = 100, follow: Follow = False, json: Json = False) -> None:
    """The event log, in order, as CloudEvents; works beside a running host.

    Example: `shadowswitch events --data ./data --after 100 --follow`
    """
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow_events(data, after, json)
        return
    with open_catalog(data) as catalog:
        found = [event_of(row, catalog.uuid) for row in catalog.events(after, limit)]
    if json:
        output.print_json(found)
        return
    output.table("events", ["", "time", "event", "subject", "data"], map(_event_row, found))


def _follow_events(data: Path, after: int, json: bool) -> None:
    """Each event on a line of its own, as it comes, until interrupted."""
    with open_catalog(data) as catalog:
        while True:
            for row in catalog.events(after, FOLLOWED):
                event = event_of(row, catalog.uuid)
                after = event.sequence
                line = msgspec.json.encode(event).decode() if json else "  ".join(_event_row(event))
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            time.sleep(WATCH_S)


def audit(*, data: Data, after: After = 0, limit: Limit = 1000, json: Json = False) -> None:
    """The audit history, in order: what was switched, forced, moved or recovered, by whom and why. Works beside a host.

    Example: `shadowswitch audit --data ./data --after 100`
    """
    with open_catalog(data) as catalog:
        found = [event_of(row, catalog.uuid) for row in catalog.events(after, limit, "audit")]
    if json:
        output.print_json(found)
        return
    output.table("audit", ["", "time", "what", "subject", "data"], map(_event_row, found))


def _event_row(event: Event) -> list[str]:
    data = "  ".join(f"{name}={_cell(value)}" for name, value in event.data.items())
    kind = event.type.removeprefix(EVENT_PREFIX)
    return [str(event.sequence), f"{event.time:%Y-%m-%d %H:%M:%S}", kind, event.subject, data]


def check(*, data: Data, json: Json = False) -> None:
    """Verify every invariant over everything on disk; exit status 1 when something is found. Works beside a host.

    Example: `shadowswitch check --data ./data`
    """
    console = Console(stderr=True)
    waiting = contextlib.nullcontext() if json or not console.is_terminal else console.status("checking everything")
    with open_catalog(data) as catalog, waiting:
        findings = check_data(catalog, data.absolute())
    if json:
        output.print_json(findings)
    else:
        for finding in findings:
            output.say(str(finding))
        output.say(f"{len(findings)} findings" if findings else "sound")
    if findings:
        raise Refused
