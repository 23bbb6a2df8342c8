"""An invalid argument of a call is an error of the library, before anything begins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Config, Engine, IncomingRules, InvalidConfig, ShadowSwitchError, SwitchRequest, UnknownShadow
from shadowswitch.storage.catalog import rows
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, live, put

NO_ARGUMENTS: dict[str, Callable[[Engine], object]] = {
    "a request that is a text": lambda engine: engine.switch(engine.shadows()[-1].shadow_index_id, "x"),  # type: ignore[arg-type]
    "a rollback on request of a text": lambda engine: engine.rollback("main", KIND, "x"),  # type: ignore[arg-type]
    "a build_config that is a number": lambda engine: engine.start_build("main", KIND, TYPES, 5),  # type: ignore[arg-type]
    "a number of resource types": lambda engine: engine.start_build("main", KIND, 5),  # type: ignore[arg-type]
    "a service without a name": lambda engine: engine.start_build("main", KIND, TYPES, service_name=5),  # type: ignore[arg-type]
    "a build perhaps external": lambda engine: engine.start_build("main", KIND, TYPES, external="x"),  # type: ignore[arg-type]
    "a write with a word for a time": lambda engine: engine.write("main", [put("a")], timeout_s="x"),  # type: ignore[arg-type]
    "a write with no number for a time": lambda engine: engine.write("main", [put("a")], timeout_s=float("nan")),
    "a rebuild with a word for a time": lambda engine: engine.rebuild("main", KIND, TYPES, timeout_s="x"),  # type: ignore[arg-type]
    "a rebuild on request of a text": lambda engine: engine.rebuild("main", KIND, TYPES, request="x"),  # type: ignore[arg-type]
    "a rebuild with an unknown check": lambda engine: engine.rebuild(
        "main", KIND, TYPES, request=SwitchRequest(validation_checks=("NO_SUCH",))
    ),
    "a reader with a word for an LSN": lambda engine: engine.reader("main", KIND, "x"),  # type: ignore[arg-type]
    "a subscriber that cannot be called": lambda engine: engine.subscribe(5),  # type: ignore[arg-type]
    "a health check that cannot be called": lambda engine: engine.set_health_check(5),  # type: ignore[arg-type]
    "a validator that cannot be called": lambda engine: engine.add_validator("OWN", 5),  # type: ignore[arg-type]
    "a clean-up with a word for a time": lambda engine: engine.clean_up("x"),  # type: ignore[arg-type]
}


def is_refused(call: Callable[[Engine], object], engine: Engine) -> bool:
    try:
        call(engine)
    except InvalidConfig:
        return True
    return False


def test_an_invalid_argument_is_refused_before_anything_begins(filled: Engine) -> None:
    live(filled)
    waiting = built(filled).shadow_index_id
    head, shadows = filled.head("main"), filled.shadows()
    assert [what for what, call in NO_ARGUMENTS.items() if not is_refused(call, filled)] == []
    assert filled.head("main") == head
    assert filled.shadows() == shadows
    assert filled.shadow(waiting).state == "BUILT"


@pytest.mark.parametrize("call", ["switch", "shadow", "cancel_build", "retry_build", "pause_build", "wait_for"])
def test_a_number_is_no_shadow(engine: Engine, call: str) -> None:
    with pytest.raises(UnknownShadow, match="no shadow index 5"):
        getattr(engine, call)(5)


def test_a_reason_that_is_no_text_does_not_get_into_the_catalog(filled: Engine) -> None:
    id = filled.start_build("main", KIND, TYPES, external=True).shadow_index_id
    with pytest.raises(InvalidConfig, match="reason"):
        filled.cancel_build(id, 5)  # type: ignore[arg-type]
    assert filled.shadow(id).state == "BUILDING"


def test_a_row_that_could_not_be_read_again_is_not_stored(engine: Engine) -> None:
    row = rows.BranchRow(rows.FORMAT, 7, 5, "ACTIVE", 0.0)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        rows.encode_row(row)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/below", "/proc/foo", 5, b"bytes", "nul\0"])
def test_a_path_that_cannot_be_a_data_directory_is_refused(path: Any) -> None:
    with pytest.raises(InvalidConfig, match="can be no data directory"):
        Engine.open(path)


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    inside.replace(monkeypatch, inside.Step.LOCK_DIRECTORY, refused)
    with pytest.raises(InvalidConfig, match="Permission denied"):
        Engine.open(tmp_path / "data")


@pytest.mark.parametrize("config", [{}, {"soak_s": 1}, "x"])
def test_a_config_of_another_type_is_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(InvalidConfig, match="must be a Config"):
        Engine.open(tmp_path / "data", config)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "wrong", [{"incoming": 5}, {"published_path": 5}, {"publish_strategy": []}, {"allow_remote_filesystem": "no"}]
)
def test_a_setting_of_the_wrong_kind_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        Config(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"force_switch": "yes"},
        {"backup_current": 1},
        {"validation_checks": 5},
        {"validation_checks": [5]},
        {"queries": None},
        {"switch_timeout_seconds": "10"},
        {"strategy": []},
        {"performed_by": None},
        {"reason": 5},
    ],
)
def test_a_request_of_the_wrong_kind_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        SwitchRequest(**wrong)


def test_such_an_error_belongs_to_the_tree() -> None:
    with pytest.raises(ShadowSwitchError):
        Engine.open("/etc/passwd")


@pytest.mark.parametrize(
    ("given", "by", "reason"),
    [
        ({}, f"@{socket.gethostname()}, process {os.getpid()}", "not given"),
        ({"performed_by": "alice", "reason": "the old one is broken"}, "alice", "the old one is broken"),
    ],
    ids=["not given", "given"],
)
def test_a_forced_switch_is_audited_with_author_and_reason(
    filled: Engine, given: Mapping[str, Any], by: str, reason: str
) -> None:
    id = built(filled).shadow_index_id
    assert filled.switch(id, SwitchRequest(force_switch=True, **given)).success
    (entry,) = [entry for entry in filled.audit() if entry.type == "switch.committed"]
    assert entry.data["by"].endswith(by)
    assert entry.data["by"] != by or given, "the default names the user, too"
    assert (entry.data["reason"], entry.data["forced"]) == (reason, True)


def test_a_rollback_says_that_there_has_been_only_one_generation(filled: Engine) -> None:
    live(filled)
    with pytest.raises(ShadowSwitchError, match="there has been only one"):
        filled.rollback("main", KIND)


@pytest.mark.parametrize("name", ["auto_switch", "backup_before_switch", "auto_merge", "require_validation"])
def test_a_rule_for_incoming_events_is_a_boolean(name: str) -> None:
    with pytest.raises(InvalidConfig, match=name):
        IncomingRules(**{name: "yes"})  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["abc", "abcdef0123456789abcdef0123456789"])
def test_an_unknown_shadow_is_the_same_error_in_every_call(engine: Engine, id: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: engine.shadow(id),
        lambda: engine.switch(id),
        lambda: engine.wait_for(id, timeout_s=1),
        lambda: engine.cancel_build(id),
        lambda: engine.pause_build(id),
        lambda: engine.resume_build(id),
        lambda: engine.retry_build(id),
        lambda: engine.throttle_build(id, 0.5),
        lambda: engine.set_priority(id, 1),
        lambda: engine.schedule_switch(id),
        lambda: engine.unschedule_switch(id),
        lambda: engine.complete_build(id, 1, 1),
        lambda: engine.fail_build(id, "no"),
    ]
    for call in calls:
        with pytest.raises(UnknownShadow):
            call()
    assert engine.stats()["crashes"] == []
