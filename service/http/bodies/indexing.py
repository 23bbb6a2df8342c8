"""Bodies of indexing in place, and of the state of a branch."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from shadowswitch.service.http.bodies.fields import Body, Text, Tokens, Types
from shadowswitch.service.http.bodies.locks import BranchLock


class IndexingInfo(msgspec.Struct, frozen=True):
    """The indexing of a branch, as its service reported it."""

    started_at: datetime | None
    completed_at: datetime | None
    service: str | None
    duration_seconds: int | None


class BranchStatusOut(msgspec.Struct, frozen=True):
    """The state of a branch, and its locks."""

    branch_name: str
    current_state: str
    is_write_locked: bool
    is_ready_for_merge: bool
    active_locks: list[BranchLock]
    indexing_info: IndexingInfo | None = None


class StartIndexing(Body, frozen=True):
    """Without `resource_types` every type with records is locked; the whole branch only with `force_branch_lock`."""

    resource_types: Types | None = None
    force_branch_lock: bool = False
    reason: Text = "Data indexing in progress"


class IndexingStarted(msgspec.Struct, frozen=True):
    """The locks of the indexing. `tokens` are their fencing tokens, in the order of `lock_ids`."""

    lock_ids: list[str]
    tokens: list[int]
    locked_resource_types: list[str]
    lock_scope: Literal["branch", "resource_type"]
    message: str
    branch_state: str
    other_resources_available: bool


class CompleteIndexing(Body, frozen=True):
    """The types to complete; without `resource_types` all types of the caller, with `tokens` those of their locks.

    A stale token is 409: its lock has ended, and the indexing under way may belong to another owner.
    """

    resource_types: Types | None = None
    reason: Text = "Indexing completed"
    tokens: Tokens = []


class IndexingCompleted(msgspec.Struct, frozen=True):
    """The completed and the remaining types."""

    message: str
    completed_resource_types: list[str]
    completion_type: Literal["partial", "complete"]
    branch_state: str
    remaining_locks: int
    remaining_resource_types: list[str]
