"""`/indexes`: the live indexes, the rollback, other weights; a search of several indexes."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter

from shadowswitch.engine.search.calls import INDEXES_MAX
from shadowswitch.engine.search.showing import FIELDS_MAX
from shadowswitch.model.names import index_named
from shadowswitch.model.search.bounds import QUERY_CHARS_MAX
from shadowswitch.model.views import IndexInfo
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.bodies import shadows as bodies
from shadowswitch.service.http.bodies.branches import Merged
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routes.branches import (
    EVERY_FIELD,
    FIELDS,
    HIGHLIGHT,
    READ_TIMEOUT_S,
    WHERE,
    WHERE_CHARS_MAX,
    given_where,
    refuse_large,
)
from shadowswitch.service.http.routes.shadows import PAGE, Branch, Limit, Reason, switch_answer
from shadowswitch.service.http.routing import PREFIX, changes, reads, removes

BASE = f"{PREFIX}/indexes"
INDEX = "A branch, or `branch:INDEX_TYPE`; may be repeated. Without a type its SEARCH_INDEX."
AfterPlace = Annotated[str, Parameter(required=False, max_length=100, description="Begin after this place.")]


@reads(BASE)
def indexes(
    host: Host, caller: Caller, branch_name: Branch = "", after: AfterPlace = "", limit: Limit = PAGE
) -> bodies.Indexes:
    """The live indexes, of one branch or of all, by page.

    `total_count` is that of all pages. `next_after` is the `after` of the next page; the last page has none.
    """
    if branch_name:
        caller.require(Scope.READ, branch_name)
    page = host.engine.indexes(branch_name or None, limit, after)
    found = [one for one in page if caller.reaches(one.branch_name)]
    next_after = page[-1].place if len(page) == limit else None
    if not after and next_after is None:
        return bodies.Indexes(found, len(found))
    wanted = caller.wanted if not branch_name else lambda name: name == branch_name
    return bodies.Indexes(found, host.engine.count_indexes(wanted), next_after)


@reads(f"{PREFIX}/search")
async def search_many(
    host: Host,
    caller: Caller,
    q: Annotated[str, Parameter(max_length=QUERY_CHARS_MAX)],
    index: Annotated[list[str], Parameter(min_items=1, max_items=INDEXES_MAX, description=INDEX)],
    limit: Annotated[int, Parameter(required=False, ge=1, le=1000)] = 10,
    where: Annotated[str | None, Parameter(required=False, max_length=WHERE_CHARS_MAX, description=WHERE)] = None,
    fields: Annotated[list[str] | None, Parameter(required=False, max_items=FIELDS_MAX, description=FIELDS)] = None,
    highlight: Annotated[bool, Parameter(required=False, description=HIGHLIGHT)] = False,
) -> Merged:
    """Search several live indexes, of one branch or of several. The hits are in one list, by their rank in each."""
    wanted = [index_named(one) for one in index]
    for branch, _ in wanted:
        caller.require(Scope.READ, branch)
    how: dict[str, Any] = {"where": given_where(where), "highlight": highlight}
    how |= {"fields": True if fields == [EVERY_FIELD] else fields}

    def answer() -> Merged:
        found = host.engine.search_many(q, wanted, limit, **how)
        refuse_large([one.hit for one in found])
        return Merged(found)

    async with host.searches.place(host.share_of(caller), READ_TIMEOUT_S):
        return await sync_to_thread(answer)


@changes(f"{BASE}/rollback", Scope.ROLLBACK)
def rollback(data: bodies.Rollback, host: Host, caller: Caller, request: Request[Any, Any, Any]) -> bodies.Switched:
    """Switch to the previous generation; no write since then is lost. A second rollback goes forward again."""
    caller.require(Scope.ROLLBACK, data.branch_name)
    if data.force_switch:
        caller.require(Scope.FORCE_SWITCH, data.branch_name)
    how = bodies.switch_request(data, caller)
    with host.long_call(caller):
        return switch_answer(host.engine.rollback(data.branch_name, data.index_type, how), request)


@changes(f"{BASE}/retune", Scope.BUILD)
def retune(data: bodies.Retune, host: Host, caller: Caller) -> IndexInfo:
    """Let a live index answer with other options that its files serve as they are, such as weights of columns.

    422 for options that need a build.
    """
    caller.require(Scope.BUILD, data.branch_name)
    return host.engine.retune(data.branch_name, data.index_type, data.build_config, caller.author, caller.reason)


@removes(BASE, Scope.ADMIN)
def drop(
    host: Host,
    caller: Caller,
    branch_name: Annotated[str, Parameter(min_length=1, max_length=200)],
    index_type: Annotated[str, Parameter(pattern="^[A-Z][A-Z0-9_]{0,63}$")],
    reason: Reason = "",
) -> bodies.Dropped:
    """Drop an index; the records stay. 409 with `uses` while a build or a switch of it is under way.

    Open readers go on. An index that the settings file describes is built again.
    """
    caller.require(Scope.ADMIN, branch_name)
    host.engine.drop_index(branch_name, index_type, caller.author, reason or caller.reason)
    return bodies.Dropped(True, f"{index_type} of branch {branch_name} is dropped", branch_name, index_type)


HANDLERS = (indexes, search_many, rollback, retune, drop)
