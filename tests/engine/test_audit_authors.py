"""Every row of the audit history says named and why: the caller's words, or else user, host and process."""

from __future__ import annotations

import ast
import getpass
import inspect
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import pytest

from shadowswitch import Engine, GroupMember, InvalidConfig, Put, ShadowSwitchError, SwitchRequest
from shadowswitch.model.events import AUDIT_ACTIONS
from tests.support import inside
from tests.support.engine_helpers import KIND, ROOT, TYPES, built, fill, live, wait_until
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


def paused(engine: Engine) -> str:
    id = start(engine)
    engine.pause_build(id)
    return id


def indexed(engine: Engine, **named: Any) -> str:
    """Index the branch: it becomes READY, or with `failed` ERROR."""
    engine.start_indexing("main", "indexer")
    return engine.complete_indexing("main", "indexer", **named).status.state


def delivery(engine: Engine, **named: Any) -> None:
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow, **named)


def forked(engine: Engine, written: str) -> None:
    """Fork the branch, and write to one of the two."""
    engine.fork_branch("new", "main")
    engine.write(written, [Put(TYPES[0], "of one side", {"text": "new"})])


def merged(engine: Engine, **named: Any) -> None:
    forked(engine, "new")
    assert engine.merge_into("main", "new", **named).applied == 1


def rebased(engine: Engine, **named: Any) -> None:
    forked(engine, "main")
    assert engine.rebase("new", **named).applied == 1


def grouped(engine: Engine, **named: Any) -> str:
    return engine.start_group("one", [GroupMember("main", KIND, TYPES)], **named).id


CALLS: dict[str, tuple[str, Callable[[Any], object], Callable[[Any], object]]] = {
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
    "create_branch": (
        "branch.created", lambda e: e.create_branch("new"), lambda e: e.create_branch("new", **ALICE)
    ),
    "merge_branch": (
        "branch.state",
        lambda e: (indexed(e), e.merge_branch("main")),
        lambda e: (indexed(e), e.merge_branch("main", **ALICE)),
    ),
    "reopen_branch": (
        "branch.state",
        lambda e: (indexed(e), e.reopen_branch("main")),
        lambda e: (indexed(e), e.reopen_branch("main", **ALICE)),
    ),
    "recover_branch": (
        "branch.state",
        lambda e: (indexed(e, failed=True), e.recover_branch("main")),
        lambda e: (indexed(e, failed=True), e.recover_branch("main", **ALICE)),
    ),
    "start_indexing": (
        "indexing.started",
        lambda e: e.start_indexing("main", "indexer", TYPES),
        lambda e: e.start_indexing("main", "indexer", TYPES, **ALICE),
    ),
    "complete_indexing": ("indexing.completed", indexed, lambda e: indexed(e, **ALICE)),
    "complete_indexing of what failed": (
        "indexing.failed", lambda e: indexed(e, failed=True), lambda e: indexed(e, failed=True, **ALICE)
    ),
    "pause_build": (
        "build.paused", lambda e: e.pause_build(start(e)), lambda e: e.pause_build(start(e), **ALICE)
    ),
    "resume_build": (
        "build.resumed", lambda e: e.resume_build(paused(e)), lambda e: e.resume_build(paused(e), **ALICE)
    ),
    "throttle_build": (
        "build.throttled",
        lambda e: e.throttle_build(paused(e), 0.5),
        lambda e: e.throttle_build(paused(e), 0.5, **ALICE),
    ),
    "set_priority": (
        "build.priority", lambda e: e.set_priority(paused(e), 1), lambda e: e.set_priority(paused(e), 1, **ALICE)
    ),
    "schedule_switch": (
        "switch.scheduled",
        lambda e: e.schedule_switch(built(e).shadow_index_id),
        lambda e: e.schedule_switch(built(e).shadow_index_id, request=REQUEST),
    ),
    "drop_branch": (
        "branch.dropped",
        lambda e: (e.create_branch("new"), e.drop_branch("new")),
        lambda e: (e.create_branch("new"), e.drop_branch("new", **ALICE)),
    ),
    "fork_branch": (
        "branch.forked",
        lambda e: e.fork_branch("new", "main"),
        lambda e: e.fork_branch("new", "main", **ALICE),
    ),
    "merge_into": ("branch.merged", merged, lambda e: merged(e, **ALICE)),
    "rebase": ("branch.rebased", rebased, lambda e: rebased(e, **ALICE)),
    "drop_index": (
        "index.dropped",
        lambda e: (live(e), e.drop_index("main", KIND)),
        lambda e: (live(e), e.drop_index("main", KIND, **ALICE)),
    ),
    "retune": (
        "index.retuned",
        lambda e: (live(e), e.retune("main", KIND, {})),
        lambda e: (live(e), e.retune("main", KIND, {}, **ALICE)),
    ),
    "start_group": ("group.started", grouped, lambda e: grouped(e, **ALICE)),
    "dissolve_group": (
        "group.ended", lambda e: e.dissolve_group(grouped(e)), lambda e: e.dissolve_group(grouped(e), **ALICE)
    ),
    "tell_settings": (
        "settings.applied",
        lambda e: e.tell_settings("a file", None),
        lambda e: e.tell_settings("a file", None, **ALICE),
    ),
    "hold_changes": (
        "hold.made", lambda e: e.hold_changes("me", "main", 1), lambda e: e.hold_changes("me", "main", 1, **ALICE)
    ),
    "release_changes": (
        "hold.released",
        lambda e: (e.hold_changes("me", "main", 1), e.release_changes("me", "main")),
        lambda e: (e.hold_changes("me", "main", 1), e.release_changes("me", "main", **ALICE)),
    ),
}  # fmt: skip


