"""`/branches`: branches, their records and changes, search. A `/` in a name is sent as %2F."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter

from shadowswitch.engine.calls.branches import WITHIN_S_MAX
from shadowswitch.engine.search.showing import FIELDS_MAX
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.records import JSON_DEPTH_MAX, Hit, Receipt, RecordPage, nests_too_deep
from shadowswitch.model.search.bounds import QUERY_CHARS_MAX
from shadowswitch.model.views import BranchInfo, QuietHours
from shadowswitch.service.http.access import Caller, Forbidden, Scope
from shadowswitch.service.http.bodies import branches as bodies
from shadowswitch.service.http.bodies.branches import SEARCH_TIMEOUT_S_MAX
from shadowswitch.service.http.bodies.fields import WHOLE_MAX
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routing import PREFIX, changes, permitted_branch, reads, removes

BASE = f"{PREFIX}/branches"
ONE = f"{BASE}/{{name:str}}"
READ_TIMEOUT_S = 5.0
PAGE = 1000
"""The entries of a page where the caller says nothing."""
OFFSET_MAX = 100_000
"""The hits before a page are found and sorted for each page, and for an index of several shards held in memory."""
WHERE_CHARS_MAX = 8000
WHERE = 'A filter as JSON: {"field": value}, or {"field": {"gte": 1, "lt": 9, "in": [1, 2], "exists": true}}.'
EVERY_FIELD = "*"
FIELDS = f"Give each hit this field of its record; may be repeated. `{EVERY_FIELD}` is every field."
HIGHLIGHT = "Give each hit the places of the query in its texts: `marks` are begin and end, in characters, in `text`."
NEW_CURSOR = "new"
CURSOR = (
    f"`{NEW_CURSOR}` for the first page of a search whose order stays; then the `cursor` of the page before."
    " The other parameters of a later page do not count."
)
FIELDS_BYTES_MAX = 8 << 20
"""What the fields of all hits of one answer have: they are encoded in one piece."""
TYPES = "Only of these types. One that the index was built without is refused."
SHADOW = "Search this shadow, which is BUILT, live or soaking, in place of the live index."
CHANGES_BYTES_MAX = 8 << 20
"""A page of changes ends early when they are large: it is decoded and encoded in one piece."""
Reason = Annotated[str, Parameter(required=False, max_length=2000)]
After = Annotated[int, Parameter(required=False, ge=0, le=WHOLE_MAX, description="Begin after this one.")]
Limit = Annotated[int, Parameter(required=False, ge=1, le=10_000, description="The most entries of a page.")]


@changes(BASE, Scope.WRITE, status_code=201)
def create(data: bodies.NewBranch, host: Host, caller: Caller) -> BranchInfo:
    """Create a branch."""
    caller.require(Scope.WRITE, data.name)
    return host.engine.create_branch(data.name, by=caller.author, reason=caller.reason)


def _shown(branch: BranchInfo, caller: Caller) -> BranchInfo:
    """A branch as a caller may see it: a parent that its token does not reach is not named."""
    hidden = branch.parent is not None and not caller.reaches(branch.parent)
    return msgspec.structs.replace(branch, parent=None) if hidden else branch


@reads(BASE)
def list_all(host: Host, caller: Caller, after: After = 0, limit: Limit = PAGE) -> bodies.Branches:
    """The branches that the token reaches, by page, in the order of their creation. A fork names its parent.

    `total_count` is that of all pages. `next_after` is the `after` of the next page; the last page has none.
    """
    page = host.engine.branches(limit, after)
    found = [_shown(one, caller) for one in page if caller.reaches(one.name)]
    next_after = page[-1].number if len(page) == limit else None
    if "*" in caller.branches:
        return bodies.Branches(found, host.engine.count_branches(), next_after)
    whole = len(found) if after == 0 and next_after is None else host.engine.count_branches(caller.reaches)
    return bodies.Branches(found, whole, next_after)


@reads(ONE)
def one(name: str, host: Host, caller: Caller) -> BranchInfo:
    """A branch."""
    return _shown(host.engine.branch(permitted_branch(name, caller, Scope.READ)), caller)


@reads(f"{ONE}/quiet-hours")
def quiet(
    name: str,
    host: Host,
    caller: Caller,
    within_s: Annotated[float, Parameter(required=False, ge=0, le=WITHIN_S_MAX)] = 86400,
    calm_s: Annotated[float, Parameter(required=False, ge=0, le=WITHIN_S_MAX)] = 3600,
) -> QuietHours:
    """The quietest hour of a branch, advised only where it beats the quiet rule on the past of the branch."""
    return host.engine.quiet_hours(permitted_branch(name, caller, Scope.READ), within_s, calm_s)


@changes(f"{ONE}/recover", Scope.ADMIN)
def recover(name: str, host: Host, caller: Caller, data: bodies.MoveBranch | None = None) -> BranchInfo:
    """Take a branch out of ERROR: it admits writes again."""
    return _move(host.engine.recover_branch, name, caller, data)


@changes(f"{ONE}/reopen", Scope.ADMIN)
def reopen(name: str, host: Host, caller: Caller, data: bodies.MoveBranch | None = None) -> BranchInfo:
    """Make a READY or MERGED branch ACTIVE again."""
    return _move(host.engine.reopen_branch, name, caller, data)


@changes(f"{ONE}/merge", Scope.ADMIN)
def merge(name: str, host: Host, caller: Caller, data: bodies.MoveBranch | None = None) -> BranchInfo:
    """Note that a READY branch was merged elsewhere: it admits no write until it is reopened."""
    return _move(host.engine.merge_branch, name, caller, data)


@changes(f"{ONE}/archive", Scope.ADMIN)
def archive(name: str, host: Host, caller: Caller, data: bodies.MoveBranch | None = None) -> BranchInfo:
    """Close a branch for good; it stays readable. 409 while a lock or a lease of it is held."""
    return _move(host.engine.archive_branch, name, caller, data)


def _move(
    operation: Callable[[str, str, str], BranchInfo], name: str, caller: Caller, data: bodies.MoveBranch | None
) -> BranchInfo:
    branch = permitted_branch(name, caller, Scope.ADMIN)
    moved = operation(branch, caller.author, (data.reason if data is not None else "") or caller.reason)
    return _shown(moved, caller)


@removes(ONE, Scope.ADMIN)
def drop(name: str, host: Host, caller: Caller, cascade: bool = False, reason: Reason = "") -> bodies.Dropped:
    """Drop a branch with its records and indexes. 409 with `uses` while a fork, a build, a switch or a lock uses it.

    The name is free at once; rows and files go in the background. With `cascade` its forks go with it.
    """
    branch = permitted_branch(name, caller, Scope.ADMIN)
    if cascade and caller.wanted is not None:
        _require_forks(host, caller, branch)
    host.engine.drop_branch(branch, cascade, caller.author, reason or caller.reason)
    return bodies.Dropped(True, f"branch {branch} is dropped", branch)


def _require_forks(host: Host, caller: Caller, branch: str) -> None:
    """Raise Forbidden unless the caller reaches every fork of a branch, and theirs. Reads a page of branches each."""
    below, after = {branch}, 0
    while page := host.engine.branches(PAGE, after):
        below.update(one.name for one in page if one.parent in below)  # a fork is younger than its parent
        after = page[-1].number
    if not all(map(caller.reaches, below)):
        raise Forbidden(
            f"{caller.name} may not touch every fork of branch {branch!r:.220}",
            hint=f"this token is for {', '.join(caller.branches)}; drop its forks with another one first",
        )


@changes(f"{ONE}/write", Scope.WRITE)
def write(name: str, data: bodies.Write, host: Host, caller: Caller) -> Receipt:
    """Commit one batch; the answer comes after the fsync. 423 has the holder of the lock, its reason, alternatives."""
    branch = permitted_branch(name, caller, Scope.WRITE)
    batch = [change.change() for change in data.changes]
    return host.engine.write(branch, batch, caller.owner(data.owner), data.timeout_s, data.tokens)


@reads(f"{ONE}/changes")
def list_changes(name: str, host: Host, caller: Caller, after: After = 0, limit: Limit = 1000) -> bodies.Changes:
    """The journal after an LSN. 410 when it has been trimmed."""
    branch = permitted_branch(name, caller, Scope.READ)
    head = host.engine.head(branch)
    found = host.engine.changes(branch, after, limit, size_max_bytes=CHANGES_BYTES_MAX)
    next_after = found[-1].lsn if found else max(after, head)
    return bodies.Changes(branch, found, next_after, max(head, next_after if found else 0))


@reads(f"{ONE}/records")
def list_records(
    name: str,
    host: Host,
    caller: Caller,
    resource_type: Annotated[str, Parameter(min_length=1, max_length=100)],
    cursor: Annotated[str, Parameter(required=False, max_length=1100)] = "",
    limit: Limit = 500,
) -> RecordPage:
    """The records of a type by page. Send the `cursor` of a page for the next one; the last page has none."""
    branch = permitted_branch(name, caller, Scope.READ)
    return host.engine.scan_page(branch, resource_type, cursor or None, limit)


@reads(f"{ONE}/search")
async def search(
    name: str,
    host: Host,
    caller: Caller,
    q: Annotated[str, Parameter(max_length=QUERY_CHARS_MAX)],
    index_type: Annotated[str, Parameter(required=False, pattern="^[A-Z][A-Z0-9_]{0,63}$")] = "SEARCH_INDEX",
    limit: Annotated[int, Parameter(required=False, ge=1, le=1000)] = 10,
    offset: Annotated[int, Parameter(required=False, ge=0, le=OFFSET_MAX, description="Hits to leave out.")] = 0,
    resource_type: Annotated[list[str] | None, Parameter(required=False, description=TYPES)] = None,
    where: Annotated[str | None, Parameter(required=False, max_length=WHERE_CHARS_MAX, description=WHERE)] = None,
    fields: Annotated[list[str] | None, Parameter(required=False, max_items=FIELDS_MAX, description=FIELDS)] = None,
    highlight: Annotated[bool, Parameter(required=False, description=HIGHLIGHT)] = False,
    cursor: Annotated[str, Parameter(required=False, max_length=100, description=CURSOR)] = "",
    min_lsn: Annotated[int, Parameter(required=False, ge=0, le=WHOLE_MAX)] = 0,
    timeout_s: Annotated[float, Parameter(required=False, gt=0, le=SEARCH_TIMEOUT_S_MAX)] = SEARCH_TIMEOUT_S_MAX,
    shadow_index_id: Annotated[str, Parameter(required=False, max_length=100, description=SHADOW)] = "",
) -> bodies.Found:
    """Search a live index, or a shadow. With `min_lsn` (the LSN of a receipt) the answer shows at least that write.

    Hits are ordered by score, then by resource type and id. Pages by `offset` fit together while the index does not
    change, pages by `cursor` whatever is written.
    503 after `timeout_s`, at most that of the server, and when no place for a search comes free.
    """
    branch = permitted_branch(name, caller, Scope.READ)
    if shadow_index_id:
        refuse_cursor_of_shadow(cursor)
        caller.require(Scope.READ, host.engine.shadow(shadow_index_id).branch_name)
    how: dict[str, Any] = {"resource_types": resource_type, "where": given_where(where), "highlight": highlight}
    how |= {"fields": True if fields == [EVERY_FIELD] else fields}
    how |= {"timeout_s": min(host.engine.config.search_timeout_s, timeout_s)}

    def answer() -> bodies.Found:
        if cursor:
            page = (
                host.engine.search_pages(branch, index_type, q, limit, min_lsn=min_lsn, **how)
                if cursor == NEW_CURSOR
                else host.engine.next_page(cursor, branch)
            )
            return bodies.Found(refuse_large(page.hits), page.lsn, page.generation, page.cursor)
        with host.engine.reader(branch, index_type, min_lsn, READ_TIMEOUT_S, shadow_index_id or None) as reader:
            hits = reader.search(q, limit, offset=offset, **how)
            return bodies.Found(refuse_large(hits), reader.lsn, reader.generation)

    async with host.searches.place(host.share_of(caller), READ_TIMEOUT_S):
        return await sync_to_thread(answer)


@changes(f"{ONE}/query", Scope.READ)
async def query(name: str, data: bodies.Query, host: Host, caller: Caller) -> bodies.Answer:
    """Ask an index a query of a kind that it answers, beyond search: a graph its neighbours, a schema its users.

    Changes nothing. With `min_lsn` the answer shows at least that write; `shadow_index_id` asks a shadow.
    422 for a kind, a call or an argument that the index does not have; 503 as for a search.
    """
    branch = permitted_branch(name, caller, Scope.READ)
    shadow_id = data.shadow_index_id or None
    if shadow_id:
        caller.require(Scope.READ, host.engine.shadow(shadow_id).branch_name)
    timeout_s = min(host.engine.config.search_timeout_s, data.timeout_s)

    def answer() -> bodies.Answer:
        with host.engine.reader(branch, data.index_type, data.min_lsn, READ_TIMEOUT_S, shadow_id) as reader:
            result = reader.query(data.kind, data.call, data.arguments, timeout_s=timeout_s)
            size_bytes = len(msgspec.json.encode(result))
            if size_bytes > FIELDS_BYTES_MAX:
                what = f"the answer has more than {FIELDS_BYTES_MAX >> 20} MiB"
                raise InvalidConfig(what, operation="query", hint="ask for less (limit)")
            return bodies.Answer(result, reader.lsn, reader.generation)

    async with host.searches.place(host.share_of(caller), READ_TIMEOUT_S):
        return await sync_to_thread(answer)


def refuse_large(hits: list[Hit]) -> list[Hit]:
    """The hits. Raises InvalidConfig where their fields are more than one answer has."""
    size_bytes = 0
    for hit in hits:
        size_bytes += len(msgspec.json.encode(hit.fields))
        if size_bytes > FIELDS_BYTES_MAX:
            raise InvalidConfig(
                f"the fields of these hits have more than {FIELDS_BYTES_MAX >> 20} MiB",
                operation="search",
                hint="ask for fewer hits (limit), or name the fields that are shown",
            )
    return hits


def refuse_cursor_of_shadow(cursor: str) -> None:
    """Raise InvalidConfig for pages by cursor of a shadow: only the order of a live index is held."""
    if cursor:
        raise InvalidConfig("a shadow has no pages by cursor", operation="search", hint="use offset")


def given_where(text: str | None) -> dict[str, Any] | None:
    """A filter from its JSON. Raises InvalidConfig."""
    if text is None:
        return None
    try:
        if nests_too_deep(text.encode()):
            raise InvalidConfig(f"where is nested deeper than {JSON_DEPTH_MAX} levels", hint=WHERE)
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidConfig(f"where is no JSON object: {error}", hint=WHERE) from error


HANDLERS = (
    create,
    list_all,
    one,
    quiet,
    recover,
    reopen,
    merge,
    archive,
    write,
    list_records,
    list_changes,
    search,
    query,
    drop,
)
