"""Searches over HTTP: their time limit, their places, and the bounds of what is read in one piece."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from shadowswitch.service.http.access import Scope
from shadowswitch.service.http.host import Options
from shadowswitch.service.http.limits.shares import Overloaded
from shadowswitch.service.http.limits.turns import Turns
from shadowswitch.service.http.routes.branches import CHANGES_BYTES_MAX
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import Client, Server, serving, token_entry
from tests.support.slow_backend import SPEC

READ = [Scope.READ]
MOST = Options().searches_max
THREADS = Options().threads


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with one index, which searches for `slow` until the time limit; and the secrets of its tokens."""
    secrets, entries = {}, []
    for name, scopes in (("admin", list(Scope)), ("hostile", READ), ("reader", READ)):
        secrets[name], entry = token_entry(name, scopes)
        entries.append(entry)
    data = tmp_path_factory.mktemp("searches") / "data"
    with serving(data, "--backend", SPEC, SHADOWSWITCH_TOKENS="\n".join(entries)) as server:
        client = server.client(secrets["admin"])
        client.post("branches", {"name": "main"})
        record = {"resource_type": "object_type", "id": "user-1", "fields": {"text": "hello"}}
        client.post("branches/main/write", {"changes": [record]})
        shadow = client.built(backend=SPEC)
        assert client.post(f"shadow-index/{shadow}/switch", {})["success"]
        yield server, secrets


