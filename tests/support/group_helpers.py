"""Helpers of the tests of groups: two branches with two kinds of indexes, and a group of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shadowswitch import Engine, Group, GroupMember, SwitchRequest
from tests.support.engine_helpers import TYPES, fill

BRANCHES = ("left", "right")
KINDS: dict[str, dict[str, Any]] = {
    "SEARCH_INDEX": {"parallel_workers": 1},
    "GRAPH_INDEX": {"backend": "kv", "parallel_workers": 1},
}
Key = tuple[str, str]


def keys(branches: Sequence[str] = BRANCHES) -> list[Key]:
    """Branch and type of each member, in the order of a group."""
    return [(branch, kind) for branch in branches for kind in sorted(KINDS)]


def branches_with_indexes(engine: Engine, branches: Sequence[str] = BRANCHES, records: int = 200) -> None:
    """Branches with records and a live generation of each kind."""
    for branch in branches:
        engine.create_branch(branch)
        fill(engine, records, branch)
        for kind in sorted(KINDS):
            result = engine.rebuild(branch, kind, TYPES, KINDS[kind], timeout_s=60)
            assert result.success, result.message


def member(branch: str, kind: str) -> GroupMember:
    """A member of a group."""
    return GroupMember(branch, kind, TYPES, KINDS[kind])


def started(engine: Engine, branches: Sequence[str] = BRANCHES, name: str = "four") -> Group:
    """A group of every kind on each branch, BUILT."""
    group = engine.start_group(name, [member(*key) for key in reversed(keys(branches))])
    for one in group.members:
        engine.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
    return engine.group(group.id)


def switched(engine: Engine, branches: Sequence[str] = BRANCHES) -> Group:
    """A group that was switched."""
    group = started(engine, branches)
    result = engine.switch_group(group.id, SwitchRequest(switch_timeout_seconds=60))
    assert result.success, result.message
    return engine.group(group.id)


def generations(engine: Engine, branches: Sequence[str] = BRANCHES) -> dict[Key, int]:
    """The live generation of each index."""
    return {key: engine.index(*key).generation for key in keys(branches)}


def states(engine: Engine, group: Group) -> set[str]:
    """The states of the shadows of a group."""
    return {str(engine.shadow(one.shadow_index_id).state) for one in group.members}
