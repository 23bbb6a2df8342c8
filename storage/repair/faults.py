"""A fault of the catalog: the finding, and the repair from what holds the same fact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.transaction import Commit

Transact = Callable[[Callable[[Commit], Any], str], Any]
"""Runs work in a transaction of the JournalWriter; the text names the work in errors."""
Readable = Callable[[GenerationRow], bool]
"""Has a worker process read this generation? A damaged shard may end the process that opens it first."""


class Fault(NamedTuple):
    """What differs, and the step that derives it again, in a transaction of the JournalWriter."""

    finding: Finding
    source: str
    """What it is derived from."""
    mend: Callable[[Commit], object]
