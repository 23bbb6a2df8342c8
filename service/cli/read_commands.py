"""The commands that read. They open the catalog read-only, so they work beside a running host and change nothing.

`check --repair` is the exception: it calls the server of the data directory, or opens an engine in this process.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import RenderableType

from shadowswitch.actors.build.disk_check import OnProgress, check_closed
from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.engine.reader import Reader, outside_reader
from shadowswitch.model.events import EVENT_PREFIX, to_cloud_event
from shadowswitch.model.names import escaped, index_named
from shadowswitch.model.records import JSON_DEPTH_MAX, Hit, nests_too_deep
from shadowswitch.model.search.bounds import SEARCH_TIMEOUT_S
from shadowswitch.model.search.merged import Index, MergedHit, merge_by_rank
from shadowswitch.model.search.snippets import Snippet
from shadowswitch.model.views import CheckProgress, Event, Finding
from shadowswitch.service import host_file
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import builds_of_server, find_shadow, shadow_status
from shadowswitch.service.cli.directory import (
    By,
    Data,
    Json,
    Reason,
    Refused,
    ShadowId,
    open_catalog,
    open_engine,
    require_data,
)  # fmt: skip
from shadowswitch.service.cli.locks import locks_of, render_locks, stable_locks
from shadowswitch.service.cli.progress import steps
from shadowswitch.service.cli.status import PAGE, render_shadow, render_status, stable_status, status_of
from shadowswitch.service.reached import check_reached
from shadowswitch.service.remote import ready_of
from shadowswitch.storage.activity import quiet_hours

After = Annotated[int, Parameter(validator=Number(gte=0), help="Start after this sequence number.")]
Limit = Annotated[int, Parameter(validator=Number(gte=1), help="Print at most this many.")]
Watch = Annotated[bool, Parameter(negative="", show_default=False, help="Show every change until interrupted.")]
Follow = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Print new events, one on each line, until interrupted."),
]
FOLLOW_PAGE = 1000
CHECKING = "check"
GUARDED = frozenset({"backup", "export", "search", "query", "diff", "status", "locks", "events", "audit"})
"""The commands that map files of the directory in their own process, see `service.cli.guard`."""


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (search, status, health, quiet, locks, events, audit, check):
        app.command(command)


def search(
    branch: str,
    query: str,
    *,
    data: Data,
    index_type: str = "SEARCH_INDEX",
    limit: Limit = 10,
    offset: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    resource_types: Annotated[list[str] | None, Parameter(name="--type", negative="", show_default=False)] = None,
    where: Annotated[str | None, Parameter(show_default=False)] = None,
    fields: Annotated[list[str] | None, Parameter(name="--fields", negative="", show_default=False)] = None,
    highlight: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = SEARCH_TIMEOUT_S,
    shadow: Annotated[str | None, Parameter(show_default=False)] = None,
    also: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Search a live index, or a shadow before it is live. Works beside a running host.

    A hit contains every word of the query. "..." is a phrase, a trailing * matches every word with this prefix, OR
    finds either of two words, -word leaves out the hits with that word (docs/search.md). The best hits come first.

    Example: `shadowswitch search main "event loop" --data ./data --limit 3 --where '{"size_bytes": {"gte": 1000}}'`

    Parameters
    ----------
    index_type
        The index to search.
    offset
        Leave out so many of the best hits.
    resource_types
        Only records of this resource type; may be repeated. A type that the index was built without is refused.
    where
        A filter as JSON: {"field": value}, or {"field": {"gte": 1, "lt": 9, "in": [1, 2], "exists": true}}.
    fields
        Show this field of each record; may be repeated. * is every field.
    highlight
        Show where in each record the query was found.
    timeout
        Stop a search that takes longer than so many seconds.
    shadow
        Search this shadow, which is BUILT, live or soaking: its id, or the beginning of its id.
    also
        Search this index, too: `BRANCH` or `BRANCH:INDEX_TYPE`; may be repeated. The hits are in one list, by rank.
    """
    shown = True if fields == ["*"] else fields
    ask = partial(
        Reader.search, query=query, limit=limit, offset=offset, resource_types=resource_types,
        where=_filter(where), fields=shown, highlight=highlight, timeout_s=timeout,
    )  # fmt: skip
    found: dict[Index, list[Hit]] = {}
    for index in ((branch, index_type), *map(index_named, also or ())):
        with opened_reader(data, *index, shadow if not found else None) as reader:
            found[index] = ask(reader)
            lsn, generation = reader.lsn, reader.generation
    with_texts = bool(shown or highlight)
    if also:
        _print_merged(merge_by_rank(found, limit), with_texts, json)
    else:
        _print_hits(found[branch, index_type], lsn, generation, with_texts, json)


