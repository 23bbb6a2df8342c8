"""Bodies of groups: several indexes that are started, switched and rolled back together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from shadowswitch.engine.groups.calls import MEMBERS_MAX, NAME_CHARS_MAX
from shadowswitch.model.groups.views import Group, GroupResult
from shadowswitch.model.views import derive
from shadowswitch.service.http.bodies.fields import Body, BranchName, IndexType, Text, Types
from shadowswitch.service.http.bodies.shadows import Switched, switched


class NewMember(Body, frozen=True):
    """An index of the group, as in `POST /shadow-index/start`."""

    branch_name: BranchName
    index_type: IndexType
    resource_types: Types
    build_config: dict[str, Any] | None = None


class NewGroup(Body, frozen=True):
    """The indexes that are built, and will be switched together. The name is for people, and need not be unique."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    members: Annotated[list[NewMember], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    reason: Text = ""


class Dissolve(Body, frozen=True):
    """Why the group is broken up."""

    reason: Text = ""


class Groups(msgspec.Struct, frozen=True):
    """Every group, oldest first. Of those that have ended, the last hundred are kept."""

    groups: list[Group]


class GroupSwitched(msgspec.Struct, frozen=True):
    """The result of a switch or rollback of a group: all members, or none. `epoch` is that of the group afterwards."""

    success: bool
    message: str
    group_id: str
    epoch: int
    members: list[Switched]
    switch_duration_ms: int
    sealed_ms: float
    """The time of the turn, for which writers may have waited."""
    rolled_back: bool
    """A member did not verify, and all went back."""
    timestamp: datetime


def group_switched(result: GroupResult) -> GroupSwitched:
    """A result of the engine as an answer."""
    return derive(
        GroupSwitched,
        result,
        members=[switched(one) for one in result.members],
        switch_duration_ms=round(result.switch_duration_ms),
        timestamp=datetime.now(UTC),
    )
