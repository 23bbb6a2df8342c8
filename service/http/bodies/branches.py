"""Bodies of branches: their changes, their journal, search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from shadowswitch.model.errors import InvalidChange
from shadowswitch.model.records import Change, Delete, Hit, Put
from shadowswitch.model.search.merged import MergedHit
from shadowswitch.model.views import BranchInfo
from shadowswitch.service.http.bodies.fields import (
    Body,
    BranchName,
    IndexType,
    Name,
    RecordId,
    ResourceType,
    Text,
    Tokens,
    Whole,
)

WRITE_TIMEOUT_S_MAX = 60.0
SEARCH_TIMEOUT_S_MAX = 3600.0


class NewBranch(Body, frozen=True):
    """The name of a branch: 1 to 200 printable characters."""

    name: BranchName


class Branches(msgspec.Struct, frozen=True):
    """A page of branches in the order of their creation; `total_count` is that of all pages."""

    branches: list[BranchInfo]
    total_count: int
    next_after: int | None = None
    """The `after` of the next page; None: this is the last one."""


class Dropped(msgspec.Struct, frozen=True):
    """A dropped branch; its rows and files go in the background."""

    success: bool
    message: str
    branch_name: str


class MoveBranch(Body, frozen=True):
    """The reason; the audit keeps it with the caller."""

    reason: Text = ""


class ChangeIn(Body, frozen=True):
    """A put of the full image of a record, or a delete."""

    resource_type: ResourceType
    id: RecordId
    kind: Literal["put", "delete"] = "put"
    fields: dict[str, Any] | None = None

    def change(self) -> Put | Delete:
        """The change for the engine. Raises InvalidChange."""
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
    """One atomic, durable batch. `tokens` are the fencing tokens of locks of the same `owner`."""

    changes: Annotated[list[ChangeIn], msgspec.Meta(min_length=1, max_length=10_000)]
    owner: Name = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=WRITE_TIMEOUT_S_MAX)] = 10.0
    tokens: Tokens = []


class Changes(msgspec.Struct, frozen=True):
    """A page of the journal. The next page begins at `after=next_after`, while that is below `head_lsn`."""

    branch_name: str
    changes: list[Change]
    next_after: int
    head_lsn: int


class Found(msgspec.Struct, frozen=True):
    """Hits of one generation, which shows every change up to `lsn`."""

    hits: list[Hit]
    lsn: int
    generation: int
    cursor: str | msgspec.UnsetType | None = msgspec.UNSET
    """Of a search by cursor: that of the next page, or null at the end."""


class Query(Body, frozen=True):
    """A query of a kind, for an index that answers it. `arguments` are those of the call, by name.

    Kinds and calls of the library: docs/query-kinds.md. A key is a list of resource type and id.
    """

    index_type: IndexType
    kind: Name
    call: Name
    arguments: dict[str, Any] = {}
    min_lsn: Whole = 0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=SEARCH_TIMEOUT_S_MAX)] = SEARCH_TIMEOUT_S_MAX
    shadow_index_id: Text = ""


class Answer(msgspec.Struct, frozen=True):
    """What a call of a query kind gave, of one generation, which shows every change up to `lsn`."""

    result: Any
    lsn: int
    generation: int


class Merged(msgspec.Struct, frozen=True):
    """Hits of several indexes, best first."""

    hits: list[MergedHit]
