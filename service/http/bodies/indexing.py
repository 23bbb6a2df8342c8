"""Bodies of indexing in place, and of the state of a branch."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from shadowswitch.service.http.bodies.fields import Body, Text, Tokens, Types
from shadowswitch.service.http.bodies.locks import BranchLock, Seconds

HEARTBEAT_S = 120.0
"""The interval of heartbeats of the field's existing clients while they index."""


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
    """Without `resource_types` every type with records is locked; the whole branch only with `force_branch_lock`.

    A lock without three heartbeats in sequence ends, and so does the indexing: as a failure. `heartbeat_s` is the
    interval in seconds; null expects no heartbeat. `ttl_s` is the time to live in seconds, by default four hours.
    """

    resource_types: Types | None = None
    force_branch_lock: bool = False
    reason: Text = "Data indexing in progress"
    ttl_s: Seconds | None = None
    heartbeat_s: Seconds | None = HEARTBEAT_S


class IndexingStarted(msgspec.Struct, frozen=True):
    """The locks of the indexing. `tokens` are their fencing tokens, in the order of `lock_ids`.

    Each lock takes a heartbeat every `heartbeat_s` seconds, and ends at `expires_at` at the latest.
    """

    lock_ids: list[str]
    tokens: list[int]
    locked_resource_types: list[str]
    lock_scope: Literal["branch", "resource_type"]
    message: str
    branch_state: str
    other_resources_available: bool
    heartbeat_s: float | None = None
    expires_at: datetime | None = None


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
