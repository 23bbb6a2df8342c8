"""Every row of the audit history says named and why: the caller's words, or else user, host and process."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, SwitchRequest
from tests.support.engine_helpers import KIND, TYPES, built, fill, live, wait_until
from tests.support.external_helpers import begin, complete, delivered, incoming

HERE = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
ALICE = {"by": "alice", "reason": "a drill"}
FAILED = {"by": "alice"}
REQUEST = SwitchRequest(performed_by="alice", reason="a drill")


@pytest.fixture
def some(engine: Engine) -> Engine:
    fill(engine, 20)
    return engine


def newest(engine: Engine, kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = [entry for entry in engine.audit() if entry.type == kind][-1].data
    return found


def start(engine: Engine, **named: Any) -> str:
    return engine.start_build("main", KIND, TYPES, **named).shadow_index_id


def failed(engine: Engine, **named: Any) -> str:
    id = start(engine)
    engine.pause_build(id)
    engine.fail_build(id, "a drill", **named)
    return id


def cancelled_while_it_runs(engine: Engine, **named: Any) -> None:
    id = start(engine)
    engine.pause_build(id)
    engine.cancel_build(id, named.get("reason", ""), by=named.get("by", ""))


def refused(engine: Engine, request: SwitchRequest | None) -> None:
    engine.add_validator("NEVER", lambda reader: "never")
    request = request or SwitchRequest()
    checks = SwitchRequest(validation_checks=("NEVER",), performed_by=request.performed_by, reason=request.reason)
    assert not engine.switch(built(engine).shadow_index_id, checks).success


def switched_back(engine: Engine, request: SwitchRequest | None) -> None:
    live(engine), live(engine)
    assert engine.rollback("main", KIND, request).success


def delivery(engine: Engine, **named: Any) -> None:
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow, **named)


CALLS: dict[str, tuple[str, Callable[[Engine], object], Callable[[Engine], object]]] = {
    "start_build": ("build.claimed", start, lambda e: start(e, **ALICE)),
    "rebuild": ("build.claimed", live, lambda e: e.rebuild("main", KIND, TYPES, request=REQUEST)),
    "cancel_build of a running one": (
        "build.cancelled", cancelled_while_it_runs, lambda e: cancelled_while_it_runs(e, **ALICE)
    ),
    "cancel_build of a waiting one": (
        "build.cancelled",
        lambda e: e.cancel_build(built(e).shadow_index_id),
        lambda e: e.cancel_build(built(e).shadow_index_id, "a drill", by="alice"),
    ),
    "retry_build": ("build.retried", lambda e: e.retry_build(failed(e)), lambda e: e.retry_build(failed(e), **ALICE)),
    "complete_build": ("build.delivered", delivery, lambda e: delivery(e, **ALICE)),
    "switch": (
        "switch.committed",
        lambda e: e.switch(built(e).shadow_index_id),
        lambda e: e.switch(built(e).shadow_index_id, REQUEST),
    ),
    "rollback": ("switch.committed", lambda e: switched_back(e, None), lambda e: switched_back(e, REQUEST)),
    "archive_branch": ("branch.state", lambda e: e.archive_branch("main"), lambda e: e.archive_branch("main", **ALICE)),
    "hold_changes": (
        "hold.made", lambda e: e.hold_changes("me", "main", 1), lambda e: e.hold_changes("me", "main", 1, **ALICE)
    ),
    "release_changes": (
        "hold.released",
        lambda e: (e.hold_changes("me", "main", 1), e.release_changes("me", "main")),
        lambda e: (e.hold_changes("me", "main", 1), e.release_changes("me", "main", **ALICE)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_audited_with_the_author_and_the_reason_of_the_caller(some: Engine, name: str) -> None:
    kind, _, with_names = CALLS[name]
    with_names(some)
    assert (newest(some, kind)["by"], newest(some, kind)["reason"]) == ("alice", "a drill")


@pytest.mark.parametrize("name", CALLS)
def test_by_default_it_is_user_host_and_process(some: Engine, name: str) -> None:
    kind, without, _ = CALLS[name]
    without(some)
    assert (newest(some, kind)["by"], newest(some, kind)["reason"]) == (HERE, "not given")


def test_a_failure_and_a_refusal_have_their_own_reason(some: Engine) -> None:
    failed(some, by="alice")
    assert newest(some, "build.failed") == {"by": "alice", "reason": "a drill"}
    refused(some, REQUEST)
    assert newest(some, "switch.given_up") == {"by": "alice", "reason": "validation failed: NEVER: never"}


def test_no_row_is_without_author_and_reason(open_engine: Any) -> None:
    """Also of the decisions of the engine itself: the end of a soak, recovery, a bad health check, an event."""
    engine = open_engine(soak_s=0.01, health_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 20)
    live(engine), live(engine)
    wait_until(lambda: "generation.retired" in [entry.type for entry in engine.audit()], what="the end of the soak")
    engine.receive_event(incoming("com.oms.indexing.completed", shadow_index_id="none"))
    engine.start_build("main", "GRAPH_INDEX", TYPES, external=True)
    engine.close()
    again = open_engine(soak_s=60, health_interval_s=0.01)
    live(again), live(again)
    again.set_health_check(lambda info: "slow")
    wait_until(lambda: "generation.condemned" in [entry.type for entry in again.audit()], what="the way back")
    rows = {entry.type: (entry.data.get("by"), entry.data.get("reason")) for entry in again.audit()}
    assert {kind for kind, (by, reason) in rows.items() if not by or not reason} == set()
    assert rows["generation.retired"] == ("shadowswitch", "its soak is over")
    assert rows["recovery.awaited"] == ("shadowswitch", "the engine started")
    assert rows["generation.condemned"] == ("shadowswitch", "health check: slow")


@pytest.mark.parametrize("wrong", [{"by": 5}, {"by": "a" * 1001}, {"by": "\ud800"}, {"reason": 5}], ids=repr)
def test_an_author_that_is_no_text_is_refused_before_anything_begins(some: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        some.start_build("main", KIND, TYPES, **wrong)
    assert some.shadows() == []
