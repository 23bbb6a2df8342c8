"""The published paths of live indexes: where programs outside find them (IX-7). One object for each engine."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.generations import published_path
from shadowswitch.storage.generations.generation import Generation


class Publisher:
    """Makes the published path of an index agree with its live pointer, after a switch. No writer waits for it."""

    def __init__(self, context: EngineContext, indexes: LiveIndexes) -> None:
        given = context.config.published_path
        self.folder = Path(given) if given else context.root / published_path.PUBLISHED
        """The folder of the published paths."""
        self._hold = context.hold
        self._catalog = context.catalog
        self._indexes = indexes
        self._one_at_a_time = threading.Lock()
        """A slow copy is never put in the place of a newer one."""
        self.pending: set[tuple[int, str]] = set()
        """The indexes, by branch and type, whose published path may not agree with the live pointer yet."""

    def publish(self, branch_name: str, generation: Generation, strategy: str) -> bool:
        """Make the published path lead to a live generation. A copy is as of one LSN; the generation goes on meanwhile.

        False when the path led there already, or when the generation is not live any more. Raises ShadowSwitchError or
        OSError; the path then leads to what it led to before, and the Janitor tries again.
        """
        row = generation.row
        key = (row.branch, row.index_type)
        with self._one_at_a_time:
            if self._indexes.live(*key) is not generation:
                return False
            self.pending.add(key)
            self._hold.check()
            mark = published_path.identity(self._catalog.uuid, row.number)
            done = published_path.publish(
                self.folder, branch_name, row.index_type, generation.path, mark, strategy, generation.copy_to
            )
            self.pending.discard(key)
        return done

    def withdraw(self, row: GenerationRow, path: Path) -> None:
        """Remove a published path that leads to this generation, which retires, if its index has no live one any more.

        Raises ShadowSwitchError or OSError; the Janitor tries again.
        """
        index = self._catalog.index(row.branch, row.index_type)
        shadow = self._catalog.find_shadow(row.shadow_id)
        if shadow is None or (index is not None and index.live):
            return
        with self._one_at_a_time:
            self._hold.check()
            mark = published_path.identity(self._catalog.uuid, row.number)
            published_path.withdraw(self.folder, shadow.branch_name, row.index_type, path, mark)

    @property
    def is_busy(self) -> bool:
        """Is a path being made to agree at this moment?"""
        return self._one_at_a_time.locked()

    def is_published(self, branch_name: str, generation: Generation, strategy: str) -> bool:
        """Does the published path lead to this generation (IX-7)?"""
        path = published_path.published_path(self.folder, branch_name, generation.row.index_type)
        mark = published_path.identity(self._catalog.uuid, generation.row.number)
        return published_path.is_published(path, generation.path, mark, strategy)

    def leads_into(self, row: GenerationRow, path: Path) -> bool:
        """Does the published path still lead into these files, while the index is served? They stay until it leads
        elsewhere (IX-7)."""
        if self._indexes.live(row.branch, row.index_type) is None:
            return False
        shadow = self._catalog.find_shadow(row.shadow_id)
        if shadow is None:
            return False
        published = published_path.published_path(self.folder, shadow.branch_name, row.index_type)
        return published.is_symlink() and os.path.realpath(published) == os.path.realpath(path)
