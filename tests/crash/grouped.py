"""The group of the workload: two indexes on two branches that move together, and what the oracle demands of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shadowswitch import Engine, GroupMember, GroupResult, Put, SwitchRequest, UnknownBranch
from tests.crash.ledger import Ledger

KIND = "NEAR_INDEX"
PAIR = ("left", "right")
RECORDS = 12


def together(engine: Engine, ledger: Ledger, resource_type: str, request: SwitchRequest, patience_s: float) -> None:
    """A group without generations before, and one in its place: switched, rolled back, read, dissolved.

    The ledger has the generations of both members, in the order of `PAIR`, before and after each step.
    """
    for branch in PAIR:
        engine.create_branch(branch)
        changes = [Put(resource_type, f"n{n}", {"title": f"{branch} {n}"}) for n in range(RECORDS)]
        engine.write(branch, changes, timeout_s=patience_s)

    def step(target: list[int], result: GroupResult) -> None:
        assert result.success, result.message
        ledger.enter("grouped", generations=target)

    def started() -> tuple[str, list[int]]:
        config = {"backend": "kv", "shards": 1, "parallel_workers": 1}
        group = engine.start_group("pair", [GroupMember(branch, KIND, [resource_type], config) for branch in PAIR])
        for one in group.members:
            engine.wait_for(one.shadow_index_id, "BUILT", timeout_s=patience_s)
        return group.id, [one.generation for one in group.members]

    old: list[int] = [0, 0]
    for _ in range(2):
        group, new = started()
        ledger.enter("grouping", generations=new)
        step(new, engine.switch_group(group, request))
        first, old = old, new
    ledger.enter("grouping", generations=first)
    step(first, engine.rollback_group(group, request))
    for branch in PAIR:
        with engine.read_group(branch, [KIND], timeout_s=patience_s) as view:
            assert view[KIND].count() == RECORDS
    engine.dissolve_group(group)


def apart(engine: Engine, notes: list[dict[str, Any]]) -> Iterator[str]:
    """GR-1: after a kill both members are at the generations of one step: the last one, or the one under way."""
    steps = [note for note in notes if note["kind"] in ("grouping", "grouped")]
    if not steps:
        return
    done = [tuple(note["generations"]) for note in steps if note["kind"] == "grouped"] or [(0, 0)]
    allowed = {done[-1], tuple(steps[-1]["generations"])}
    live = tuple(_live(engine, branch) for branch in PAIR)
    if live not in allowed:
        yield f"GR-1 the members of the group are at {live}, expected was one of {sorted(allowed)}"
    for branch, number in zip(PAIR, live, strict=True):
        if number:
            with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=60) as reader:
                held = {record.id: record.lsn for record in reader.scan()}
            if held != {record.id: record.lsn for record in engine.scan(branch)}:
                yield f"{KIND} of {branch} holds other versions than its branch: {held}"


def _live(engine: Engine, branch: str) -> int:
    try:
        found = engine.indexes(branch)
    except UnknownBranch:
        return 0
    return next((info.generation for info in found if info.index_type == KIND), 0)
