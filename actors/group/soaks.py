"""The end of the soak of groups: what soaks for the rollback of a group retires together. For the Janitor."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.model.groups.views import SWITCHED
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import GenerationRow, GroupRow
from shadowswitch.storage.catalog.source.group_table import group_rows, switched_group

Keys = Collection[tuple[int, str] | None]


def end_soak(context: EngineContext, generation: GenerationRow, switched: Keys) -> None:
    """The soak of a generation is over: it retires, with those of its group. Not while a member is `switched`."""
    group = switched_group(group_rows(context.catalog), generation.branch, generation.index_type)
    if group is None:
        context.transact(partial(transitions.retire_previous, generation_number=generation.number), "end soak")
    elif not _is_switched(group, switched):
        context.transact(partial(transitions.end_soak, group_id=group.id), "end soak")


def end_idle_groups(context: EngineContext, switched: Keys) -> None:
    """A group of which nothing soaks any more holds its indexes no longer: what soaked was found unsound."""
    for group in group_rows(context.catalog):
        if group.state in SWITCHED and not _is_switched(group, switched) and not _soaks(context, group):
            end = partial(transitions.end_soak, group_id=group.id, reason="no generation soaks for its rollback")
            context.transact(end, "end soak")


def _soaks(context: EngineContext, group: GroupRow) -> bool:
    rows = (context.catalog.index(one.branch, one.index_type) for one in group.members)
    return any(row is not None and row.previous for row in rows)


def _is_switched(group: GroupRow, switched: Keys) -> bool:
    return any((one.branch, one.index_type) in switched for one in group.members)