ELSEWHERE = {
    "force_unlock": "takes no call without both: tests/engine/test_engine_locks.py",
    "fail_build": "its error is its reason: test_a_failure_and_a_refusal_have_their_own_reason",
    "receive_event": "the sender and the type of the event: test_no_row_is_without_author_and_reason",
    "check": "a repair: tests/storage/test_derived_again.py",
    "unschedule_switch": "tested with the schedule",
    **dict.fromkeys(("switch_group", "rollback_group"), "tests/groups/test_group_switches.py"),
}
"""Calls that change something and leave their row in another test."""

NO_DECISION = {
    "write": "the journal has it",
    **dict.fromkeys(
        ("acquire_lock", "acquire_locks", "extend_lock", "release_lock", "heartbeat", "confirm_lock", "check_write"),
        "the holder and its reason are in the event of the lock",
    ),
    "report_progress": "a figure",
    "note_event_position": "the place of a reader",
    "clean_up": "the engine decides, by its rules",
    "close": "the next start leaves its rows",
    **dict.fromkeys(
        ("set_health_check", "add_validator", "add_merge_condition", "subscribe", "watch_folder"),
        "a function of the embedding program, until it ends",
    ),
    "add_group_validator": "a function of the embedding program, until it ends",
}
"""Calls that change something and are no decision, each with the reason."""

READING = {"audit", "audit_span", "branch", "branch_of_lock", "branch_status", "branches", "changes"}
READING |= {"changes_holds", "checks", "diff", "diff_page", "group", "groups", "read_group"}
READING |= {"next_page", "search_many", "search_pages"}
READING |= {"config", "count", "event_outcome", "event_position", "event_span", "events", "find_lock", "get", "head"}
READING |= {
    "backup",
    "build_cost",
    "health",
    "histograms",
    "index",
    "indexes",
    "lock_waiters",
    "locks",
    "open",
    "path",
    "reader",
    "resource_types",
}
READING |= {
    "count_branches",
    "compare",
    "count_indexes",
    "count_shadow_states",
    "count_shadows",
    "index_figures",
    "latencies",
    "scan",
    "scan_page",
    "shadow",
    "shadows",
}
READING |= {"quiet_hours", "stats", "trouble", "wait_for"}


@pytest.fixture
def offered(name: str) -> None:
    if not hasattr(Engine, name.partition(" ")[0]):
        pytest.skip("this version has no such call")


def test_every_public_call_that_changes_something_is_audited_or_is_no_decision() -> None:
    calls = {name for name in dir(Engine) if not name.startswith("_")}
    audited = {name.partition(" ")[0] for name in CALLS} | set(ELSEWHERE)
    assert calls - audited - set(NO_DECISION) - READING == set(), "list the call, with the row that it leaves"
    assert not READING & (audited | set(NO_DECISION))


