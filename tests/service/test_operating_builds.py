"""Pause, resume, throttle, priority and retry: by commands, beside a server and without one, and over HTTP."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from shadowswitch import Engine, Put, ShadowIndex
from shadowswitch.service.cli.progress import build_details
from shadowswitch.service.daemon.index_reconciler import IndexReconciler
from shadowswitch.service.daemon.settings import IndexSettings
from tests.support.cli_helpers import Cli, imported, spawn
from tests.support.engine_helpers import TYPES, fill, wait_until
from tests.support.http_helpers import Client, serving

STAND = "build.shard_opened=sleep:600"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return imported(tmp_path, capsys)


def start(client: Client, index_type: str, **more: Any) -> dict[str, Any]:
    body = {"branch_name": "main", "index_type": index_type, "resource_types": ["file"], **more}
    body["build_config"] = {"backend": "fts5", "parallel_workers": 1}
    started: dict[str, Any] = client.post("shadow-index/start", body)
    return started


def entries(client: Client, id: str) -> list[tuple[str, str, str]]:
    found = client.get("audit?after=0&limit=1000")["entries"]
    return [(one["type"], one["data"]["by"], one["data"]["reason"]) for one in found if one["subject"] == id]


def test_beside_a_server_commands_and_routes_operate_builds(cli: Cli, data: Path) -> None:
    with serving(data, SHADOWSWITCH_POINTS=STAND) as server:
        client = server.client()
        places = 0
        ids: list[str] = []
        while True:  # as many as there are places, and one more
            started = start(client, f"KIND_{places}")
            ids.append(started["shadow_index_id"])
            if "queued, number 1" in started["message"]:
                break
            assert "has begun" in started["message"]
            places += 1
        waiting = ids[-1]
        assert (started["start_lsn"], client.get(f"shadow-index/{waiting}/status")["phase"]) == (0, "queued")
        ids.append(start(client, "URGENT", priority=3)["shadow_index_id"])
        assert client.get(f"shadow-index/{waiting}/status")["queue_position"] == 2
        assert "is PREPARING, queued, number 1" in cli("priority", waiting[:8], 7, "--data", data, "--by", "alice")
        found = client.post(f"shadow-index/{ids[0]}/pause", {"reason": "noon"}, headers={"X-Audit-By": "bob"})
        assert (found["phase"], found["estimated_completion_seconds"]) == ("paused", None)
        assert "(noon); POST /shadow-index/{id}/resume lets it go on" in found["stands_still"]
        wait_until(lambda: client.get(f"shadow-index/{waiting}/status")["state"] == "BUILDING", what="its place")
        (kind, by, why) = entries(client, ids[0])[-1]
        assert (kind, "bob" in by, why) == ("build.paused", True, "noon")
        shown = cli.json("status", ids[0], "--data", data)
        assert "bob" in shown["paused_by"]
        assert "shadowswitch resume" in shown["stands_still"]
        assert cli.json("throttle", waiting, 0.25, "--data", data)["share"] == 0.25
        assert client.post(f"shadow-index/{waiting}/throttle", {"share": 1})["share"] == 1
        assert cli.json("resume", ids[0], "--data", data, "--reason", "after noon")["phase"] == "queued"
        assert entries(client, ids[0])[-1][::2] == ("build.resumed", "after noon")
        client.refused(400, "POST", f"shadow-index/{waiting}/throttle", {"share": 0})
        client.refused(400, "POST", f"shadow-index/{waiting}/priority", {"priority": 10**9})
        client.refused(404, "POST", "shadow-index/nothing/pause")
        for id in ids:
            client.ok("DELETE", f"shadow-index/{id}")
        assert client.refused(409, "POST", f"shadow-index/{waiting}/pause")["hint"]


def test_a_throttled_build_says_its_share_from_when_on_and_the_way_back(cli: Cli, data: Path) -> None:
    with serving(data, SHADOWSWITCH_POINTS=STAND) as server:
        client = server.client()
        id = start(client, "SEARCH_INDEX")["shadow_index_id"]
        client.wait_for(id, "BUILDING")
        text = cli("throttle", id[:8], 0.25, "--data", data)
        assert f"{id} is BUILDING, " in text
        assert "; it copies and catches up 25 % of the time, from its next slice on and over restarts" in text
        assert f"; status shows the share; shadowswitch throttle {id} 1 lets it work all the time\n" in text
        assert ", 25 % of the time" in cli("status", "--data", data)
        assert "BUILDING, 25 % of the time" in cli("locks", "main", "--data", data)
        assert "  25 % of the time" in build_details(convert(client.get(f"shadow-index/{id}/status"), ShadowIndex))
        assert "; it works all the time, from its next slice on\n" in cli("throttle", id, 1, "--data", data)
        assert "of the time" not in cli("status", "--data", data) + cli("locks", "main", "--data", data)
        cli("pause", id, "--data", data)
        text = cli("throttle", id, 0.125, "--data", data)
        assert "12.5 % of the time, once it works and over restarts" in text
        client.ok("DELETE", f"shadow-index/{id}")
        assert "of the time" not in cli("status", "--data", data)  # of a build that has ended


def test_a_switch_is_scheduled_and_taken_back_beside_a_server(cli: Cli, data: Path) -> None:
    with serving(data) as server:
        client = server.client()
        id = start(client, "SEARCH_INDEX")["shadow_index_id"]
        client.wait_for(id, "BUILT")
        text = cli("schedule", id[:8], "--quiet-for", 600, "--within", 3600, "--data", data, "--by", "alice")
        assert "its switch comes after 600 s of quiet, at the latest after 3600 s" in text
        plan = client.get(f"shadow-index/{id}/status")["scheduled_switch"]
        assert (plan["quiet_for_s"], plan["within_s"], "alice" in plan["by"]) == (600, 3600, True)
        assert cli.json("status", id, "--data", data)["scheduled_switch"]["within_s"] == 3600
        assert cli.json("unschedule", id, "--data", data)["scheduled_switch"] is None
        client.refused(409, "DELETE", f"shadow-index/{id}/schedule")
        client.refused(422, "POST", f"shadow-index/{id}/schedule", {"quiet_for_s": 10, "within_s": 5})
        soon = {"quiet_for_s": 0, "reason": "now"}
        assert client.post(f"shadow-index/{id}/schedule", soon)["scheduled_switch"]["reason"] == "now"
        client.wait_for(id, "ACTIVE")


def test_the_settings_switch_at_a_quiet_moment(engine: Engine, eventually: Callable[..., None]) -> None:
    fill(engine, 20)
    described = IndexSettings(resource_types=tuple(TYPES), switch="quiet", quiet_for_s=1.0, within_s=3600.0)
    reconciler = IndexReconciler(engine, look_s=0.05)
    reconciler.want([described])
    reconciler.start()
    try:
        eventually(lambda: engine.indexes(), 60)
    finally:
        reconciler.stop()
    (entry,) = [one for one in engine.audit() if one.type == "switch.scheduled"]
    assert "settings" in entry.data["by"]
    (shadow,) = engine.shadows()
    assert (shadow.state, shadow.scheduled_switch) == ("ACTIVE", None)


def test_without_a_server_a_pause_lasts_until_the_build_is_resumed(cli: Cli, data: Path) -> None:
    process = spawn("build", "main", "--data", data, points="build.begun=kill")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    id = shadow["shadow_index_id"]
    cli("pause", id, "--data", data, "--by", "alice", "--reason", "the disk is replaced")
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    assert shadow["stands_still"] == "paused by alice (the disk is replaced); shadowswitch resume lets it go on"
    error = cli.error("build", "main", "--data", data, status=1)
    assert "paused by alice (the disk is replaced); shadowswitch resume lets it go on" in error
    assert cli.json("resume", id, "--data", data)["paused_by"] is None
    assert cli.json("build", "main", "--data", data)["joined"] is True


def test_a_failed_build_is_retried_to_its_end(cli: Cli, data: Path) -> None:
    process = spawn("build", "main", "--data", data, points="copy.loaded=raise:EIO@1")
    process.communicate(timeout=60)
    assert process.returncode == 1
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    assert shadow["state"] == "FAILED"
    assert cli.json("retry", shadow["shadow_index_id"], "--data", data)["state"] == "BUILT"
    assert "BUILT, not being built" in cli.error("pause", shadow["shadow_index_id"], "--data", data, status=1)


@pytest.mark.parametrize(("command", "value"), [("throttle", "0"), ("throttle", "2"), ("priority", "high")])
def test_a_wrong_value_is_a_wrong_call(cli: Cli, data: Path, command: str, value: str) -> None:
    cli.error(command, "5f0c", value, "--data", data, status=2)


def test_the_status_of_builds_beside_a_server_is_that_of_the_server(cli: Cli, data: Path) -> None:
    (data / "shadowswitch.toml").write_text("[engine]\nbuilds_max = 1\n")
    with serving(data, SHADOWSWITCH_POINTS="copy.slice=sleep:0.5") as server:
        body = {"branch_name": "main", "resource_types": ["file"], "build_config": {"parallel_workers": 1}}
        client = server.client()
        first, second = (
            client.post("shadow-index/start", body | {"index_type": kind})["shadow_index_id"]
            for kind in ("SEARCH_INDEX", "OTHER_INDEX")
        )
        found = cli.json("status", second, "--data", data)
        assert (found["queue_position"], "queued" in found["stands_still"]) == (1, True)
        rows = {one["shadow_index_id"]: one for one in cli.json("status", "--data", data)["shadows"]}
        assert rows[second]["queue_position"] == 1
        (row,) = (one for one in cli.json("locks", "main", "--data", data)["builds"] if one["shadow_index_id"] == first)
        assert row["stands_still"] is None
        wait_until(lambda: cli.json("status", first, "--data", data)["state"] == "BUILT", what="the build")


def test_retune_gives_a_live_index_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cli = tmp_path / "data", Cli(capsys)
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("file", "a", {"title": "amber", "body": "birch"})])
        assert engine.rebuild("main", "SEARCH_INDEX", ["file"], {"columns": ["title", "body"]}).success
    option = ("--option", 'columns={"title": 9, "body": 1}')
    found = cli.json("retune", "main", "SEARCH_INDEX", *option, "--data", data)
    assert found["build_config"]["columns"] == {"title": 9, "body": 1}
    assert "need other files" in cli.error("retune", "main", "--option", "tokenizer=porter", "--data", data, status=2)
