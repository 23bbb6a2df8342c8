"""`/branches`: branches, their records and changes, search. A `/` in a name is sent as %2F."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar.params import Parameter

from shadowswitch.model.errors import InvalidChange
from shadowswitch.model.records import Change, Delete, Hit, Put, Receipt, RecordPage
from shadowswitch.model.views import BranchInfo
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.bodies.shadows import (
    WHOLE_MAX,
    Body,
    BranchName,
    Name,
    RecordId,
    ResourceType,
    Text,
    Whole,
)
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.middleware import plain
from shadowswitch.service.http.routing import PREFIX, changes, reads

BASE = f"{PREFIX}/branches"
ONE = f"{BASE}/{{name:str}}"
WRITE_TIMEOUT_S_MAX = 60.0
READ_TIMEOUT_S = 5.0
After = Annotated[int, Parameter(required=False, ge=0, le=WHOLE_MAX, description="Begin after this one.")]
Limit = Annotated[int, Parameter(required=False, ge=1, le=10_000, description="At most so many.")]
Tokens = Annotated[list[Whole], msgspec.Meta(max_length=100)]


class NewBranch(Body, frozen=True):
    """What to call it: 1 to 200 printable characters."""

    name: BranchName


class Branches(msgspec.Struct, frozen=True):
    """Branches in the order of their creation."""

    branches: list[BranchInfo]
    total_count: int


class MoveBranch(Body, frozen=True):
    """Why; it is kept in the audit, with who."""

    reason: Text = ""


class ChangeIn(Body, frozen=True):
    """A put of the full image of a record, or a delete."""

    resource_type: ResourceType
    id: RecordId
    kind: Literal["put", "delete"] = "put"
    fields: dict[str, Any] | None = None

    def change(self) -> Put | Delete:
        """As the engine takes it. Raises InvalidChange."""
        if self.kind == "delete":
            if self.fields is not None:
                raise InvalidChange(
                    f"the delete of {self.id!r:.80} has fields", hint="leave them out, or make it a put"
                )
            return Delete(self.resource_type, self.id)
        if self.fields is None:
            raise InvalidChange(f"the put of {self.id!r:.80} has no fields", hint="send all fields of the record")
        return Put(self.resource_type, self.id, self.fields)


class Write(Body, frozen=True):
    """One atomic, durable batch. `tokens` are those of locks of the same `owner`."""

    changes: Annotated[list[ChangeIn], msgspec.Meta(min_length=1, max_length=10_000)]
    owner: Name = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=WRITE_TIMEOUT_S_MAX)] = 10.0
    tokens: Tokens = []


class Changes(msgspec.Struct, frozen=True):
    """A page of the journal. Go on with `after=next_after` while that is below `head_lsn`."""

    branch_name: str
    changes: list[Change]
    next_after: int
    head_lsn: int


class Found(msgspec.Struct, frozen=True):
    """Hits of one generation, which shows everything up to `lsn`."""

    hits: list[Hit]
    lsn: int
    generation: int


@changes(BASE, Scope.WRITE, status_code=201)
def create(data: NewBranch, host: Host, caller: Caller) -> BranchInfo:
    """Make a branch."""
    caller.require(Scope.WRITE, data.name)
    return host.engine.create_branch(data.name)


@reads(BASE)
def list_all(host: Host, caller: Caller) -> Branches:
    """All branches that the caller may see."""
    found = [one for one in host.engine.branches() if caller.reaches(one.name)]
    return Branches(found, len(found))


@reads(ONE)
def one(name: str, host: Host, caller: Caller) -> BranchInfo:
    """A branch."""
    caller.require(Scope.READ, plain(name))
    return host.engine.branch(plain(name))


@changes(f"{ONE}/recover", Scope.ADMIN)
def recover(name: str, host: Host, caller: Caller, data: MoveBranch | None = None) -> BranchInfo:
    """The cause of a branch's ERROR is gone: it admits writes again."""
    return _move(host.engine.recover_branch, name, caller, data)


@changes(f"{ONE}/reopen", Scope.ADMIN)
def reopen(name: str, host: Host, caller: Caller, data: MoveBranch | None = None) -> BranchInfo:
    """Go on working on a READY or MERGED branch."""
    return _move(host.engine.reopen_branch, name, caller, data)


@changes(f"{ONE}/merge", Scope.ADMIN)
def merge(name: str, host: Host, caller: Caller, data: MoveBranch | None = None) -> BranchInfo:
    """A READY branch was merged elsewhere: it admits no write until it is reopened."""
    return _move(host.engine.merge_branch, name, caller, data)


@changes(f"{ONE}/archive", Scope.ADMIN)
def archive(name: str, host: Host, caller: Caller, data: MoveBranch | None = None) -> BranchInfo:
    """Close a branch for good; it stays readable. 409 while somebody holds a lock or a lease of it."""
    return _move(host.engine.archive_branch, name, caller, data)


def _move(
    operation: Callable[[str, str, str], BranchInfo], name: str, caller: Caller, data: MoveBranch | None
) -> BranchInfo:
    branch = plain(name)
    caller.require(Scope.ADMIN, branch)
    return operation(branch, caller.name, data.reason if data is not None else "")


@changes(f"{ONE}/write", Scope.WRITE)
def write(name: str, data: Write, host: Host, caller: Caller) -> Receipt:
    """Commit one batch; answered after it is on disk. 423 tells who holds a lock, why, and what else can be done."""
    branch = plain(name)
    caller.require(Scope.WRITE, branch)
    batch = [change.change() for change in data.changes]
    return host.engine.write(branch, batch, caller.owner(data.owner), data.timeout_s, data.tokens)


@reads(f"{ONE}/changes")
def list_changes(name: str, host: Host, caller: Caller, after: After = 0, limit: Limit = 1000) -> Changes:
    """The journal after an LSN. 410 when it has been trimmed."""
    branch = plain(name)
    caller.require(Scope.READ, branch)
    head = host.engine.head(branch)
    found = host.engine.changes(branch, after, limit)
    next_after = found[-1].lsn if found else max(after, head)
    return Changes(branch, found, next_after, max(head, next_after if found else 0))


@reads(f"{ONE}/records")
def list_records(
    name: str,
    host: Host,
    caller: Caller,
    resource_type: Annotated[str, Parameter(min_length=1, max_length=100)],
    cursor: Annotated[str, Parameter(required=False, max_length=1100)] = "",
    limit: Limit = 500,
) -> RecordPage:
    """The records of a type, page by page: go on with the `cursor` of a page until it is null."""
    branch = plain(name)
    caller.require(Scope.READ, branch)
    return host.engine.scan_page(branch, resource_type, cursor or None, limit)


@reads(f"{ONE}/search")
def search(
    name: str,
    host: Host,
    caller: Caller,
    q: Annotated[str, Parameter(max_length=4000)],
    index_type: Annotated[str, Parameter(required=False, pattern="^[A-Z][A-Z0-9_]{0,63}$")] = "SEARCH_INDEX",
    limit: Annotated[int, Parameter(required=False, ge=1, le=1000)] = 10,
    min_lsn: Annotated[int, Parameter(required=False, ge=0, le=WHOLE_MAX)] = 0,
) -> Found:
    """Search what is live. With `min_lsn` (of a receipt) the answer shows at least that write."""
    branch = plain(name)
    caller.require(Scope.READ, branch)
    with host.engine.reader(branch, index_type, min_lsn, READ_TIMEOUT_S) as reader:
        return Found(reader.search(q, limit), reader.lsn, reader.generation)


HANDLERS = (create, list_all, one, recover, reopen, merge, archive, write, list_records, list_changes, search)
