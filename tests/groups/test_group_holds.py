"""A group holds its indexes: none is switched, rolled back or dropped alone, except by breaking the group up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, GroupState, InUse, InvalidConfig, InvalidTransition, SwitchRequest, UnknownIndex
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.rows import encode_row
from shadowswitch.storage.catalog.source.group_table import group_in
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside
from tests.support.engine_helpers import TYPES, fill, wait_until
from tests.support.group_helpers import branches_with_indexes, generations, keys, member, started, states, switched

PATIENT = SwitchRequest(switch_timeout_seconds=60)
BREAKING = SwitchRequest(switch_timeout_seconds=60, break_group=True, performed_by="me", reason="in a hurry")
LEFT = ["left"]


@pytest.fixture
def two(engine: Engine) -> Engine:
    """A branch with two live indexes."""
    branches_with_indexes(engine, LEFT)
    return engine


def test_a_member_is_not_switched_alone_unless_the_group_is_broken_up(two: Engine) -> None:
    group = started(two, LEFT)
    one = group.members[0].shadow_index_id
    before = generations(two, LEFT)
    result = two.switch(one, PATIENT)
    assert not result.success
    assert "GRAPH_INDEX belongs to group 'four' (group-1)" in result.message
    assert "break_group" in result.message
    assert generations(two, LEFT) == before
    assert states(two, group) == {"BUILT"}
    assert two.switch(one, BREAKING).success
    broken = two.group(group.id)
    assert (broken.state, broken.message) == (GroupState.DISSOLVED, "GRAPH_INDEX was switched alone (break_group)")
    [row] = [event.data for event in two.audit() if event.type == "group.ended"]
    assert (row["by"], row["reason"], row["state"]) == ("me", "in a hurry", "DISSOLVED")
    with pytest.raises(InvalidTransition, match="DISSOLVED"):
        two.switch_group(group.id)
    assert two.switch(group.members[1].shadow_index_id, PATIENT).success, "the other is on its own"


def test_a_member_is_not_rolled_back_alone_unless_the_group_is_broken_up(two: Engine) -> None:
    before, group = generations(two, LEFT), switched(two, LEFT)
    after = generations(two, LEFT)
    result = two.rollback("left", "SEARCH_INDEX", PATIENT)
    assert not result.success
    assert "group 'four' (group-1)" in result.message
    assert "rollback_group" in result.message
    assert generations(two, LEFT) == after
    assert two.rollback("left", "SEARCH_INDEX", BREAKING).success
    assert two.group(group.id).state == GroupState.DISSOLVED
    now = generations(two, LEFT)
    assert now["left", "SEARCH_INDEX"] == before["left", "SEARCH_INDEX"]
    assert now["left", "GRAPH_INDEX"] == after["left", "GRAPH_INDEX"]
    with pytest.raises(InvalidTransition):
        two.rollback_group(group.id)


def test_a_new_build_of_a_member_is_not_switched_to_while_the_group_soaks(two: Engine) -> None:
    switched(two, LEFT)
    result = two.rebuild("left", "GRAPH_INDEX", TYPES, {"backend": "kv"}, PATIENT, timeout_s=60)
    assert not result.success
    assert "group 'four'" in result.message
    assert two.rebuild("left", "GRAPH_INDEX", TYPES, {"backend": "kv"}, BREAKING, timeout_s=60).success


def test_an_index_is_rolled_back_alone_while_its_group_was_not_switched(two: Engine) -> None:
    assert two.rebuild("left", "SEARCH_INDEX", TYPES, request=PATIENT, timeout_s=60).success
    group = started(two, LEFT)
    assert two.rollback("left", "SEARCH_INDEX", PATIENT).success
    assert two.switch_group(group.id, PATIENT).success, "it takes the place of what is live now"
    assert two.rollback_group(group.id, PATIENT).success


def test_a_switch_that_began_before_its_group_is_held_is_refused_in_its_transaction(
    two: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look before a switch finds no group: the transaction looks again."""
    group = started(two, LEFT)
    with monkeypatch.context() as patched:
        inside.replace(patched, inside.Step.FIND_HOLDER, lambda *_: None)
        result = two.switch(group.members[0].shadow_index_id, PATIENT)
    assert not result.success
    assert "group 'four'" in result.message
    assert states(two, group) == {"BUILT"}
    assert two.switch_group(group.id, PATIENT).success


def test_an_index_or_a_branch_is_not_dropped_while_a_group_holds_it(two: Engine) -> None:
    group = switched(two, LEFT)
    drops: list[Callable[[], None]] = [lambda: two.drop_index("left", "SEARCH_INDEX"), lambda: two.drop_branch("left")]
    for drop in drops:
        with pytest.raises(InUse, match=r"group 'four' \(group-1\) holds SEARCH_INDEX.*dissolve_group") as refusal:
            drop()
        assert "group 'four' (group-1) holds SEARCH_INDEX" in refusal.value.uses
    ended = two.dissolve_group(group.id, by="me", reason="the branch goes")
    assert (ended.state, ended.message) == (GroupState.DISSOLVED, "dissolve_group by me")
    two.drop_index("left", "SEARCH_INDEX")
    two.drop_branch("left")
    with pytest.raises(InvalidTransition, match="DISSOLVED"):
        two.dissolve_group(group.id)


