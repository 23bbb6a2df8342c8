"""Many shadows, made by one transaction."""

from __future__ import annotations

import random

import msgspec

from shadowswitch import Engine
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES


def ended(engine: Engine, number: int, branch: str = "main") -> list[str]:
    """Make so many cancelled shadows of a branch with raw transactions; returns their ids."""
    shadow = engine.start_build(branch, KIND, TYPES, external=True)
    engine.cancel_build(shadow.shadow_index_id)
    engine.clean_up()
    row = inside.catalog(engine).shadow(shadow.shadow_index_id)
    ids = [f"{random.getrandbits(128):032x}" for _ in range(number - 1)]

    def copy(commit: Commit) -> None:
        for id in ids:
            commit.put_shadow(msgspec.structs.replace(row, id=id, generation=commit.next_number("generation")))

    inside.transact(engine, copy)
    return [row.id, *ids]
