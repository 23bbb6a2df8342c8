"""The body of `/health`."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """`live`: the process answers. `ready`: it admits requests; if not, `reasons` says why."""

    live: bool
    ready: bool
    reasons: list[str]
    uptime_s: float