def _print_hits(hits: list[Hit], lsn: int, generation: int, with_texts: bool, json: bool) -> None:
    if json:
        output.print_json({"hits": hits, "lsn": lsn, "generation": generation})
        return
    rows = [[hit.resource_type, hit.id, f"{hit.score:.3f}", hit.lsn] for hit in hits]
    title = f"{output.counted(len(hits), 'hit')}, LSN {lsn}, generation {generation}"
    output.print_table(title, ["type", "id", "score", "lsn"], rows)
    _print_texts(hits if with_texts else [])


def _print_merged(merged: list[MergedHit], with_texts: bool, json: bool) -> None:
    if json:
        output.print_json({"hits": merged})
        return
    rows = [[one.branch_name, one.index_type, one.hit.resource_type, one.hit.id, one.hit.lsn] for one in merged]
    output.print_table(output.counted(len(merged), "hit"), ["branch", "index", "type", "id", "lsn"], rows)
    _print_texts([one.hit for one in merged] if with_texts else [])


def _print_texts(hits: list[Hit]) -> None:
    for hit in hits:
        output.print_texts(f"{hit.resource_type}/{hit.id}", _shown(hit))


def _shown(hit: Hit) -> dict[str, Snippet]:
    """The fields of a hit as texts, and its highlights in their place."""
    texts = {name: Snippet(output.cell(value), []) for name, value in (hit.fields or {}).items()}
    return {**texts, **(hit.highlights or {})}


@contextlib.contextmanager
def opened_reader(data: Path, branch: str, index_type: str, shadow: str | None) -> Iterator[Reader]:
    """A reader beside a host: of the live index, or of a shadow that is named by its id or the beginning of it."""
    with open_catalog(data) as catalog:
        id = find_shadow(catalog, shadow).id if shadow is not None else None
        with outside_reader(data, catalog, branch, index_type, id) as reader:
            yield reader


def _filter(text: str | None) -> dict[str, Any] | None:
    return None if text is None else given_object(text, "--where")


def given_object(text: str, name: str) -> dict[str, Any]:
    """An argument that is a JSON object. Raises ValueError."""
    try:
        if nests_too_deep(text.encode()):
            raise ValueError(f"{name} is nested deeper than {JSON_DEPTH_MAX} levels")
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"{name} is no JSON object: {error}") from error


