"""The status of the daemon: files left out and settings errors in the log, the metrics, HTTP and `status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.http.access import Scope
from tests.http.test_http_metrics import values
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import Client, serving, token_entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three text files and two binary files."""
    made = tmp_path / "docs"
    made.mkdir()
    for n in range(3):
        (made / f"{n}.txt").write_text(f"hello number{n}")
    for name in ("a.bin", "b.bin"):
        (made / name).write_bytes(b"\0binary")
    return made


def followed(client: Client, skipped: int) -> dict[str, Any]:
    """Wait until the mirror has three files and leaves out `skipped`, and return the status."""
    found: dict[str, Any] = {}

    def arrived() -> bool:
        found.update(client.get("upkeep"))
        return [(one["files"], one["skipped"].get("binary")) for one in found["mirrors"]] == [(3, skipped)]

    wait_until(arrived)
    return found


def test_files_left_out_are_in_the_log_the_metrics_the_http_answer_and_status(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    with serving(tmp_path / "data", str(folder)) as server:
        client = server.client()
        (mirror,) = followed(client, 2)["mirrors"]
        assert (mirror["folder"], mirror["branch"], mirror["files"]) == (str(folder), "main", 3)
        rows, row = values(client), f"branch=main,folder={folder},prefix="
        assert rows["shadowswitch_mirror_left_out_files"][f"{row},reason=binary"] == 2
        assert rows["shadowswitch_mirror_files"][row] == 3
        printed = cli("status", "--data", server.data)
        assert str(folder) in printed
        assert "2 binary" in printed
        (folder / "c.bin").write_bytes(b"\0binary")
        followed(client, 3)
        wait_until(lambda: "left out: 3 binary" in server.log)
        assert "left out: 2 binary" in server.log
        assert cli.json("status", "--data", server.data)["upkeep"]["mirrors"][0]["skipped"] == {"binary": 3}
    assert cli.json("status", "--data", tmp_path / "data")["upkeep"] is None


def test_the_error_of_a_settings_file_is_shown_until_the_file_is_correct(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    with serving(tmp_path / "data", str(folder)) as server:
        client = server.client()
        (folder / "shadowswitch.toml").write_text('[[index]]\n[index.build_config]\ntokenizer = "magic"\n')
        wait_until(lambda: "magic" in (client.get("upkeep")["error"] or ""))
        assert values(client)["shadowswitch_settings_refused"][""] == 1
        assert "magic" in cli("status", "--data", server.data)
        (folder / "shadowswitch.toml").unlink()
        wait_until(lambda: client.get("upkeep")["error"] is None)
        assert values(client)["shadowswitch_settings_refused"][""] == 0


def test_a_token_for_some_branches_sees_only_their_mirrors_and_indexes(tmp_path: Path, folder: Path) -> None:
    (secret, entry), (other, others) = (
        token_entry("all", [Scope.READ]),
        token_entry("some", [Scope.READ], ["feature/*"]),
    )
    with serving(tmp_path / "data", str(folder), SHADOWSWITCH_TOKENS=entry + others) as server:
        followed(server.client(secret), 2)
        found = server.client(other).get("upkeep")
        assert (found["mirrors"], found["indexes"], found["settings_file"]) == ([], [], "")
        assert str(folder) not in json.dumps(values(server.client(other)))


def test_a_server_without_folders_has_an_empty_daemon_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "data") as server:
        found = server.client().get("upkeep")
        assert (found["mirrors"], found["error"], found["not_started"]) == ([], None, {})
        assert "followed" not in Cli(capsys)("status", "--data", server.data)
