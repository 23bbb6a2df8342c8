"""Ownership: only the owner ends a lock or an indexing, and the error of a lost lock says how the lock ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.engine_helpers import wait_until
from tests.support.external_helpers import incoming
from tests.support.http_helpers import Client, serving, token_entry

SCOPES = [Scope.READ, Scope.WRITE, Scope.BUILD, Scope.LOCK]
TYPES = ("object_type", "link_type")
NUMBERS = itertools.count()
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


class People:
    """Clients of one server, by the name of their token."""

    def __init__(self, clients: dict[str, Client]) -> None:
        self._clients = clients
        self.branch = ""

    def __getattr__(self, name: str) -> Client:
        return self._clients[name]

    @property
    def place(self) -> str:
        """The path of the indexing in place."""
        return f"branch-locks/indexing/{self.branch}"

    def state(self) -> str:
        """The state of the branch."""
        return str(self.root.get(f"branches/{self.branch}")["state"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    entries, secrets = [], {}
    for name, scopes in {"alice": SCOPES, "bob": SCOPES, "root": list(Scope)}.items():
        secrets[name], entry = token_entry(name, scopes)
        entries.append(entry)
    data: Path = tmp_path_factory.mktemp("owned") / "data"
    with serving(data, SHADOWSWITCH_TOKENS="\n".join(entries)) as running:
        yield People({name: running.client(secret) for name, secret in secrets.items()})


@pytest.fixture
def people(server: People) -> People:
    """The clients, with a new branch for the test."""
    server.branch = f"b{next(NUMBERS)}"
    server.root.post("branches", {"name": server.branch})
    for kind in TYPES:
        change = {"resource_type": kind, "id": "1", "fields": {"text": "hello"}}
        server.root.post(f"branches/{server.branch}/write", {"changes": [change]})
    return server


def test_only_its_owner_completes_an_indexing(people: People) -> None:
    people.alice.post(f"{people.place}/start", {"resource_types": ["object_type"]})
    for body in ({}, {"resource_types": ["object_type"]}):
        problem = people.bob.refused(403, "POST", f"{people.place}/complete", body)
        assert "alice/funnel-service" in problem["detail"]
    assert (people.state(), len(people.bob.get("branch-locks/locks"))) == ("ACTIVE", 1)
    assert people.alice.post(f"{people.place}/complete", {})["branch_state"] == "READY"


def test_an_event_completes_only_the_indexing_of_its_sender(people: People) -> None:
    people.alice.post(f"{people.place}/start", {})
    event = {**incoming("com.oms.indexing.completed", f"e-{people.branch}"), "source": "bob's"}
    event["data"] = {"branch_name": people.branch}
    people.bob.refused(403, "POST", "events", event, headers=STRUCTURED)
    assert people.state() == "ACTIVE"
    assert people.alice.post("events", event, headers=STRUCTURED)["outcome"] == "completed"
    assert people.state() == "READY"
    people.bob.post(f"{people.place}/start", {})
    again = people.alice.post("events", event, headers=STRUCTURED)
    assert (again["outcome"], again["duplicate"], people.state()) == ("completed", True, "ACTIVE")
    nowhere = {**event, "id": f"n-{people.branch}", "data": {"branch_name": "nowhere"}}
    assert people.alice.post("events", nowhere, headers=STRUCTURED)["outcome"] == "refused"


def test_each_of_several_owners_completes_its_own_indexing(people: People) -> None:
    people.alice.post(f"{people.place}/start?service_name=one", {"resource_types": ["object_type"]})
    people.bob.post(f"{people.place}/start", {"resource_types": ["link_type"]})
    done: Any = people.bob.post(f"{people.place}/complete", {})
    assert (done["completed_resource_types"], done["remaining_resource_types"]) == (["link_type"], ["object_type"])
    people.alice.post(f"{people.place}/start?service_name=two", {"resource_types": ["link_type"]})
    people.alice.refused(409, "POST", f"{people.place}/complete", {"resource_types": [*TYPES, "unheard_of"]})
    done = people.alice.post(f"{people.place}/complete", {"resource_types": list(TYPES)})
    assert (sorted(done["completed_resource_types"]), done["branch_state"]) == (sorted(TYPES), "READY")


def test_the_admin_scope_completes_the_indexing_of_another_owner(people: People) -> None:
    people.alice.post(f"{people.place}/start", {})
    assert people.root.post(f"{people.place}/complete", {})["completion_type"] == "complete"


def test_a_stale_token_completes_nothing(people: People) -> None:
    first = people.alice.post(f"{people.place}/start", {"resource_types": ["object_type"]})
    people.alice.ok("DELETE", f"branch-locks/locks/{first['lock_ids'][0]}")
    second = people.alice.post(f"{people.place}/start", {"resource_types": ["object_type"]})
    for client in (people.alice, people.root):
        problem = client.refused(409, "POST", f"{people.place}/complete", {"tokens": first["tokens"]})
        assert problem["type"].endswith("lock-lost")
    assert people.state() == "ACTIVE"
    done = people.alice.post(f"{people.place}/complete", {"tokens": second["tokens"]})
    assert done["branch_state"] == "READY"


@pytest.mark.parametrize("how", ["expired", "taken away by root"])
def test_the_token_of_a_lock_that_ended_is_409_with_the_way_it_ended(people: People, how: str) -> None:
    asked = {"branch_name": people.branch, "lock_type": "BACKUP", "heartbeat_s": 0.05 if how == "expired" else 1000}
    lock = people.alice.post("branch-locks/acquire", asked)
    place, token = f"branch-locks/locks/{lock['lock_id']}", {"token": lock["token"]}
    if how != "expired":
        people.root.post(f"branch-locks/force-unlock/{people.branch}", {"reason": "in the way"})
    wait_until(lambda: people.alice.call("GET", place).status == 404)
    for action, body in (("heartbeat", token), ("extend-ttl", {**token, "extension_hours": 1})):
        problem = people.alice.refused(409, "POST", f"{place}/{action}", body)
        assert problem["type"].endswith("lock-lost")
        assert f"{how}" in problem["detail"]
        assert "acquire it again" in problem["hint"]
        people.alice.refused(404, "POST", f"{place}/{action}", {**body, "token": None})
    people.bob.refused(404, "POST", "branch-locks/locks/999-0/heartbeat", token)


def test_no_event_contains_the_token_of_a_lock(people: People) -> None:
    asked = {"branch_name": people.branch, "lock_type": "BACKUP"}
    lock = people.alice.post("branch-locks/acquire", asked)
    people.alice.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
    seen = [e for e in people.bob.get("events")["events"] if e["subject"] == lock["lock_id"]]
    assert [event["type"].rpartition(".")[2] for event in seen] == ["granted", "released"]
    assert {name for event in seen for name in event["data"]} >= {"owner", "lock_id", "reason"}
    assert not any("token" in event["data"] for event in seen)
