"""Many live indexes: copies of one, with its rows in the catalog and its open generation in memory."""

from __future__ import annotations

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.generation import Generation


def copy_index(engine: Engine, index: IndexRow, branches: dict[int, str]) -> None:
    """Serve a live index in these branches, too, by number and name: one set of shards stands behind all of them.

    No Follower knows of the copies, so they stay where they are. With raw transactions.
    """
    lifecycle = engine._lifecycle
    context = lifecycle.context
    live = lifecycle.generations.get(index.live)
    assert live is not None, "the index is served"
    present = context.catalog.generation(index.live)
    assert present is not None, "it has its row"
    generation, shadow = present, context.catalog.shadow(present.shadow_id)

    def copy(commit: Commit) -> None:
        for branch, name in branches.items():
            number, id = commit.next_number("generation"), f"{branch:032x}"
            row = msgspec.structs.replace(generation, number=number, branch=branch, shadow_id=id)
            commit.put_generation(row)
            commit.put_index(msgspec.structs.replace(index, branch=branch, live=number))
            made = msgspec.structs.replace(shadow, id=id, branch=branch, generation=number, branch_name=name)
            commit.put_shadow(made)
            opened = Generation(row, live.path, live.backend, live.writer)
            lifecycle.generations._open[number] = opened
            lifecycle.indexes.of(branch, index.index_type).set_live(opened, index.epoch, 0)

    context.transact(copy, "copy an index")
