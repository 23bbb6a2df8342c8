"""The messages that several kinds of actors receive."""

from __future__ import annotations

import msgspec


class Tick(msgspec.Struct, frozen=True):
    """From the timers to a Follower, the Dispatcher, the Janitor, the Scrubber or the Watcher: look for work."""


class Kick(msgspec.Struct, frozen=True):
    """To a Follower or the Dispatcher: there is work now. A Follower serves this branch."""

    branch: int = 0
