"""The bodies of the routes that operate a build."""

from __future__ import annotations

from typing import Annotated

import msgspec

from shadowswitch.engine.calls.switches import PLAN_MAX_S
from shadowswitch.service.http.access import Caller
from shadowswitch.service.http.bodies.fields import Body, PriorityNumber, Text
from shadowswitch.service.http.bodies.shadows import SwitchOptions


class Why(Body, frozen=True):
    """The reason, for the audit history and the status."""

    reason: Text = ""


class Throttle(Why, frozen=True, kw_only=True):
    """The share of the time that the build may work."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]


class Priority(Why, frozen=True, kw_only=True):
    """The priority of the build."""

    priority: PriorityNumber


class Schedule(SwitchOptions, frozen=True, kw_only=True):
    """When to switch: after so much quiet on the branch, at the latest after `within_s`; and how."""

    quiet_for_s: Annotated[float, msgspec.Meta(ge=0, le=PLAN_MAX_S)] = 900
    within_s: Annotated[float, msgspec.Meta(ge=0, le=PLAN_MAX_S)] = 86_400


def reason_of(body: Why | None, caller: Caller) -> str:
    """The reason of the body, or else of the header."""
    return (body.reason if body is not None else "") or caller.reason
