"""Idempotency keys: kept only for callers that were let in, and no caller pushes out the answers of another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.idempotency import ANSWERS_MAX, SIZE_MAX_BYTES, Idempotency
from shadowswitch.service.http.limits.body import BODY
from shadowswitch.service.http.middleware import CALLER, REQUEST_ID
from tests.support.http_helpers import Answer, serving, token_entry

CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


class Asked:
    """The layer of the keys over routes that answer with a text of a given length, or wait."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.done = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.keys = Idempotency(self._routes)

    async def _routes(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        self.done += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * self.size})

    async def post(self, caller: str, key: str, path: str = "/x", body: bytes = b"{}") -> bool:
        """Whether the answer was replayed."""
        headers: list[tuple[bytes, bytes]] = []

        async def send(message: Any) -> None:
            headers.extend(message.get("headers", []))

        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"", REQUEST_ID: "1", BODY: body,
            "headers": [(b"idempotency-key", key.encode())], CALLER: Caller(caller, frozenset()),
        }  # fmt: skip
        await self.keys(scope, None, send)
        return (b"idempotency-replayed", b"true") in headers


def test_a_caller_that_floods_the_store_pushes_out_its_own_answers_only() -> None:
    async def flood() -> None:
        asked = Asked()
        await asked.post("quiet", "k")
        for n in range(ANSWERS_MAX + 100):
            await asked.post("loud", f"{n}")
        assert await asked.post("quiet", "k")
        assert not await asked.post("loud", "0")
        assert await asked.post("loud", f"{ANSWERS_MAX + 99}")

    asyncio.run(flood())


def test_the_store_is_bounded_by_what_an_answer_takes_with_its_path() -> None:
    async def flood() -> None:
        asked = Asked(size=SIZE_MAX_BYTES // 8)
        await asked.post("quiet", "k")
        for n in range(20):
            await asked.post("loud", f"{n}")
        assert await asked.post("quiet", "k")
        assert [await asked.post("loud", f"{n}") for n in (13, 19)] == [False, True]
        paths = Asked()
        for n in range(2000):
            await paths.post("loud", f"{n}", path="/" + "p" * 60_000)
        assert not await paths.post("loud", "0", path="/" + "p" * 60_000)

    asyncio.run(flood())


def test_requests_under_way_push_out_no_answer_and_are_done_once() -> None:
    async def flood() -> None:
        asked = Asked()
        await asked.post("quiet", "k")
        asked.go_on.clear()
        waiting = [asyncio.create_task(asked.post("loud", f"{n}")) for n in range(ANSWERS_MAX + 100)]
        repeated = asyncio.create_task(asked.post("loud", "0"))
        await repeated
        assert asked.done == 1
        assert await asked.post("quiet", "k")
        asked.go_on.set()
        assert not any(await asyncio.gather(*waiting))

    asyncio.run(flood())


def test_an_answer_to_a_caller_that_was_not_let_in_or_to_an_unknown_path_is_not_kept(tmp_path: Path) -> None:
    writer, entry = token_entry("writer", [Scope.READ, Scope.WRITE])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=entry) as server:
        key = {"Idempotency-Key": "k"}
        client = server.client(writer)
        client.post("branches", {"name": "main"})
        for caller, path, status in (
            (server.client(), "branches/main/write", 401),
            (client, "shadow-index/start", 403),
            (client, "/no/such/path", 404),
            (client, "branch-locks/status/main", 405),
        ):
            for _ in range(2):
                answer = caller.call("POST", path, CHANGE, headers=key)
                assert (answer.status, "idempotency-replayed" in answer.headers) == (status, False)
        first = client.call("POST", "branches/main/write", CHANGE, headers=key)
        again = client.call("POST", "branches/main/write", CHANGE, headers=key)
        assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")


LOCK = {"branch_name": "main", "lock_type": "MIGRATION", "lock_scope": "BRANCH", "owner": "a", "reason": "r"}
NO_WRITE = {"branch_name": "main", "resource_type": "object_type", "owner": "b"}


def is_replayed(answer: Answer) -> bool:
    return "idempotency-replayed" in answer.headers


def test_a_refusal_is_not_replayed_when_its_cause_has_gone(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()

        def is_done(path: str, body: Any, key: str) -> None:
            done, again = (client.call("POST", path, body, headers={"Idempotency-Key": key}) for _ in range(2))
            assert (done.status, is_replayed(done)) == (200, False)
            assert (again.body, is_replayed(again)) == (done.body, True)

        def is_refused(status: int, path: str, body: Any, key: str) -> None:
            for _ in range(2):
                answer = client.call("POST", path, body, headers={"Idempotency-Key": key})
                assert (answer.status, is_replayed(answer)) == (status, False)

        is_refused(404, "branches/main/write", CHANGE, "unknown")
        client.post("branches", {"name": "main"})
        is_done("branches/main/write", CHANGE, "unknown")
        lock_id = client.post("branch-locks/acquire", LOCK)["lock_id"]
        is_refused(423, "branches/main/write", CHANGE, "blocked")
        is_refused(409, "branch-locks/acquire", {**LOCK, "owner": "b"}, "locked")
        assert not client.post("branch-locks/check-write", NO_WRITE, headers={"Idempotency-Key": "checked"})["allowed"]
        client.ok("DELETE", f"branch-locks/locks/{lock_id}")
        assert client.post("branch-locks/check-write", NO_WRITE, headers={"Idempotency-Key": "checked"})["allowed"]
        is_done("branches/main/write", CHANGE, "blocked")
        is_done("branch-locks/acquire", {**LOCK, "owner": "b"}, "locked")
        key = {"Idempotency-Key": "named"}
        wrong = [client.call("POST", "branches", {"name": " main"}, headers=key) for _ in range(2)]
        assert [(one.status, is_replayed(one)) for one in wrong] == [(422, False), (422, True)]


def test_a_failed_switch_is_not_replayed_when_its_cause_has_gone(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        client.post("branches/main/write", CHANGE)
        kept = {"resource_type": "object_type", "id": "kept", "fields": {"text": "no match"}}
        client.post("branches/main/write", {"changes": [kept]})  # an empty index is refused for another reason
        assert client.post(f"shadow-index/{client.built(tokenizer='porter')}/switch", {})["success"]
        path = f"shadow-index/{client.built(tokenizer='ascii')}/switch"
        request = {"validation_checks": ["QUERY_COMPARISON"], "queries": ["hellos"]}  # porter finds "hello" by it
        for _ in range(2):
            failed = client.call("POST", path, request, headers={"Idempotency-Key": "k"})
            assert (failed.body["success"], is_replayed(failed)) == (False, False)
        delete = {"resource_type": "object_type", "id": "1", "kind": "delete"}
        client.post("branches/main/write", {"changes": [delete]})
        done, again = (client.call("POST", path, request, headers={"Idempotency-Key": "k"}) for _ in range(2))
        assert (done.body["success"], is_replayed(done)) == (True, False)
        assert (again.body, is_replayed(again)) == (done.body, True)
