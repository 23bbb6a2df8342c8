"""The BranchRemover: removes the rows of dropped branches, in slices; each is one short transaction.

    drop       marked in the transaction of the drop; its generations retire, and the Janitor removes their files
    unfollow   no Follower reads the journal of the branch any more, also for readers that have a generation pinned
    rows       journal, records, heads and digests, indexes
    shadows    each once its generation is gone, which waits for the last reader
    branch     its own row, last: then nothing of it is left

Each step depends on what is there alone, so a kill at any point only delays it. While a switch is about to commit, the
BranchRemover stops, as the Trimmer does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.maintenance.cleanup_queue import CleanupQueue
from shadowswitch.actors.maintenance.follower_pool import FollowerPause
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.transitions.removal import SLICE_ROWS
from shadowswitch.storage.failpoints import failpoint

SLICES_A_ROUND = 100


class BranchRemover:
    """On the thread of the Janitor."""

    def __init__(
        self,
        context: EngineContext,
        generations: OpenGenerations,
        indexes: LiveIndexes,
        pause: FollowerPause,
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._generations = generations
        self._indexes = indexes
        self._pause = pause
        self._emptied: set[int] = set()
        """Dropped branches that have no rows in slices any more; what is left waits for their generations."""

    def remove(self, queue: CleanupQueue, let_go: Callable[[int], bool]) -> None:
        """Remove some of the rows of dropped branches. `let_go` makes the Follower of a generation drop it."""
        slices = SLICES_A_ROUND
        for number in sorted(queue.dropped):
            more = number not in self._emptied
            if more and not self._let_go(number, let_go):
                continue
            while more and slices > 0 and not self._pause.is_on:
                failpoint("drop.slice")
                more = self._context.transact(partial(transitions.remove_slice, number=number), "remove branch")
                self._context.metrics.count("branch_slices_removed")
                slices -= 1
            if slices <= 0 or self._pause.is_on:
                return
            left = queue.generations_of(number)
            if left and number in self._emptied:
                continue  # readers have them pinned
            self._emptied.add(number)
            if self._forget_shadows(self._context.shadows.ids_of(number)) and not left:
                failpoint("drop.emptied")
                self._context.transact(partial(transitions.forget_branch, number=number), "remove branch")
                failpoint("drop.forgotten")
                self._indexes.forget(number)
                self._emptied.discard(number)
                queue.removed(number)

    def _let_go(self, branch: int, let_go: Callable[[int], bool]) -> bool:
        followed = [one.row.number for one in self._generations.all() if one.row.branch == branch]
        return all(let_go(number) for number in followed)

    def _forget_shadows(self, shadow_ids: list[str]) -> bool:
        """Remove the shadows whose generation is gone; True when none is left."""
        removed = 0
        for start in range(0, len(shadow_ids), SLICE_ROWS):
            part = shadow_ids[start : start + SLICE_ROWS]
            removed += self._context.transact(partial(transitions.forget_shadows, shadow_ids=part), "remove branch")
        return removed == len(shadow_ids)


def remove_empty_folders(path: str) -> None:
    """Remove the folders of an index and of a branch that the last generation has left, if they are empty."""
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))
        os.rmdir(os.path.dirname(os.path.dirname(path)))
