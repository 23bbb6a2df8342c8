"""The rows of ended shadows: they go some time after their files, a few in each round. The audit history has more."""

from __future__ import annotations

from functools import partial
from itertools import islice

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.maintenance.cleanup_queue import CleanupQueue
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transitions.removal import SLICE_ROWS
from shadowswitch.storage.failpoints import failpoint


def forget_ended(context: EngineContext, queue: CleanupQueue) -> None:
    """Remove up to SLICE_ROWS rows that are over. On the thread of the Janitor.

    A row that says that its index was rolled back stays: the settings file does not build that again.
    """
    over: list[str] = []
    unmarked: list[str] = []
    for shadow_id, moment in islice(list(queue.ended.items()), 2 * SLICE_ROWS):
        left = context.clock.seconds_until(moment) if moment is not None else None
        if left is None:
            unmarked.append(shadow_id)
        elif left + context.config.ended_keep_s > 0:
            break  # the later ones ended later
        else:
            row = context.catalog.find_shadow(shadow_id)
            if row is None or _says_rolled_back(context, row):
                queue.ended.pop(shadow_id, None)  # it is looked at again after the next start
            else:
                over.append(shadow_id)
        if len(over) + len(unmarked) >= SLICE_ROWS:
            break
    if over or unmarked:
        work = partial(transitions.forget_ended, over=over, unmarked=unmarked)
        context.metrics.count("shadows_forgotten", context.transact(work, "forget ended shadows"))
        failpoint("ended.forgotten")


def _says_rolled_back(context: EngineContext, row: ShadowRow) -> bool:
    """Was it live, and is an older generation live now?"""
    index = context.catalog.index(row.branch, row.index_type) if row.switched_at is not None else None
    return index is not None and 0 < index.live < row.generation
