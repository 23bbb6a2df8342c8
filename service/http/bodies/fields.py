"""Fields with their bounds, and the base of every request body."""

from __future__ import annotations

from typing import Annotated

import msgspec

from shadowswitch.engine.calls.builds import PRIORITY_MAX

WHOLE_MAX = (1 << 53) - 1
"""The largest whole number that every JSON library keeps exactly."""
BranchName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
IndexType = Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9_]{0,63}$")]
ResourceType = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
RecordId = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=WHOLE_MAX)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
PriorityNumber = Annotated[int, msgspec.Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Checks = Annotated[list[Name], msgspec.Meta(max_length=100)]
Tokens = Annotated[list[Whole], msgspec.Meta(max_length=100)]
Types = Annotated[list[ResourceType], msgspec.Meta(min_length=1, max_length=1000)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request. Unknown fields are refused."""
