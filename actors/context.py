"""What every actor of an engine needs: where it works, with which settings, on which catalog, by which clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shadowswitch.actors.journal_writer import Transact
from shadowswitch.actors.kit.actor import Address, Crash, result_of
from shadowswitch.actors.kit.attention import Attention
from shadowswitch.actors.kit.changes import StateChanges
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.config import Config
from shadowswitch.model.errors import EngineClosed
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.data_directory import DirectoryLock

T = TypeVar("T")
TRANSACT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class EngineContext:
    """Handed to every actor; each names its other collaborators in its constructor."""

    root: Path
    hold: DirectoryLock
    """Checked before a step that goes by a path and follows no transaction: a foreign directory is not written to."""
    config: Config
    catalog: Catalog
    shadows: ShadowTable
    metrics: Metrics
    clock: Clock
    attention: Attention
    changes: StateChanges
    journal: Address
    """The JournalWriter."""
    crashed: Crash
    """The supervisor's ear: an actor failed on a message."""

    def transact(self, work: Callable[[Commit], T], what: str, timeout_s: float = TRANSACT_TIMEOUT_S) -> T:
        """Do metadata work in a write transaction and wait until it is durable. Not from the JournalWriter's thread.

        Raises what `work` raises, EngineClosed, or Timeout: not begun, or begun with an unknown outcome.
        """
        if self.changes.closing:
            raise EngineClosed("the engine is closed", operation=what, hint="open it again")
        reply: Reply[T] = Reply()
        self.journal.tell(Transact(work, reply))
        result: T = result_of(reply, timeout_s, what)
        return result