def test_the_branch_of_a_group_that_is_being_built_is_not_dropped(two: Engine) -> None:
    group = started(two, LEFT)
    with pytest.raises(InUse) as refusal:
        two.drop_branch("left")
    assert "group 'four' (group-1) holds GRAPH_INDEX" in refusal.value.uses
    two.dissolve_group(group.id)
    for one in group.members:
        two.cancel_build(one.shadow_index_id)
    two.drop_branch("left")


def test_a_cancelled_member_dissolves_its_group(two: Engine) -> None:
    group = started(two, LEFT)
    two.cancel_build(group.members[1].shadow_index_id, "not wanted", by="me")
    ended = two.group(group.id)
    assert ended.state == GroupState.DISSOLVED
    assert "SEARCH_INDEX of branch 'left' was cancelled" in ended.message
    assert two.switch(group.members[0].shadow_index_id, PATIENT).success


def test_a_health_check_takes_the_whole_group_back(open_engine: Any) -> None:
    engine = open_engine(health_interval_s=0.05)
    branches_with_indexes(engine, LEFT)
    before, group = generations(engine, LEFT), switched(engine, LEFT)
    bad = group.members[1].generation
    engine.set_health_check(lambda info: "slow" if info.generation == bad else None)
    wait_until(lambda: engine.group(group.id).state == GroupState.ROLLED_BACK, 60)
    engine.set_health_check(None)
    assert generations(engine, LEFT) == before
    assert engine.index("left", "SEARCH_INDEX").previous_generation is None, "it is unsound, and retired"
    with pytest.raises(UnknownIndex, match="SEARCH_INDEX of branch 'left' has no previous generation"):
        engine.rollback_group(group.id)


def test_a_member_goes_back_alone_where_another_has_nothing_to_go_back_to(open_engine: Any) -> None:
    engine = open_engine(health_interval_s=0.05)
    engine.create_branch("left")
    fill(engine, 50, "left")
    assert engine.rebuild("left", "GRAPH_INDEX", TYPES, {"backend": "kv"}, PATIENT, timeout_s=60).success
    before = engine.index("left", "GRAPH_INDEX").generation
    group = switched(engine, LEFT)
    with pytest.raises(UnknownIndex, match="was new with the group"):
        engine.rollback_group(group.id)
    bad = group.members[0].generation
    engine.set_health_check(lambda info: "slow" if info.generation == bad else None)
    wait_until(lambda: engine.group(group.id).state == GroupState.DISSOLVED, 60)
    engine.set_health_check(None)
    assert engine.index("left", "GRAPH_INDEX").generation == before


def test_a_group_without_a_soaking_generation_lets_go(two: Engine) -> None:
    group = switched(two, LEFT)
    for kind in ("GRAPH_INDEX", "SEARCH_INDEX"):
        number = two.index("left", kind).previous_generation
        assert number is not None
        inside.transact(two, lambda commit, n=number: transitions.mark_unsound(commit, n, "planted"))  # type: ignore[misc]
    inside.sweep(two)
    wait_until(lambda: two.group(group.id).state == GroupState.COMPLETE, 60)
    assert two.rebuild("left", "GRAPH_INDEX", TYPES, {"backend": "kv"}, PATIENT, timeout_s=60).success


def test_a_group_in_each_state_is_there_after_a_restart(two: Engine, open_engine: Any) -> None:
    engine, group = two, started(two, LEFT)

    def again(state: GroupState) -> None:
        nonlocal engine
        engine.close()
        engine = open_engine()
        assert engine.group(group.id).state == state
        assert engine.check() == []

    before = generations(engine, LEFT)
    again(GroupState.BUILT)
    assert engine.switch_group(group.id, PATIENT).success
    after = generations(engine, LEFT)
    again(GroupState.ACTIVE)
    assert generations(engine, LEFT) == after
    assert not engine.rollback("left", "SEARCH_INDEX", PATIENT).success
    assert engine.rollback_group(group.id, PATIENT).success
    again(GroupState.ROLLED_BACK)
    assert generations(engine, LEFT) == before
    assert engine.rollback_group(group.id, SwitchRequest(switch_timeout_seconds=60, backup_current=False)).success
    again(GroupState.COMPLETE)
    assert generations(engine, LEFT) == after
    assert engine.group(group.id).epoch == 3


def test_a_group_that_is_being_built_goes_on_after_a_restart(two: Engine, open_engine: Any) -> None:
    group = two.start_group("four", [member(*key) for key in keys(LEFT)])
    two.close()
    engine = open_engine()
    for one in group.members:
        engine.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.group(group.id).state == GroupState.BUILT
    assert engine.switch_group(group.id, PATIENT).success


@pytest.mark.usefixtures("planted_damage")
def test_fsck_finds_a_group_that_stands_apart(open_engine: Any) -> None:
    engine = open_engine(sound=False)
    branches_with_indexes(engine, LEFT)
    group = switched(engine, LEFT)

    def part(commit: Commit) -> None:
        row = msgspec.structs.replace(group_in(commit.txn, commit.db, group.id), state=GroupState.ROLLED_BACK)
        commit.txn.put(SEQUENCE.pack(row.number), encode_row(row), db=commit.db["groups"])

    inside.transact(engine, part)
    found = [str(finding) for finding in engine.check()]
    assert any(text.startswith(f"GR-1 {group.id}, GRAPH_INDEX of branch 'left'") for text in found), found


def test_break_group_is_true_or_false() -> None:
    with pytest.raises(InvalidConfig, match="break_group"):
        SwitchRequest(break_group="yes")  # type: ignore[arg-type]