def test_a_call_that_takes_a_reason_takes_an_author_and_leaves_a_row() -> None:
    for name in [name for name in dir(Engine) if not name.startswith("_") and callable(getattr(Engine, name))]:
        names = set(inspect.signature(getattr(Engine, name)).parameters)
        if name in READING | set(NO_DECISION):
            assert not names & {"by", "request"} or name == "event_outcome", name
        elif name not in ("force_unlock", "receive_event", "fail_build"):  # an admin; an event; an error
            assert {"by", "reason"} <= names or "request" in names, name


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_audited_with_the_author_and_the_reason_of_the_caller(some: Engine, name: str) -> None:
    kind, _, with_names = CALLS[name]
    with_names(some)
    assert (newest(some, kind)["by"], newest(some, kind)["reason"]) == ("alice", "a drill")


@pytest.mark.usefixtures("offered")
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
    rows = {(entry.type, entry.data.get("by"), entry.data.get("reason")) for entry in again.audit()}
    assert {kind for kind, by, reason in rows if not by or not reason} == set()
    assert rows > {
        ("generation.retired", "shadowswitch", "its soak is over"),
        ("recovery.awaited", "shadowswitch", "the engine started"),
        ("generation.condemned", "shadowswitch", "health check: slow"),
    }


def test_the_engine_gives_the_rule_by_which_files_of_a_failed_build_go(open_engine: Any) -> None:
    engine = open_engine(failed_keep_s=0.01)
    engine.create_branch("main")
    fill(engine, 20)
    failed(engine)
    wait_until(lambda: "generation.retired" in [entry.type for entry in engine.audit()], what="the end of the files")
    row = newest(engine, "generation.retired")
    assert (row["by"], row["reason"].partition(" were")[0]) == ("shadowswitch", "the files of its failed build")


def test_a_branch_that_becomes_ready_names_the_build_that_made_it_so(some: Engine) -> None:
    some.rebuild("main", KIND, TYPES, request=REQUEST, track_ready=True)
    wait_until(lambda: some.branch("main").state == "READY")
    row = newest(some, "branch.state")
    assert (row["by"], row["reason"].split()[-2:]) == ("shadowswitch", ["is", "live"])


def is_audit(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "audit"


def audit_calls() -> list[str]:
    """The actions of all calls of `Commit.audit`, as they stand in the source."""
    paths = [path for layer in ("storage", "actors", "engine") for path in (ROOT / layer).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    return [ast.unparse(node.args[0]) for node in nodes if is_audit(node) and len(node.args) == 3]


def test_every_audit_call_has_an_action_that_is_listed_and_every_listed_action_is_used() -> None:
    source = "\n".join(
        path.read_text("utf-8") for layer in ("storage", "actors", "engine") for path in (ROOT / layer).rglob("*.py")
    )
    named = [action for action in audit_calls() if action.startswith("'")]
    assert len(named) > 15
    assert {action.strip("'") for action in named} - set(AUDIT_ACTIONS) == set()
    documented = (ROOT / "docs" / "operating.md").read_text().partition("| action |")[2].partition("\n\n")[0]
    lines = [line for line in documented.splitlines() if line.startswith("| `")]
    assert lines == [f"| `{action}` | {text} |" for action, text in AUDIT_ACTIONS.items()]
    for action in AUDIT_ACTIONS:
        assert f'"{action}"' in source or f'"{action.removeprefix("recovery.")}"' in source, action


@pytest.mark.parametrize("row", [("build.unheard", {"by": "a"}), ("build.failed", {}), ("build.failed", {"by": ""})])
def test_a_row_without_a_listed_action_or_without_author_and_reason_is_a_defect(
    some: Engine, row: tuple[str, dict[str, Any]]
) -> None:
    before = some.audit_span()
    with pytest.raises(ShadowSwitchError, match="EV-4"):
        inside.transact(some, lambda commit: commit.audit(row[0], "a subject", row[1]))
    assert some.audit_span() == before


@pytest.mark.parametrize("wrong", [{"by": 5}, {"by": "a" * 1001}, {"by": "\ud800"}, {"reason": 5}], ids=repr)
def test_an_author_that_is_no_text_is_refused_before_anything_begins(some: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        some.start_build("main", KIND, TYPES, **wrong)
    assert some.shadows() == []