def status(
    shadow_id: ShadowId | None = None,
    *,
    data: Data,
    limit: Limit = PAGE,
    after: Annotated[int, Parameter(validator=Number(gte=0), help="Show branches after this number.")] = 0,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Show the host process, branches, live indexes, shadows and locks. Works beside a running host.

    A running server adds its mirrored folders, the reasons for files that they leave out, and its errors.

    Example: `shadowswitch status --data ./data`

    Parameters
    ----------
    shadow_id
        Show only the shadow of this id, or of the beginning of its id, with every value.
    limit
        Show at most so many branches and indexes, and so many of the newest shadows. `next_after` of `--json` begins
        the next page of branches.
    """

    def look() -> output.View:
        if shadow_id is None:
            return status_of(catalog, data, limit, after)
        row, hosted = find_shadow(catalog, shadow_id), host_file.holder_of(data) is not None
        return shadow_status(row, hosted, builds_of_server(data, catalog).get(row.id))

    def render(found: output.View) -> RenderableType:
        return render_shadow(found) if shadow_id is not None else render_status(found)

    def stable_part(found: output.View) -> output.View:
        return found if shadow_id is not None else stable_status(found)

    with open_catalog(data) as catalog:
        output.show(look, render, stable_part, watch=watch, json=json)


def health(*, data: Data, json: Json = False) -> None:
    """Ask the server of a data directory whether it is ready. Exit status 1, with every reason, if it is not.

    For the health check of a container, or of a script. An engine that is no server has `Engine.health`.

    Example: `shadowswitch health --data ./data`
    """
    found = ready_of(data)
    reasons = [str(reason) for reason in found["reasons"]]
    output.print_result(found, "ready" if found["ready"] else ["not ready", *reasons], json)
    if not found["ready"]:
        raise Refused


def quiet(
    branch: str,
    *,
    data: Data,
    within: Annotated[float, Parameter(validator=Number(gte=0))] = 86400,
    calm: Annotated[float, Parameter(validator=Number(gte=0))] = 3600,
    json: Json = False,
) -> None:
    """Say when a switch would meet no commit, if that is better known than by waiting for quiet. Works beside a host.

    Example: `shadowswitch quiet main --data ./data`

    Parameters
    ----------
    within
        The quietest hour of so many seconds from now.
    calm
        A switch is a hit if no commit comes for so many seconds behind it.
    """
    with open_catalog(data) as catalog:
        found = quiet_hours(catalog, catalog.branch(branch), time.time(), within, calm, lambda: None)
    text = [found.message]
    if found.switch_at is not None:
        text.insert(0, f"switch at {found.switch_at:%Y-%m-%d %H:%M} UTC")
    output.print_result(found, text, json)


def locks(branch: str, *, data: Data, watch: Watch = False, json: Json = False) -> None:
    """Show the locks, waiters and builds of a branch. Works beside a running host.

    Example: `shadowswitch locks main --data ./data --watch`
    """
    with open_catalog(data) as catalog:
        output.show(lambda: locks_of(catalog, data, branch), render_locks, stable_locks, watch=watch, json=json)


def events(*, data: Data, after: After = 0, limit: Limit = 100, follow: Follow = False, json: Json = False) -> None:
    """Print the event log in order, as CloudEvents. Works beside a running host.

    Example: `shadowswitch events --data ./data --after 100 --follow`
    """
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow_events(data, after, json)
    else:
        _print_events("events", "outbox", data, after, limit, json)


def audit(*, data: Data, after: After = 0, limit: Limit = 1000, json: Json = False) -> None:
    """Print the audit history in order, with actor and reason of each entry. Works beside a running host.

    The history has switches, rollbacks, forced actions, changes of a branch's state, and recoveries.

    Example: `shadowswitch audit --data ./data --after 100`
    """
    _print_events("audit", "audit", data, after, limit, json)


def _print_events(title: str, database: str, data: Data, after: int, limit: int, json: bool) -> None:
    with open_catalog(data) as catalog:
        check_reached(after, catalog.span(database), "event" if database == "outbox" else "entry")
        found = [event_of(row, catalog.uuid) for row in catalog.events(after, limit, database)]
    if json:
        output.print_json([to_cloud_event(one) for one in found] if database == "outbox" else found)
    else:
        output.print_table(title, ["", "time", "event", "subject", "data"], map(_event_cells, found))


def _follow_events(data: Data, after: int, json: bool) -> None:
    with open_catalog(data) as catalog:
        check_reached(after, catalog.span())
        while True:
            for row in catalog.events(after, FOLLOW_PAGE):
                event = event_of(row, catalog.uuid)
                after = event.sequence
                if json:
                    output.print_json_line(to_cloud_event(event))
                else:
                    sys.stdout.write(escaped("  ".join(_event_cells(event))) + "\n")
            sys.stdout.flush()
            time.sleep(output.WATCH_S)


def _event_cells(event: Event) -> list[str]:
    data = "  ".join(f"{name}={output.cell(value)}" for name, value in event.data.items())
    kind = event.type.removeprefix(EVENT_PREFIX)
    return [str(event.sequence), f"{event.time:%Y-%m-%d %H:%M:%S}", kind, event.subject, data]


def check(
    *,
    data: Data,
    repair: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Verify every invariant over all data on disk. Works beside a running host.

    The check runs on every core. Exit status 0: the data is sound. Exit status 1: the check has findings that stand.

    Example: `shadowswitch check --data ./data --repair`

    Parameters
    ----------
    repair
        Derive again what the catalog holds twice: digests, numbers, names, and damaged records of which a proven copy
        exists. A running server does it; without one, this process. Each repair is in the audit history.
    """
    require_data(data)
    with steps(quiet=json) as show:

        def shown(found: CheckProgress) -> None:
            eta = f"ETA {found.eta_s:.0f} s" if found.eta_s is not None else ""
            show(CHECKING, found.percent, f"part {found.parts_done} of {found.parts}  {eta}")

        show(CHECKING, 0, "")
        findings = _repaired(data, by, reason, shown) if repair else _checked(data, shown)
    standing = sum(not finding.repaired for finding in findings)
    counts = [f"{len(findings) - standing} repaired"] if standing < len(findings) else []
    counts.append(output.counted(standing, "finding") if standing else "sound")
    output.print_result(findings, [*map(str, findings), ", ".join(counts)], json)
    if standing:
        raise Refused


def _checked(data: Path, progress: OnProgress) -> list[Finding]:
    return check_closed(data.absolute(), progress)


def _repaired(data: Path, by: str, reason: str, progress: OnProgress) -> list[Finding]:
    with open_engine(data) as engine:
        return engine.check(repair=True, by=by, reason=reason, progress=progress)
