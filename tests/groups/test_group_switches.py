"""A group: several indexes are started, switched and rolled back together, all or none, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import (
    DuplicateBuild,
    Engine,
    GroupMember,
    GroupState,
    InvalidConfig,
    InvalidTransition,
    Put,
    SwitchRequest,
    UnknownGroup,
    UnknownIndex,
)
from tests.support import inside
from tests.support.engine_helpers import TYPES, crew, fill, wait_until
from tests.support.group_helpers import (
    BRANCHES,
    branches_with_indexes,
    generations,
    keys,
    member,
    started,
    states,
    switched,
)

PATIENT = SwitchRequest(switch_timeout_seconds=60)


@pytest.fixture
def four(engine: Engine) -> Engine:
    """Two branches with two live indexes each."""
    branches_with_indexes(engine)
    return engine


def kinds_of(engine: Engine, prefix: str) -> list[str]:
    return [one.type.removeprefix("com.shadowswitch.") for one in engine.events(limit=10_000) if prefix in one.type]


def test_every_epoch_moves_together_under_writers_and_no_write_is_lost(four: Engine) -> None:
    before, written = generations(four), {branch: iter(range(1_000_000)) for branch in BRANCHES}
    last: dict[tuple[str, str], int] = {}

    def write(branch: str) -> Callable[[], None]:
        def one() -> None:
            n = next(written[branch])
            four.write(branch, [Put(TYPES[0], f"w{n % 50}", {"text": f"edit{n}"})])
            last[branch, f"w{n % 50}"] = n

        return one

    with crew() as hands:
        for branch in BRANCHES:
            hands.start(write(branch))
        group = started(four)
        result = four.switch_group(group.id, PATIENT)
        assert result.success, result.message
        after = generations(four)
        assert [one.generation for one in four.group(group.id).members] == [after[key] for key in keys()]
        assert all(after[key] != before[key] for key in keys())
        assert (result.epoch, len(result.members), result.group_id) == (1, 4, group.id)
        assert len({one.sealed_lsn for one in result.members[:2]}) == 1, "one head for both indexes of a branch"
        back = four.rollback_group(group.id, PATIENT)
        assert back.success, back.message
        assert generations(four) == before
        assert four.rollback_group(group.id, PATIENT).success
        assert generations(four) == after
    assert four.group(group.id).epoch == 3
    for branch, kind in keys():
        with four.reader(branch, kind, min_lsn=four.head(branch), timeout_s=30) as reader:
            held = {record.id: record.lsn for record in reader.scan()}
        assert held == {record.id: record.lsn for record in four.scan(branch)}
    assert all(four.get(branch, TYPES[0], id).fields["text"] == f"edit{n}" for (branch, id), n in last.items())  # type: ignore[union-attr]


def test_the_builds_of_a_group_are_claimed_together_or_not_at_all(four: Engine) -> None:
    shadow = four.start_build("right", "SEARCH_INDEX", TYPES).shadow_index_id
    with pytest.raises(DuplicateBuild):
        four.start_group("four", [member(*key) for key in keys()])
    assert four.groups() == []
    assert [one.shadow_index_id for one in four.shadows(state="PREPARING") + four.shadows(state="BUILDING")] in (
        [shadow],
        [],
    )
    four.wait_for(shadow, "BUILT", timeout_s=60)
    four.cancel_build(shadow)
    group = started(four)
    assert (group.name, group.state, group.epoch, group.switched_at) == ("four", GroupState.BUILT, 0, None)
    assert [(one.branch_name, one.index_type) for one in group.members] == keys()
    assert four.groups() == [group]


def test_a_member_with_a_stale_token_moves_none(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, group = generations(four), started(four)
    third = group.members[2].generation

    def commit_switch(ordinary: Any, commit: Any, number: int, token: int, *more: Any) -> Any:
        return ordinary(commit, number, token + 7 * (number == third), *more)

    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.COMMIT_SWITCH, commit_switch)
        result = four.switch_group(group.id, PATIENT)
    assert not result.success
    assert "token" in result.message
    assert generations(four) == before
    assert states(four, group) == {"BUILT"}
    assert (four.group(group.id).state, four.group(group.id).epoch) == (GroupState.BUILT, 0)
    assert four.switch_group(group.id, PATIENT).success


@pytest.mark.usefixtures("planted_damage")
def test_a_member_that_is_not_proven_moves_none(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, group = generations(four), started(four)
    wrong = group.members[1].generation
    with monkeypatch.context() as patched:
        inside.unsound(patched, lambda number: number == wrong and inside.is_in_turn())
        result = four.switch_group(group.id, PATIENT)
    assert not result.success
    assert "SEARCH_INDEX of branch 'left'" in result.message
    assert "digest" in result.message
    assert generations(four) == before
    assert states(four, group) == {"BUILT"}
    assert four.switch_group(group.id, PATIENT).success


def test_an_empty_member_refuses_all(engine: Engine) -> None:
    engine.create_branch("left")
    fill(engine, 20, "left")
    engine.create_branch("right")
    group = engine.start_group("pair", [member("left", "GRAPH_INDEX"), member("right", "GRAPH_INDEX")])
    for one in group.members:
        engine.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
    result = engine.switch_group(group.id, PATIENT)
    assert not result.success
    assert "GRAPH_INDEX of branch 'right'" in result.message
    assert engine.indexes() == []
    allowed = SwitchRequest(switch_timeout_seconds=60, allow_empty=True)
    assert engine.switch_group(group.id, allowed).success
    assert engine.group(group.id).state == GroupState.COMPLETE, "no index had a generation before: nothing soaks"
    assert len(engine.indexes()) == 2


def test_a_member_that_does_not_verify_takes_all_back(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, group = generations(four), started(four)
    wrong = group.members[2].generation

    def verify(ordinary: Any, context: Any, index: Any, generation: Any, lsn: int) -> Any:
        found = ["planted"] if generation.row.number == wrong else []
        return found or ordinary(context, index, generation, lsn)

    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.VERIFY_GROUP, verify)
        result = four.switch_group(group.id, PATIENT)
    assert (result.success, result.rolled_back) == (False, True)
    assert "GRAPH_INDEX of branch 'right': planted" in result.message
    assert generations(four) == before
    ended = four.group(group.id)
    assert (ended.state, ended.epoch) == (GroupState.REVERTED, 2)
    assert "planted" in ended.message
    assert states(four, group) == {"CLEANUP"}
    assert all(four.index(*key).previous_generation is None for key in keys())
    assert four.rebuild("left", "GRAPH_INDEX", TYPES, {"backend": "kv"}, PATIENT).success, "each is on its own"


def test_new_indexes_that_do_not_verify_are_withdrawn_with_the_others_that_go_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches_with_indexes(engine, ["left"])
    before = generations(engine, ["left"])
    engine.create_branch("right")
    fill(engine, 20, "right")
    group = started(engine)
    wrong = group.members[3].generation

    def verify(ordinary: Any, context: Any, index: Any, generation: Any, lsn: int) -> Any:
        return ["planted"] if generation.row.number == wrong else ordinary(context, index, generation, lsn)

    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.VERIFY_GROUP, verify)
        result = engine.switch_group(group.id, PATIENT)
    assert result.rolled_back, result.message
    assert generations(engine, ["left"]) == before
    assert engine.indexes("right") == []
    with pytest.raises(UnknownIndex):
        engine.reader("right", "GRAPH_INDEX")


def test_a_group_is_rolled_back_while_it_soaks_and_not_after(four: Engine) -> None:
    group = started(four)
    with pytest.raises(InvalidTransition, match=r"'four'.*BUILDING"):
        four.rollback_group(group.id)
    assert four.switch_group(group.id, PATIENT).success
    with pytest.raises(InvalidTransition, match="rollback_group goes back"):
        four.switch_group(group.id)
    assert four.rollback_group(group.id, PATIENT).success
    assert four.group(group.id).state == GroupState.ROLLED_BACK
    request = SwitchRequest(switch_timeout_seconds=60, backup_current=False)
    assert four.rollback_group(group.id, request).success
    ended = four.group(group.id)
    assert (ended.state, ended.message) == (GroupState.COMPLETE, "backup_current was off")
    with pytest.raises(InvalidTransition, match="COMPLETE"):
        four.rollback_group(group.id)


def test_the_generations_before_soak_equally_long_and_retire_together(open_engine: Any) -> None:
    engine = open_engine(soak_s=1.0, janitor_interval_s=3600)
    branches_with_indexes(engine)
    group = switched(engine)
    assert all(engine.index(*key).previous_generation for key in keys())

    def is_over() -> bool:
        inside.sweep(engine)
        return bool(engine.group(group.id).state == GroupState.COMPLETE)

    wait_until(is_over, 60)
    assert all(engine.index(*key).previous_generation is None for key in keys())
    [ended] = [one for one in engine.audit() if one.type == "group.ended"]
    assert (ended.data["by"], ended.data["reason"]) == ("shadowswitch", "its soak is over")


def test_a_group_leaves_events_and_audit_rows_with_its_author(four: Engine) -> None:
    group = started(four)
    request = SwitchRequest(switch_timeout_seconds=60, performed_by="me", reason="schema 42")
    assert four.switch_group(group.id, request).success
    assert four.rollback_group(group.id, request).success
    four.dissolve_group(group.id, by="me", reason="done")
    assert kinds_of(four, ".group.") == ["group.started", "group.switched", "group.rolled_back", "group.ended"]
    rows = {one.type: one.data for one in four.audit() if one.type.startswith("group.")}
    assert (rows["group.switched"]["by"], rows["group.switched"]["reason"]) == ("me", "schema 42")
    assert rows["group.rolled_back"]["epoch"] == 2
    assert rows["group.ended"]["state"] == "DISSOLVED"
    assert len([one for one in four.audit() if one.type == "switch.committed"]) == 4 + 8
    counters = four.stats()["counters"]
    assert (counters["group_switches"], counters["group_rollbacks"]) == (1, 1)


def test_a_group_validator_sees_all_members_at_one_lsn_and_refuses(four: Engine) -> None:
    seen: list[Any] = []

    def check(readers: Any) -> list[str]:
        lsns = {key: readers[key].applied_lsn() for key in readers}
        seen.append((readers.lsn, lsns, list(readers)))
        with pytest.raises(KeyError):
            readers["SEARCH_INDEX"]  # both branches have one
        return ["a link leads nowhere"] if len(seen) == 1 else []

    four.add_group_validator("LINKS", check)
    four.add_group_validator("OTHERS", lambda _: ["not asked"], group="another")
    with crew() as hands:
        hands.start(lambda: four.write("left", [Put(TYPES[0], "busy", {"text": "busy"})]))
        group = started(four)
        result = four.switch_group(group.id, PATIENT)
        assert not result.success
        assert "LINKS: a link leads nowhere" in result.message
        assert states(four, group) == {"BUILT"}
        assert four.switch_group(group.id, PATIENT).success
        assert four.rollback_group(group.id, PATIENT).success
    assert len(seen) == 2, "a rollback asks no validator"
    lsn, lsns, found = seen[0]
    assert found == keys()
    assert lsns["left", "GRAPH_INDEX"] == lsns["left", "SEARCH_INDEX"] <= lsn
    assert lsns["right", "GRAPH_INDEX"] == lsns["right", "SEARCH_INDEX"] <= lsn
    with pytest.raises(InvalidConfig, match="LINKS"):
        four.add_group_validator("LINKS", check)


def test_force_overrides_a_group_validator(four: Engine) -> None:
    four.add_group_validator("NEVER", lambda _: "never")
    group = started(four)
    assert not four.switch_group(group.id, PATIENT).success
    assert four.switch_group(group.id, SwitchRequest(switch_timeout_seconds=60, force_switch=True)).success
    row = [one.data for one in four.audit() if one.type == "switch.committed"][-1]
    assert row["forced"]
    assert any("never" in text for text in row["overridden"])


def test_a_group_that_is_not_built_says_what_it_waits_for(four: Engine) -> None:
    group = four.start_group("four", [member(*key) for key in keys()])
    slow = group.members[0].shadow_index_id
    four.pause_build(slow)
    try:
        for one in group.members[1:]:
            four.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
        if four.shadow(slow).state != "BUILT":
            with pytest.raises(InvalidTransition, match="GRAPH_INDEX of branch 'left' is"):
                four.switch_group(group.id)
    finally:
        if four.shadow(slow).state != "BUILT":
            four.resume_build(slow)
    four.wait_for(slow, "BUILT", timeout_s=60)
    assert four.switch_group(group.id, PATIENT).success


def test_a_failed_member_can_be_retried(four: Engine) -> None:
    group = four.start_group("four", [member(*key) for key in keys()])
    one = group.members[3].shadow_index_id
    wait_until(lambda: four.shadow(one).state in ("BUILDING", "BUILT"))
    if four.shadow(one).state == "BUILDING":
        four.fail_build(one, "planted")
        failed = four.group(group.id)
        assert failed.state == GroupState.FAILED
        assert "planted" in failed.message
        with pytest.raises(InvalidTransition, match="planted"):
            four.switch_group(group.id)
        four.retry_build(one)
    for each in group.members:
        four.wait_for(each.shadow_index_id, "BUILT", timeout_s=60)
    assert four.switch_group(group.id, PATIENT).success


def test_a_group_takes_the_place_of_another_one_whole_and_of_a_part_only_by_breaking_it(four: Engine) -> None:
    first = switched(four)
    second = switched(four)
    assert four.group(first.id).state == GroupState.COMPLETE
    assert second.id in four.group(first.id).message
    part = started(four, ["left"], name="part")
    result = four.switch_group(part.id, PATIENT)
    assert not result.success
    assert second.id in result.message
    assert four.group(second.id).state == GroupState.ACTIVE
    breaking = SwitchRequest(switch_timeout_seconds=60, break_group=True)
    assert four.switch_group(part.id, breaking).success
    assert four.group(second.id).state == GroupState.DISSOLVED


def test_a_group_is_forgotten_once_a_hundred_others_have_ended_after_it(engine: Engine) -> None:
    fill(engine, 5)
    with pytest.MonkeyPatch.context() as patched:
        inside.patch_limit(patched, inside.Limit.ENDED_GROUPS_MAX, 1)
        ids = []
        for _ in range(4):
            group = engine.start_group("one", [GroupMember("main", "GRAPH_INDEX", TYPES, {"backend": "kv"})])
            ids.append(group.id)
            engine.cancel_build(group.members[0].shadow_index_id)
    assert [one.id for one in engine.groups()] == ids[2:]
    with pytest.raises(UnknownGroup):
        engine.group(ids[0])


@pytest.mark.parametrize("members", ["main", [], [("main", "SEARCH_INDEX")], [member("left", "GRAPH_INDEX")] * 2, None])
def test_wrong_members_are_refused(engine: Engine, members: Any) -> None:
    with pytest.raises(InvalidConfig):
        engine.start_group("four", members)
    with pytest.raises(InvalidConfig):
        engine.start_group(" ", [member("main", "GRAPH_INDEX")])
    assert engine.groups() == []


@pytest.mark.parametrize("id", ["group-1", "group-", "group-01", "4", "", "group-9999999999999999999", None, "g-²"])
def test_an_unknown_group_is_named(engine: Engine, id: Any) -> None:
    for call in (engine.group, engine.switch_group, engine.rollback_group, engine.dissolve_group):
        with pytest.raises(UnknownGroup):
            call(id)
