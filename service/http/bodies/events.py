"""Bodies of the event log and of the audit history."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.views import Event


class Page(msgspec.Struct, frozen=True):
    """Events after a sequence number; `oldest` is the first one kept. The next page begins at `after=next_after`."""

    events: list[dict[str, Any]]
    next_after: int
    oldest: int
    newest: int


class Audit(msgspec.Struct, frozen=True):
    """Entries after a sequence number, with caller and reason; `oldest` is the first one kept.

    The next page begins at `after=next_after`.
    """

    entries: list[Event]
    next_after: int
    oldest: int
    newest: int