def _in_flight(client: Client) -> float:
    found = re.search(r"^shadowswitch_http_in_flight (\S+)$", str(client.call("GET", "/metrics").body), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_searches_that_take_long_leave_threads_and_places_for_others(running: tuple[Server, dict[str, str]]) -> None:
    """Without places of their own these searches take all threads, and the next request waits for the end of one."""
    server, secrets = running
    answers: list[tuple[int, str]] = []

    def search() -> None:
        answer = server.client(secrets["hostile"]).call("GET", "branches/main/search?q=slow&timeout_s=8")
        assert answer.headers["retry-after"]
        answers.append((answer.status, answer.body["type"].rsplit(":", 1)[1]))

    threads = [threading.Thread(target=search, daemon=True) for _ in range(THREADS + MOST)]
    for thread in threads:
        thread.start()
    admin, reader = server.client(secrets["admin"]), server.client(secrets["reader"])
    wait_until(lambda: _in_flight(admin) > THREADS, what="more searches than threads")
    assert admin.get("branches/main")["head_lsn"]
    assert [hit["id"] for hit in reader.get("branches/main/search?q=user")["hits"]] == ["user-1"]
    assert "timeout" not in {kind for _, kind in answers}, "another request waited for the end of a search"
    for thread in threads:
        thread.join(60)
    assert set(answers) == {(503, "overloaded"), (503, "timeout")}
    assert len(answers) == len(threads)
    assert reader.get("branches/main/search?q=user")["hits"]


def test_the_time_limit_of_a_search_is_that_of_the_request_at_most_that_of_the_server(
    running: tuple[Server, dict[str, str]],
) -> None:
    server, secrets = running
    client = server.client(secrets["reader"])
    problem = client.refused(503, "GET", "branches/main/search?q=slow&timeout_s=0.05")
    assert problem["recoverable"] is True
    assert ("0.05 s" in problem["detail"], "timeout_s" in problem["hint"]) == (True, True)
    assert "longer than 10 s" in client.refused(503, "GET", "branches/main/search?q=slow&timeout_s=100")["detail"]
    for wrong in ("0", "-1", "nan", "inf", "soon", "1e9"):
        assert client.call("GET", f"branches/main/search?q=x&timeout_s={wrong}").status == 400


def test_a_search_over_http_has_filters_and_pages(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        for first in (0, 600):
            changes = [
                {"resource_type": ("user", "group")[n % 2], "id": f"{n:04}", "fields": {"text": "hello", "size": n}}
                for n in range(first, first + 600)
            ]
            client.post("branches/main/write", {"changes": changes})
        body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["user", "group"]}
        shadow = client.post("shadow-index/start", body)["shadow_index_id"]
        client.wait_for(shadow, "BUILT")
        assert client.post(f"shadow-index/{shadow}/switch", {})["success"]

        def found(**asked: Any) -> list[str]:
            page = client.get("branches/main/search?" + urlencode({"q": "hello", "limit": 1000, **asked}, doseq=True))
            return [f"{hit['resource_type']} {hit['id']}" for hit in page["hits"]]

        users = [f"user {n:04}" for n in range(0, 1200, 2)]
        groups = [f"group {n:04}" for n in range(1, 1200, 2)]
        assert [*found(), *found(offset=1000)] == [*groups, *users]
        assert found(resource_type="user") == users
        assert found(resource_type=["user", "group"], offset=598, limit=4) == [*groups[-2:], *users[:2]]
        typo = client.refused(422, "GET", "branches/main/search?q=hello&resource_type=user&resource_type=grup")
        assert typo["detail"] == "the index was built without the resource type 'grup' (did you mean 'group'?)"
        assert typo["hint"].startswith("it has group, user;")
        where = json.dumps({"size": {"gte": 1190}})
        assert found(resource_type="user", where=where) == users[-5:]
        assert found(where=where, offset=4, limit=2) == [groups[-1], users[-5]]
        shown = client.get("branches/main/search?q=hel*&limit=1&fields=size&fields=absent&highlight=true")["hits"][0]
        assert shown["fields"] == {"size": 1}
        assert shown["highlights"] == {"text": {"text": "hello", "marks": [[0, 5]]}}
        every = client.get("branches/main/search?q=hello&limit=1&fields=*")["hits"][0]
        assert (every["fields"], "highlights" in every) == ({"text": "hello", "size": 1}, False)
        assert "fields" not in client.get("branches/main/search?q=hello&limit=1")["hits"][0]
        assert found(q="hello -absent", limit=1) == found(q='"hello" OR absent', limit=1) == groups[:1]
        page = client.get("branches/main/search?q=hello&limit=500&cursor=new&fields=size")
        ids = [hit["id"] for hit in page["hits"]]
        while page["cursor"]:
            page = client.get(f"branches/main/search?q=&cursor={page['cursor']}")
            ids += [hit["id"] for hit in page["hits"]]
            assert page["hits"][0]["fields"] == {"size": int(page["hits"][0]["id"])}
        assert [f"group {id}" for id in ids[:600]] + [f"user {id}" for id in ids[600:]] == [*groups, *users[:400]]
        gone = client.refused(422, "GET", "branches/main/search?q=hello&cursor=x.0")
        assert "search again from the first page" in gone["hint"]
        merged = client.get("search?q=hello&limit=3&index=main&index=main:SEARCH_INDEX&highlight=true&fields=*")["hits"]
        assert [(one["branch_name"], one["hit"]["id"]) for one in merged] == [("main", f"{n:04}") for n in (1, 3, 5)]
        assert all(one["hit"]["highlights"] and one["hit"]["fields"]["text"] == "hello" for one in merged)
        client.refused(404, "GET", "search?q=hello&index=main&index=main:GRAPH_INDEX")
        client.refused(400, "GET", "search?q=hello")
        for wrong in ("offset=-1", "offset=100001", "offset=x"):
            client.refused(400, "GET", f"branches/main/search?q=hello&{wrong}")
        for wrong in ("where=x", "where=[]", "where=null", "where=", "resource_type=", "resource_type=a%00"):
            client.refused(422, "GET", f"branches/main/search?q=hello&{wrong}")
        problem = client.refused(422, "GET", "branches/main/search?q=x&where=" + quote('{"size": {"near": 1}}'))
        assert "exists" in problem["hint"]


def test_a_page_of_large_changes_ends_early_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        text = "0123456789" * 90_000
        for number in range(12):
            change = {"resource_type": "file", "id": str(number), "fields": {"text": text}}
            client.post("branches/main/write", {"changes": [change]})
        found, after, pages = [], 0, 0
        while True:
            page = client.get(f"branches/main/changes?after={after}&limit=10000")
            assert sum(len(one["fields"]["text"]) for one in page["changes"]) < CHANGES_BYTES_MAX + len(text)
            found += [one["id"] for one in page["changes"]]
            after, pages = page["next_after"], pages + 1
            if after >= page["head_lsn"]:
                break
        assert (found, pages) == ([str(number) for number in range(12)], 2)


# -- the places, on an event loop ------------------------------------------------------------------------------------


async def _hold(turns: Turns, caller: str, until: asyncio.Event, log: list[str], wait_s: float = 60) -> None:
    async with turns.place(caller, wait_s):
        log.append(caller)
        await until.wait()


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_place_goes_to_the_first_that_may_have_it() -> None:
    async def run() -> None:
        turns, log = Turns("searches", 3, 2, 100), list[str]()
        ends = [asyncio.Event() for _ in range(6)]
        tasks = [asyncio.create_task(_hold(turns, one, end, log)) for one, end in zip("aaaabb", ends, strict=True)]
        await _settle()
        assert log == ["a", "a", "b"]  # the third of a waits for a place of its own, and others pass it
        ends[4].set()
        await _settle()
        assert log == ["a", "a", "b", "b"]
        ends[0].set()
        await _settle()
        assert log == ["a", "a", "b", "b", "a"]
        for end in ends:
            end.set()
        await asyncio.gather(*tasks)
        assert (sorted(log), turns._taken.total(), turns._waiting) == (list("aaaabb"), 0, {})

    asyncio.run(run())


def test_a_wait_for_a_place_has_a_deadline_and_the_number_of_waiters_a_bound() -> None:
    async def run() -> None:
        turns, log, end = Turns("searches", 1, 1, 4), list[str](), asyncio.Event()
        holder = asyncio.create_task(_hold(turns, "a", end, log))
        await _settle()
        with pytest.raises(Overloaded, match=r"in 0\.01 s"):
            await _hold(turns, "b", end, log, 0.01)
        waiting = [asyncio.create_task(_hold(turns, caller, end, log)) for caller in ("b", "b")]
        await _settle()
        with pytest.raises(Overloaded, match="wait already"):  # its share of the waiters
            await _hold(turns, "b", end, log)
        waiting += [asyncio.create_task(_hold(turns, caller, end, log)) for caller in ("c", "")]
        await _settle()
        with pytest.raises(Overloaded, match="wait already"):
            await _hold(turns, "d", end, log)
        waiting[0].cancel()
        end.set()
        await asyncio.gather(holder, *waiting, return_exceptions=True)
        assert (log, turns._taken.total(), turns._waiting) == (["a", "b", "c", ""], 0, {})

    asyncio.run(run())


def test_a_place_that_comes_free_for_a_request_that_has_just_ended_goes_to_the_next() -> None:
    async def run() -> None:
        turns, log, end = Turns("searches", 1, 1, 4), list[str](), asyncio.Event()
        first = asyncio.Event()
        holder = asyncio.create_task(_hold(turns, "a", first, log))
        await _settle()
        ended, after = (asyncio.create_task(_hold(turns, caller, end, log)) for caller in "bc")
        await _settle()
        first.set()
        await asyncio.sleep(0)  # the holder gives its place to b, which is ended before it runs
        ended.cancel()
        end.set()
        await asyncio.gather(holder, ended, after, return_exceptions=True)
        assert (log[0], log[-1], turns._taken.total()) == ("a", "c", 0)

    asyncio.run(run())


def test_the_fields_of_one_answer_are_bounded(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        for number in range(9):
            fields = {"text": "hello", "rest": "x" * 1_000_000}
            change = {"resource_type": "user", "id": f"{number}", "fields": fields}
            client.post("branches/main/write", {"changes": [change]})
        body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["user"]}
        shadow = client.post("shadow-index/start", body | {"build_config": {"columns": ["text"]}})["shadow_index_id"]
        client.wait_for(shadow, "BUILT")
        assert client.post(f"shadow-index/{shadow}/switch", {})["success"]
        problem = client.refused(422, "GET", "branches/main/search?q=hello&fields=*")
        assert problem["detail"] == "the fields of these hits have more than 8 MiB"
        assert len(client.get("branches/main/search?q=hello&fields=*&limit=5")["hits"]) == 5
        assert len(client.get("branches/main/search?q=hello&fields=text&highlight=true")["hits"]) == 9
