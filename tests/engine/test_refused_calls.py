"""Each refusal of an operation has a line in the log, with its author and its reason, and a flood of them does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Engine, ShadowSwitchError, SwitchRequest
from shadowswitch.engine.log_lines import AGAIN_S, AGAIN_S_MAX, OPERATIONS, REFUSALS_MAX, RefusedCalls
from shadowswitch.model.errors import UnknownShadow
from shadowswitch.storage.clock import Clock
from tests.support.engine_helpers import KIND, TYPES, built, fill, live

OpenEngine = Callable[..., Engine]
BY: dict[str, Any] = {"by": "alice", "reason": "the night"}
REQUEST = SwitchRequest(performed_by="alice", reason="the night")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines of refused calls since the last look."""
    caplog.set_level(logging.INFO, "shadowswitch")

    def taken() -> list[str]:
        found = [one.getMessage() for one in caplog.records if " refused  " in one.getMessage()]
        assert {one.levelno for one in caplog.records if " refused  " in one.getMessage()} <= {logging.INFO}
        caplog.clear()
        return found

    return taken


def _preparing(engine: Engine) -> str:
    return engine.start_build("main", "OTHER_INDEX", TYPES, external=True).shadow_index_id


def _archived(engine: Engine) -> str:
    engine.create_branch("old")
    engine.archive_branch("old")
    return "old"


REFUSED: dict[str, tuple[Callable[[Engine], Any], Callable[[Engine, Any], Any], str, str]] = {
    "a second build": (
        built, lambda e, _: e.start_build("main", KIND, TYPES, **BY), "start build refused", "which is BUILT",
    ),
    "a build on an archived branch": (
        _archived, lambda e, old: e.start_build(old, KIND, TYPES, **BY), "start build refused", "is ARCHIVED",
    ),
    "a drop of a branch in use": (built, lambda e, _: e.drop_branch("main", **BY), "drop branch refused", "is in use"),
    "a drop of an index that is not there": (
        lambda e: None, lambda e, _: e.drop_index("main", KIND, **BY), "drop index refused", "has no live",
    ),
    "a rollback without an index": (
        lambda e: None, lambda e, _: e.rollback("main", KIND, REQUEST), "rollback refused", "has no live",
    ),
    "a rollback without a previous generation": (
        live, lambda e, _: e.rollback("main", KIND, REQUEST), "rollback refused", "has no previous generation",
    ),
    "a switch to what is ACTIVE": (
        live, lambda e, _: e.switch(e.shadows()[-1].shadow_index_id, REQUEST), "switch refused", "is ACTIVE",
    ),
    "a switch to what is being built": (
        _preparing, lambda e, id: e.switch(id, REQUEST), "switch refused", "only a BUILT",
    ),
    "a schedule of what is ACTIVE": (
        live, lambda e, _: e.schedule_switch(e.shadows()[-1].shadow_index_id, 1, 2, REQUEST), "schedule switch refused",
        "is ACTIVE",
    ),
    "a retry of what is ACTIVE": (
        live, lambda e, _: e.retry_build(e.shadows()[-1].shadow_index_id, **BY), "retry build refused", "is ACTIVE",
    ),
    "a cancel of what is not there": (
        lambda e: None, lambda e, _: e.cancel_build("nothing", **BY), "cancel build refused", "no shadow index",
    ),
    "a rebuild beside a build": (
        built, lambda e, _: e.rebuild("main", KIND, TYPES, request=REQUEST), "rebuild refused", "which is BUILT",
    ),
    "a reopen of an active branch": (
        lambda e: None, lambda e, _: e.reopen_branch("main", **BY), "reopen branch refused", "main",
    ),
    "a branch that there is": (
        lambda e: None, lambda e, _: e.create_branch("main", **BY), "create branch refused", "main",
    ),
    "indexing under a lock": (
        lambda e: e.acquire_lock("main", "BACKUP", "bob"),
        lambda e, _: e.start_indexing("main", "carol", **BY), "start indexing refused", "bob holds a lock",
    ),
}  # fmt: skip
"""What there is, the call, the sentence of its line, and a part of the reason."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_operation_has_one_line_with_author_purpose_and_reason(
    engine: Engine, lines: Callable[[], list[str]], case: str
) -> None:
    before, call, sentence, reason = REFUSED[case]
    fill(engine, 5)
    made = before(engine)
    lines()
    with pytest.raises(ShadowSwitchError, match=reason):
        call(engine, made)
    (line,) = lines()
    assert line.startswith(sentence)
    assert '  by=alice  purpose="the night"  reason=' in line
    assert reason in line


def test_a_second_open_of_a_directory_has_a_line(engine: Engine, lines: Callable[[], list[str]]) -> None:
    for _ in range(3):
        with pytest.raises(ShadowSwitchError, match="is open in"):
            Engine.open(engine.path)
    (line,) = lines()
    assert line.startswith(f"open refused  data={engine.path}  by=")
    assert "is open in process" in line


def test_a_retry_on_an_archived_branch_and_the_end_of_a_build_have_their_own_lines(
    engine: Engine, lines: Callable[[], list[str]]
) -> None:
    id = _preparing(engine)
    engine.fail_build(id, "no room")
    engine.archive_branch("main")
    with pytest.raises(ShadowSwitchError, match="ARCHIVED"):
        engine.retry_build(id)
    assert [line.partition("  ")[0] for line in lines()] == ["retry build refused"]
    with pytest.raises(ShadowSwitchError, match="no room"):
        engine.wait_for(id)
    assert lines() == [], "a read has no line"


class _Hand(Clock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_the_same_refusal_again_and_again_comes_less_and_less_often(lines: Callable[[], list[str]]) -> None:
    clock = _Hand()
    refused = RefusedCalls(clock)
    for second in range(3 * 3600):
        clock.at = float(second)
        refused.note("switch", {"shadow": "a"}, "alice", "", UnknownShadow(f"{second} % of it"))
    found = lines()
    assert len(found) == 1 + 6 + 1, "the first, then after 1, 2, 4 ... 32 minutes, and after an hour"
    assert "repeats" not in found[0]
    assert f"repeats={AGAIN_S - 1:.0f}" in found[1]
    refused.note("switch", {"shadow": "a"}, "alice", "", UnknownShadow("another reason"))
    refused.note("switch", {"shadow": "b"}, "alice", "", UnknownShadow("1 % of it"))
    assert len(lines()) == 2, "another refusal has its own line"
    clock.at += 3 * AGAIN_S_MAX
    refused.note("switch", {"shadow": "a"}, "alice", "", UnknownShadow("2 % of it"))
    clock.at += AGAIN_S
    refused.note("switch", {"shadow": "a"}, "alice", "", UnknownShadow("2 % of it"))
    assert len(lines()) == 2, "a refusal after a long pause begins anew"


def test_refusals_of_any_number_of_subjects_have_a_bounded_number_of_lines(lines: Callable[[], list[str]]) -> None:
    clock = _Hand()
    refused = RefusedCalls(clock)
    for number in range(3 * REFUSALS_MAX):
        refused.note("switch", {"shadow": f"s{number}"}, "alice", "", UnknownShadow("no shadow"))
    assert len(lines()) == REFUSALS_MAX
    clock.at = AGAIN_S
    refused.note("switch", {"shadow": "late"}, "alice", "", UnknownShadow("no shadow"))
    assert len(lines()) == 1


def test_every_operation_is_a_call_of_the_engine() -> None:
    assert [name for name in OPERATIONS if not callable(getattr(Engine, name, None))] == []
