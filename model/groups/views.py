"""What the calls on groups take and return, and the states of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import SwitchResult


class GroupState(StrEnum):
    """The state of a group. The catalog has BUILDING for the first four, which follow from the members."""

    BUILDING = "BUILDING"
    BUILT = "BUILT"
    """Every member is BUILT: the group can be switched."""
    SWITCHING = "SWITCHING"
    FAILED = "FAILED"
    """The build of a member failed; `retry_build` goes on with it."""
    ACTIVE = "ACTIVE"
    """Every member is live, and the generations before soak: the group can be rolled back."""
    ROLLED_BACK = "ROLLED_BACK"
    """The generations before are live again, and those of the group soak: a rollback goes forward."""
    COMPLETE = "COMPLETE"
    """The soak is over, or another group took the place of this one. Each index is on its own."""
    REVERTED = "REVERTED"
    """A member did not verify, so all went back. Each index is on its own."""
    DISSOLVED = "DISSOLVED"
    """A caller broke the group up. Each index is on its own."""


BOUND = frozenset({GroupState.BUILDING, GroupState.ACTIVE, GroupState.ROLLED_BACK})
"""The stored states in which the members of a group are switched and rolled back together only."""
SWITCHED = frozenset({GroupState.ACTIVE, GroupState.ROLLED_BACK})


class GroupMember(msgspec.Struct, frozen=True):
    """One index of a group that is to be started: the arguments of `start_build`."""

    branch: str
    index_type: str
    resource_types: Sequence[str]
    build_config: Mapping[str, Any] | None = None


class GroupMemberInfo(msgspec.Struct, frozen=True):
    """A member of a group. `previous_generation` is the one that the switch of the group replaced; None: none."""

    branch_name: str
    index_type: str
    shadow_index_id: str
    generation: int
    previous_generation: int | None
    state: ShadowState | None
    """The state of its shadow; None once the row of an ended shadow was removed."""
    error: str | None = None


class Group(msgspec.Struct, frozen=True):
    """A group, with its members in the order of branch and index type. `epoch` counts its switches and rollbacks."""

    id: str
    name: str
    members: list[GroupMemberInfo]
    state: GroupState
    epoch: int
    created_at: datetime
    switched_at: datetime | None = None
    message: str = ""
    """Why the group has ended, or why a member failed."""


class GroupResult(msgspec.Struct, frozen=True):
    """The result of a switch or rollback of a group: all members, or none.

    `members` has a SwitchResult for each, in the order of the group. `epoch` is that of the group afterwards.
    `sealed_ms` is the time of the turn, for which the writers of every branch of the directory may wait. `rolled_back`:
    a member did not verify, and all went back.
    """

    success: bool
    members: list[SwitchResult]
    epoch: int
    message: str
    group_id: str = ""
    switch_duration_ms: float = 0.0
    sealed_ms: float = 0.0
    rolled_back: bool = False
