"""Programs that use only HTTP: the external builder of the documentation, and a client made from the schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig
from tests.support.engine_helpers import ROOT, crew, fill, outside_environment, put, wait_until
from tests.support.http_helpers import Answer, Client, segment, serving

BUILDER = ROOT / "docs" / "examples" / "external_builder.py"


def record(id: str, text: str) -> dict[str, Any]:
    return {"resource_type": "object_type", "id": id, "fields": {"text": text}}


def test_the_external_builder_of_the_documentation_builds_and_switches_while_writers_write(tmp_path: Path) -> None:
    branch = "feature/external"
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": branch})
        place = f"branches/{segment(branch)}"
        client.post(f"{place}/write", {"changes": [record(str(n), f"hello word{n}") for n in range(2500)]})
        busy = threading.Event()

        def write() -> None:
            if not busy.is_set():
                writer = server.client()
                writer.post(f"{place}/write", {"changes": [record("busy", "meanwhile")]})
                writer.post(f"{place}/write", {"changes": [{"resource_type": "other", "id": "x", "fields": {}}]})
                writer.close()

        with crew() as hands:
            hands.start(write)
            process = subprocess.Popen(
                [sys.executable, "-I", str(BUILDER), server.url, branch, "SEARCH_INDEX", "object_type"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=outside_environment(),
            )  # fmt: skip
            shadows = f"shadow-index/list?branch_name={segment(branch)}"
            wait_until(lambda: client.get(shadows)["total_count"], 60, "the build")
            busy.set()
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{out}\n{err}"
        assert "switched to generation" in out
        (live,) = client.get("indexes")["indexes"]
        assert (live["record_count"], live["lag_changes"]) == (2501, 0)
        words = json.loads((Path(live["path"]) / "words.json").read_text())
        assert (len(words["hello"]), words["word7"]) == (2500, [["object_type", "7"]])
        assert words["meanwhile"] == [["object_type", "busy"]]


def test_pages_have_every_record_and_a_cursor_is_valid_for_its_own_type_and_branch_only(engine: Engine) -> None:
    fill(engine, 1200)
    engine.write("main", [put("x", resource_type="link_type")])
    engine.create_branch("other")
    engine.write("other", [put("secret")])
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = engine.scan_page("main", "object_type", cursor, limit=500)
        found += [one.id for one in page.records]
        cursor, pages = page.cursor, pages + 1
    assert sorted(found) == sorted(map(str, range(1200)))
    assert pages == 3
    assert engine.scan_page("main", "no_such_type").records == []
    mine = engine.scan_page("main", "object_type", limit=1).cursor
    assert mine is not None
    for wrong in ("", "zz", "00", "ff" * 30, "00" * 200, mine[:-2] + "é"):
        with pytest.raises(InvalidConfig):
            engine.scan_page("main", "object_type", wrong)
    for branch, kind in (("other", "object_type"), ("main", "link_type")):
        with pytest.raises(InvalidConfig):
            engine.scan_page(branch, kind, mine)


class SchemaClient:
    """A client that has only the address of the OpenAPI document and its content."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        document = self._client.get("/schema")
        self._operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }

    def call(self, operation_id: str, body: Any = None, **parameters: Any) -> Answer:
        method, path, operation = self._operations[operation_id]
        assert body is None or "requestBody" in operation
        known = {one["name"]: one["in"] for one in operation.get("parameters", [])}
        assert parameters.keys() <= known.keys()
        path = re.sub(r"{(\w+)}", lambda name: segment(str(parameters[name[1]])), path)
        query = "&".join(f"{k}={segment(str(v))}" for k, v in parameters.items() if known[k] == "query")
        answer = self._client.call(method, f"{path}?{query}" if query else path, body)
        assert str(answer.status) in operation["responses"], f"{operation_id}: {answer}"
        return answer


def test_a_client_made_of_the_schema_builds_switches_rolls_back_and_locks(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        api = SchemaClient(server.url)
        branch = "feature/from schema"
        assert api.call("post_branches", {"name": branch}).status == 201
        changes = {"changes": [record(str(n), f"word{n}") for n in range(20)]}
        lsn = api.call("post_branches_write", changes, name=branch).body["lsn"]
        build = {"branch_name": branch, "index_type": "SEARCH_INDEX", "resource_types": ["object_type"]}

        def switched() -> dict[str, Any]:
            shadow = api.call("post_shadow_index_start", build).body["shadow_index_id"]
            state = lambda: api.call("get_shadow_index_status", shadow_id=shadow).body["switch_ready"]  # noqa: E731
            wait_until(state, 60, "BUILT")
            return dict(api.call("post_shadow_index_switch", {}, shadow_id=shadow).body)

        assert switched()["success"]
        assert switched()["success"]
        hits = api.call("get_branches_search", name=branch, q="word7", min_lsn=lsn).body["hits"]
        assert [hit["id"] for hit in hits] == ["7"]
        back = {"branch_name": branch, "index_type": "SEARCH_INDEX"}
        assert api.call("post_indexes_rollback", back).body["success"]
        asked = {"branch_name": branch, "lock_type": "BACKUP", "owner": "schema"}
        lock = api.call("post_branch_locks_acquire", asked).body
        assert api.call("post_branches_write", changes, name=branch).status == 423
        api.call("delete_branch_locks_locks_by_lock_id", lock_id=lock["lock_id"])
        events = api.call("get_events", after=0).body["events"]
        assert events[-1]["type"] == "com.shadowswitch.lock.released"
