"""The Engine: what a host embeds.

All methods may be called from any thread. None blocks without a deadline. They check their arguments, send messages
and wait for replies; the work is done by the actors.
"""

from __future__ import annotations

import os

from shadowswitch.engine.calls.events import Observing
from shadowswitch.engine.calls.folders import Watching
from shadowswitch.engine.calls.inbound import Receiving
from shadowswitch.model.config import Config


class Engine(Receiving, Watching, Observing):
    """One open data directory. Make it with `Engine.open`; close it, or use it as a context manager."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: Config | None = None) -> Engine:
        """Open (and make, if need be) a data directory."""
        return cls(path, config)
