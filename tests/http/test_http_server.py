"""The server process: commands go through it, it stops in time, and no signal loses an acknowledged write."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.cli.app import main
from tests.support.cli_helpers import Cli, spawn, texts
from tests.support.engine_helpers import KIND, outside_environment, wait_until
from tests.support.http_helpers import Answer, Client, Events, Server, serving

LOST = (OSError, http.client.HTTPException)


# -- commands ------------------------------------------------------------------------------------------------------


def test_commands_go_through_the_running_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    folder = texts(tmp_path / "texts")
    with serving(data) as server:
        assert cli.json("import", "main", folder, "--data", data)["files"] == 40
        assert cli.json("import", "main", folder, "--data", data)["unchanged"] == 40
        first = cli.json("build", "main", "--data", data, "--switch")
        assert (first["shadow"]["record_count"], first["switch"]["success"]) == (40, True)
        second = cli.json("build", "main", "--data", data, "--tokenizer", "porter")
        shadow = second["shadow"]["shadow_index_id"]
        assert "duplicate" not in cli.error("build", "main", "--data", data, status=1)
        assert cli.json("switch", shadow, "--data", data)["success"] is True
        assert cli.json("rollback", "main", "--data", data)["success"] is True
        third = cli.json("build", "main", "--data", data, "--tokenizer", "ascii")["shadow"]["shadow_index_id"]
        assert cli.json("cancel", third, "--data", data, "--reason", "not wanted")["state"] == "CANCELLED"
        assert "status" in cli.error("switch", "no-such-shadow", "--data", data, status=1)
        assert cli.json("status", "--data", data)["host"]["pid"] == server.process.pid
        assert server.client().get("indexes")["total_count"] == 1
    assert not (data / "HOST").exists()
    assert cli.json("rollback", "main", "--data", data)["success"] is True  # without a server, by itself


def test_commands_send_the_token_of_the_host_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    entry = cli.json("token", "reader", "--scope", "read")["entry"]
    with serving(data, SHADOWSWITCH_TOKENS=entry) as server:
        server.client().refused(401, "GET", "branches")
        assert cli.json("import", "main", texts(tmp_path / "texts"), "--data", data)["files"] == 40


def test_the_host_file_of_a_killed_server_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        server.client().post("branches", {"name": "main"})
        server.stop(signal.SIGKILL)
    assert (data / "HOST").exists()
    assert Cli(capsys).json("import", "main", texts(tmp_path / "texts"), "--data", data)["files"] == 40
    with serving(data) as server:
        assert server.client().get("branches/main")["record_count"] == 40


def test_serve_with_json_prints_the_address_as_one_line(tmp_path: Path) -> None:
    process = spawn("serve", "--data", tmp_path / "data", "--port", "0", "--json")
    assert process.stdout is not None
    printed = json.loads(process.stdout.readline())
    assert printed["serving"] == str(tmp_path / "data")
    assert Client(printed["url"]).get("branches")["total_count"] == 0
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


def test_a_second_server_of_one_directory_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        second = spawn("serve", "--data", tmp_path / "data", "--port", "0")
        _, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"process {server.process.pid}" in error
        assert ["open refused" in line for line in error.splitlines()] == [True, False], "its log, then the error"
        assert server.client().get("branches") == {"branches": [], "total_count": 0, "next_after": None}


def test_a_public_address_without_tokens_and_a_used_port_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    error = cli.error("serve", "--data", tmp_path / "data", "--host", "0.0.0.0", status=2)
    assert "--token-file" in error
    assert not (tmp_path / "data").exists()
    with serving(tmp_path / "data") as server:
        port = server.url.rsplit(":", 1)[1]
        assert "--port" in cli.error("serve", "--data", tmp_path / "other", "--port", port, status=2)


def test_without_the_extra_serve_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import sys; sys.modules['litestar'] = None; sys.modules['uvicorn'] = None\n"
        "from shadowswitch.service.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        [*command, "serve", "--data", str(tmp_path / "data")],
        capture_output=True, text=True, timeout=60, env=outside_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'shadowswitch[service]'" in done.stderr
    assert done.stderr.count("\n") == 1
    other = subprocess.run([*command, "--version"], capture_output=True, timeout=60, check=False)
    assert other.returncode == 0


def test_events_and_status_follow_a_running_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        following = spawn("events", "--data", tmp_path / "data", "--follow", "--json")
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["type"].endswith("branch.created")
        client.post("branches", {"name": "later"})
        assert json.loads(following.stdout.readline())["subject"] == "later"
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=60)
        assert following.returncode in (0, 130)
        watching = spawn("status", "--data", tmp_path / "data", "--watch", "--json")
        assert watching.stdout is not None
        assert len(json.loads(watching.stdout.readline())["branches"]) == 2
        client.post("branches", {"name": "third"})
        assert len(json.loads(watching.stdout.readline())["branches"]) == 3
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)


# -- stopping ------------------------------------------------------------------------------------------------------


def test_a_stop_ends_streams_waits_and_builds_and_the_next_start_resumes_the_build(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        for start in range(0, 4000, 1000):
            changes = [
                {"resource_type": "object_type", "id": str(n), "fields": {"text": f"word{n} " * 20}}
                for n in range(start, start + 1000)
            ]
            client.post("branches/main/write", {"changes": changes})
        stream = Events(client)
        lock = {"branch_name": "main", "lock_type": "BACKUP", "owner": "a"}
        client.post("branch-locks/acquire", lock)
        answers: list[Answer] = []
        asked = ("POST", "branch-locks/acquire", {**lock, "wait_s": 200})
        waits = threading.Thread(target=lambda: answers.append(server.client().call(*asked)))
        waits.start()
        wait_until(lambda: client.get("branch-locks/waiters"), what="the waiter")
        body = {"branch_name": "main", "index_type": KIND, "resource_types": ["object_type"]}
        shadow = client.post("shadow-index/start", body)["shadow_index_id"]
        assert server.stop() == 0, server.log
        assert "going without" not in server.log
        assert stream.ended.wait(30)
        waits.join(30)
        (stopped,) = answers
        assert (stopped.status, stopped.headers["content-type"]) == (503, "application/problem+json")
        assert "the engine is stopping" in stopped.body["detail"]
        assert "try again" in stopped.body["hint"]
        assert "Traceback" not in server.log
    with serving(data) as server:
        assert server.client().wait_for(shadow, "BUILT")["record_count"] == 4000


def storm(server: Server, clients: int, seconds: float, stop: int) -> tuple[dict[str, int], list[str]]:
    """Let clients write and read until a signal ends the server; acknowledged writes by id, unexpected answers."""
    acked: dict[str, int] = {}
    trouble: list[str] = []
    gone = threading.Event()

    def work(number: int) -> None:
        client, count = server.client(), 0
        try:
            while not gone.is_set():
                id = f"{number}-{count}"
                change = {"resource_type": "object_type", "id": id, "fields": {"text": f"word{number}"}}
                answer = client.call("POST", "branches/main/write", {"changes": [change]})
                if answer.status == 200:
                    acked[id] = answer.body["lsn"]
                elif answer.status not in (429, 503):
                    trouble.append(f"{answer.status} {answer.body}")
                path = ("branches", "indexes", "branches/main/search?q=word1", "shadow-index/list")[count % 4]
                answer = client.call("GET", path)
                if answer.status not in (200, 429, 503):
                    trouble.append(f"{path}: {answer.status} {answer.body}")
                count += 1
        except LOST as error:
            if not gone.is_set():
                trouble.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acked) >= 5 * clients or trouble, 120, "a write of each client")
    threading.Event().wait(seconds)
    gone.set()
    server.process.send_signal(stop)
    server.process.wait(30)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return acked, trouble


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize(
    ("clients", "seconds"),
    [pytest.param(200, 0.5), pytest.param(200, 60, marks=[pytest.mark.torture, pytest.mark.timeout(600)])],
)
def test_two_hundred_clients_lose_no_acknowledged_write(
    tmp_path: Path, number: int, clients: int, seconds: float
) -> None:
    data = tmp_path / "data"
    with serving(data, "--quiet", "--rate", "100000") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        change = {"resource_type": "object_type", "id": "first", "fields": {"text": "word1"}}
        client.post("branches/main/write", {"changes": [change]})
        shadow = client.built()
        assert client.post(f"shadow-index/{shadow}/switch", {})["success"]
        acked, trouble = storm(server, clients, seconds, number)
        assert trouble == []
        assert len(acked) >= clients
    with Engine.open(data) as engine:
        lost = [id for id, lsn in acked.items() if getattr(engine.get("main", "object_type", id), "lsn", 0) != lsn]
        assert lost == []
        with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=60) as reader:
            missing = [id for id in acked if reader.get("object_type", id) is None]
        assert missing == []


def test_commands_beside_a_host_without_a_server_name_its_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that embeds the engine is not a server: commands beside it name the process that has the directory."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        assert main(["rollback", "main", "--data", str(tmp_path / "data")]) == 1
        assert f"process {os.getpid()}" in capsys.readouterr().err


def test_a_server_that_gets_no_thread_for_the_deadline_of_its_stop_stops(tmp_path: Path) -> None:
    script = """
import sys, threading
from shadowswitch.service.cli.app import main
def refuse(timer):
    raise RuntimeError("can't start new thread")
threading.Timer.start = refuse
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", script, "serve", "--data", str(tmp_path / "data"), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=outside_environment())
    try:
        wait_until((tmp_path / "data" / "HOST").exists, 60.0, "a server that listens")
        server.terminate()
        _, said = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    assert server.returncode == 0, said
    assert "the stop has no deadline" in said
