"""The bodies of `/health` and `/check`."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """`live`: the process answers. `ready`: writes are taken, threads run, indexes are served; else `reasons`."""

    live: bool
    ready: bool
    reasons: list[str]
    uptime_s: float


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With `repair`, what the catalog holds twice is derived again before the check."""

    repair: bool = False
    reason: str = ""
