"""`shadowswitch serve DIR`: folders and settings with a real server process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import wait_until
from tests.support.external_helpers import incoming
from tests.support.http_helpers import Client, Server, serving


def hits(client: Client, query: str) -> int:
    """The number of files that a search finds."""
    answer = client.call("GET", f"/api/v1/branches/main/search?index_type=SEARCH_INDEX&q={query}&limit=100")
    return len(answer.body["hits"]) if answer.status == 200 else 0


def test_a_server_mirrors_a_folder_and_switches_to_another_tokenizer_under_searches(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(20):
        (folder / f"{n}.txt").write_text(f"a fox is running number{n}")
    with serving(tmp_path / "data", str(folder)) as server:
        client = server.client()
        wait_until(lambda: hits(client, "running") == 20)
        assert hits(client, "run") == 0
        (folder / "shadowswitch.toml").write_text('[[index]]\n[index.build_config]\ntokenizer = "porter"\n')

        def switched() -> bool:
            assert hits(client, "running") == 20
            return hits(client, "run") == 20

        wait_until(switched)
        (folder / "3.txt").write_text("a fox walks")
        wait_until(lambda: hits(client, "run") == 19 and hits(client, "walking") == 1)
        (folder / "shadowswitch.toml").write_text('[[index]]\ntokenizer = "trigram"\n')
        wait_until(lambda: _refused(client))
        inbox = server.data / "inbox" / "event.json"
        inbox.write_text(json.dumps(incoming("com.oms.indexing.completed")))
        wait_until(lambda: (server.data / "inbox" / "rejected" / "event.json.reason.txt").exists())
        _stopped_soon(server)


def _refused(client: Client) -> bool:
    events = client.get("events?limit=1000")["events"]
    return any(event["type"].endswith("settings.refused") for event in events)


def _stopped_soon(server: Server) -> None:
    assert server.stop() == 0, server.log


def test_invalid_settings_are_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "shadowswitch.toml").write_text('[[index]]\ntokenizer = "porter"\n')
    error = Cli(capsys).error("serve", tmp_path / "docs", "--data", tmp_path / "data", status=2)
    assert "[[index]] number 1" in error
    assert "unknown field `tokenizer`" in error
    assert not (tmp_path / "data").exists()


def test_an_argument_without_a_folder_and_two_equal_names_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("hello")
    for name in ("absent", "file.txt"):
        error = Cli(capsys).error("serve", tmp_path / name, "--data", tmp_path / "data", status=2)
        assert f"{tmp_path / name} is not a folder" in error
        assert "shadowswitch.toml" not in error
        assert "[[mirror]]" not in error
    for name in ("one", "two"):
        (tmp_path / name / "docs").mkdir(parents=True)
    folders = (tmp_path / "one" / "docs", tmp_path / "two" / "docs")
    error = Cli(capsys).error("serve", *folders, "--data", tmp_path / "data", status=2)
    assert "two folders have the name 'docs'" in error
