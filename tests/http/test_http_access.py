"""Access: tokens, scopes, branch patterns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.http.access import Access, Scope, load_tokens, new_token, now
from shadowswitch.service.http.app import MODULES
from shadowswitch.service.http.host import Options
from shadowswitch.service.http.routing import PUBLIC
from tests.support.cli_helpers import Cli
from tests.support.http_helpers import API, Client, Server, segment, serving, token_entry

TOKENS = {
    "reader": ([Scope.READ], ["*"]),
    "writer": ([Scope.READ, Scope.WRITE], ["feature/*"]),
    "builder": ([Scope.READ, Scope.WRITE, Scope.BUILD, Scope.SWITCH, Scope.ROLLBACK, Scope.LOCK], ["*"]),
    "admin": (list(Scope), ["*"]),
}
CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


class Guarded:
    """A server with tokens, and a client for each."""

    def __init__(self, server: Server, secrets: dict[str, str]) -> None:
        self.server = server
        self.secrets = secrets

    def __getattr__(self, name: str) -> Client:
        return self.server.client(self.secrets[name])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    secrets, lines = {}, []
    for name, (scopes, branches) in TOKENS.items():
        secrets[name], entry = token_entry(name, scopes, branches)
        lines.append(entry)
    file = place / "tokens.toml"
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    with serving(place / "data", "--token-file", str(file)) as server:
        found = Guarded(server, secrets)
        for branch in ("main", "feature/a"):
            found.admin.post("branches", {"name": branch})
        yield found
        assert all(secret not in server.log for secret in secrets.values()), "a secret is in the log"


def test_without_a_token_only_public_routes_answer(guarded: Guarded) -> None:
    anonymous = guarded.server.client()
    for path in ("/health", "/health/live", "/health/ready", "/schema", "/"):
        assert anonymous.call("GET", path).status == 200
    for path in ("/metrics", f"{API}/branches", f"{API}/events", f"{API}/events/stream", f"{API}/metrics"):
        problem = anonymous.refused(401, "GET", path)
        assert "Authorization" in problem["hint"]
    assert anonymous.call("GET", "branches").headers["www-authenticate"].startswith("Bearer")
    guarded.server.client("wrong").refused(401, "GET", "branches")
    anonymous.refused(401, "GET", "branches", headers={"Authorization": "Bearer \xff\xfe"})


def test_every_route_has_a_scope_and_refuses_a_token_without_it(guarded: Guarded) -> None:
    groups = [group for module in MODULES for group in module.HANDLERS]
    handlers = [one for group in groups for one in (group if isinstance(group, list) else [group])]
    assert len(handlers) > 40
    for handler in handlers:
        scope = handler.opt.get("scope")
        assert scope == PUBLIC or isinstance(scope, Scope), handler.fn
        if scope in (PUBLIC, Scope.READ):
            continue
        (path,) = handler.paths
        (method,) = handler.http_methods
        for parameter in ("shadow_id", "name", "lock_id", "branch_name"):
            path = path.replace(f"{{{parameter}:str}}", "main")
        problem = guarded.reader.refused(403, str(method), path, {})
        assert str(scope) in problem["hint"]


def test_a_branch_pattern_bounds_everything_a_token_does(guarded: Guarded) -> None:
    guarded.writer.post(f"branches/{segment('feature/a')}/write", CHANGE)
    problem = guarded.writer.refused(403, "POST", "branches/main/write", CHANGE)
    assert "feature/*" in problem["hint"]
    guarded.writer.refused(403, "GET", "branches/main/changes")
    guarded.writer.refused(403, "GET", "branches/main/search?q=x")
    guarded.writer.refused(403, "POST", "branches", {"name": "other"})
    guarded.writer.refused(403, "GET", "branch-locks/status/main")
    assert [one["name"] for one in guarded.writer.get("branches")["branches"]] == ["feature/a"]
    guarded.admin.post("branches/main/write", CHANGE)
    shadow = guarded.builder.built("main")
    guarded.writer.refused(403, "GET", f"shadow-index/{shadow}/status")
    assert guarded.writer.get("shadow-index/list")["total_count"] == 0
    subjects = {event["data"].get("branch_name") for event in guarded.writer.get("events")["events"]}
    assert subjects == {"feature/a"}
    guarded.builder.ok("DELETE", f"shadow-index/{shadow}")


def test_force_takes_a_scope_of_its_own_and_its_event_names_the_token(guarded: Guarded) -> None:
    shadow = guarded.builder.built("main")
    guarded.builder.refused(403, "POST", f"shadow-index/{shadow}/switch", {"force_switch": True})
    guarded.builder.refused(403, "POST", "branch-locks/force-unlock/main", {"reason": "because"})
    assert guarded.admin.post(f"shadow-index/{shadow}/switch", {"force_switch": True})["success"] is True
    committed = [e for e in guarded.admin.get("events")["events"] if e["type"].endswith("switch.committed")]
    assert committed[-1]["data"]["by"] == "admin"
    guarded.builder.post("branch-locks/acquire", {"branch_name": "main", "lock_type": "BACKUP"})
    assert guarded.admin.post("branch-locks/force-unlock/main", {"reason": "because"})["locks_released"] == 1
    forced = [e for e in guarded.admin.get("events")["events"] if e["type"].endswith("lock.forced")]
    assert (forced[-1]["data"]["by"], forced[-1]["data"]["reason"]) == ("admin", "because")


def test_a_lock_belongs_to_its_owner(guarded: Guarded) -> None:
    asked = {"branch_name": "feature/a", "lock_type": "MIGRATION", "owner": "job 7", "heartbeat_s": 60}
    lock = guarded.builder.post("branch-locks/acquire", asked)
    assert lock["lock"]["locked_by"] == "builder/job 7"
    place = f"branch-locks/locks/{lock['lock_id']}"
    shown = guarded.reader.get(place)
    assert (shown["id"], "token" in shown) == (lock["lock_id"], False)
    assert guarded.reader.get(f"{place}/health")["heartbeat_health"] == "healthy"
    summary = guarded.reader.get("branch-locks/health-summary")
    assert summary["health_summary"] == {"healthy": 1, "warning": 0, "critical": 0}
    blocked = guarded.writer.call(
        "POST", f"branches/{segment('feature/a')}/write", {**CHANGE, "owner": "builder/job 7"}
    )
    assert (blocked.status, blocked.body["holder"]) == (423, "builder/job 7")
    guarded.writer.refused(403, "DELETE", place)
    guarded.builder.refused(409, "POST", f"{place}/heartbeat", {"token": lock["token"] + 1})
    assert guarded.builder.post(f"{place}/heartbeat", {"service_name": "x", "token": lock["token"]})["success"]
    longer = guarded.builder.post(f"{place}/extend-ttl", {"extension_hours": 1, "reason": "slow"})
    assert longer["new_expires_at"] > lock["expires_at"]
    mine = {**CHANGE, "owner": "job 7", "tokens": [lock["token"]]}
    guarded.builder.post(f"branches/{segment('feature/a')}/write", mine)
    guarded.builder.ok("DELETE", place)
    guarded.builder.refused(404, "GET", place)
    guarded.builder.refused(403, "POST", "branch-locks/acquire", {"branch_name": "main", "lock_type": "MANUAL"})


def test_a_public_address_needs_tokens(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no token"):
        Options(host="0.0.0.0").check(Access())
    _, token = new_token("a", [Scope.READ])
    Options(host="0.0.0.0").check(Access([token]))
    Options(host="127.0.0.1").check(Access())


def test_token_files_are_checked(tmp_path: Path) -> None:
    secret, token = new_token("a", [Scope.READ])
    entry = f'[[token]]\nname = "a"\nsha256 = "{token.sha256}"\nscopes = ["read"]\n'
    file = tmp_path / "tokens"
    file.write_text(entry)
    file.chmod(0o600)
    caller = Access(load_tokens(file)).caller(f"Bearer {secret}", now())
    assert caller is not None
    assert (caller.name, caller.may(Scope.READ, "any"), caller.may(Scope.WRITE)) == ("a", True, False)
    assert load_tokens(None, entry) == load_tokens(file)
    for text in (
        entry + entry,
        entry + "secret = 1",
        entry.replace("read", "rule"),
        "token = 1",
        entry.replace("a", "g"),
    ):
        with pytest.raises(InvalidConfig):
            load_tokens(None, text)
    expired = load_tokens(None, entry + "expires = 2020-01-01T00:00:00Z\n")
    with pytest.raises(Exception, match="not known"):
        Access(expired).caller(f"Bearer {secret}", now())
    with pytest.raises(InvalidConfig, match="time zone"):
        load_tokens(None, entry + "expires = 2020-01-01T00:00:00\n")
    file.chmod(0o666)
    with pytest.raises(InvalidConfig, match="chmod"):
        load_tokens(file)


def test_the_token_command_makes_an_entry_for_a_token_file(capsys: pytest.CaptureFixture[str]) -> None:
    made = Cli(capsys).json("token", "ci", "--scope", "read", "--scope", "write", "--branch", 'fea"ture/*')
    (token,) = load_tokens(None, made["entry"])
    assert (token.name, token.branches) == ("ci", ('fea"ture/*',))
    assert token.scopes == frozenset({Scope.READ, Scope.WRITE})
    caller = Access([token]).caller(f"Bearer {made['token']}", now())
    assert caller is not None
    Cli(capsys).error("token", "ci", "--scope", "rule", status=2)


def test_only_the_user_of_the_server_can_read_the_host_file(guarded: Guarded) -> None:
    state = os.stat(guarded.server.data / "HOST")
    assert state.st_mode & 0o777 == 0o600
    found = json.loads((guarded.server.data / "HOST").read_text())
    assert found["url"] == guarded.server.url
    assert guarded.server.client(found["token"]).get("branches")
