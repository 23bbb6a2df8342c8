"""The story of a night: the log of a server alone says what happened, by which author, and for which reason."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from shadowswitch import Engine
from tests.support.engine_helpers import fill, live, outside_environment, wait_until
from tests.support.http_helpers import Client, Server, serving


class Entry(NamedTuple):
    """A line of the log, read by its form only: time, level, sentence, and fields after two spaces."""

    level: str
    sentence: str
    fields: dict[str, str]


def story_of(log: str) -> list[Entry]:
    """The lines of a log that are neither requests nor continued."""
    found = []
    for line in log.splitlines():
        if line[:2].isdigit() and "  " in line:
            _, level, text = line.split(maxsplit=2)
            sentence, _, rest = text.partition("  ")
            fields = dict(part.split("=", 1) for part in shlex.split(rest))
            if sentence != "request":
                found.append(Entry(level, sentence, fields))
    return found


def called(name: str, reason: str) -> dict[str, str]:
    return {"X-Audit-By": name, "X-Audit-Reason": quote(reason)}


def build(client: Client, types: list[str], headers: dict[str, str], **more: Any) -> str:
    body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": types, **more}
    return str(client.post("shadow-index/start", body, headers=headers)["shadow_index_id"])


def first_half(client: Client) -> dict[str, str]:
    """A build and its switch, a refused switch, a lock, a rollback; returns the ids of the shadows."""
    ids = {}
    client.post("branches", {"name": "main"}, headers=called("root", "a new project"))
    changes = [{"resource_type": "file", "id": str(n), "fields": {"text": f"hello {n}"}} for n in range(3000)]
    client.post("branches/main/write", {"changes": changes})
    ids["first"] = build(client, ["file"], called("alice", "the first index"))
    client.wait_for(ids["first"], "BUILT")
    body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["file"]}
    for _ in range(3):
        client.refused(409, "POST", "shadow-index/start", body, headers=called("bob", "a hurry"))
    client.refused(409, "DELETE", "branches/main?reason=tidy", headers=called("bob", ""))
    client.post(f"shadow-index/{ids['first']}/switch", {}, headers=called("alice", "the first index"))
    client.refused(409, "POST", f"shadow-index/{ids['first']}/switch", {}, headers=called("bob", "a hurry"))
    where = {"branch_name": "main", "index_type": "SEARCH_INDEX"}
    client.refused(404, "POST", "indexes/rollback", where, headers=called("bob", "a hurry"))
    ids["typo"] = build(client, ["fiel"], called("bob", "a try"))
    client.wait_for(ids["typo"], "BUILT")
    assert not client.post(f"shadow-index/{ids['typo']}/switch", {}, headers=called("bob", "a try"))["success"]
    client.ok("DELETE", f"shadow-index/{ids['typo']}?reason=a%20typo", headers=called("bob", ""))
    ids["second"] = build(client, ["file"], called("alice", "porter"), build_config={"tokenizer": "porter"})
    client.wait_for(ids["second"], "BUILT")
    client.post(f"shadow-index/{ids['second']}/switch", {}, headers=called("alice", "porter"))
    lock = client.post(
        "branch-locks/acquire",
        {"branch_name": "main", "lock_type": "BACKUP", "lock_scope": "BRANCH", "reason": "the nightly backup"},
    )
    client.refused(423, "POST", "branches/main/write", {"changes": changes[:1]})
    client.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
    said = called("bob", 'worse ranking  by=eve\n23:00:00 info    switched  by="eve"')
    assert client.post("indexes/rollback", where, headers=said)["success"]
    return ids


def test_a_night_is_read_back_from_the_log_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = Server(data)
    ids = first_half(server.client())
    ids["cut"] = build(server.client(), ["file"], called("carol", "the last one"), external=True)
    wait_until(lambda: f"shadow={ids['cut']}" in server.log, what="the line of the last build")
    server.stop(signal.SIGKILL)
    with serving(data) as again:
        generation = str(again.client().get("indexes")["indexes"][0]["generation"])
        log = again.log
    story = story_of(log)
    lines = [(one.sentence, one.fields.get("shadow"), one.fields.get("by"), one.fields.get("reason")) for one in story]
    first, typo, second, cut = ids["first"], ids["typo"], ids["second"], ids["cut"]
    expected = [
        ("branch created", None, "root (as local)", "a new project"),
        *((word, first, "alice (as local)", "the first index") for word in BUILD),
        *((word, first, "alice (as local)", "the first index") for word in SWITCH),
        *((word, typo, "bob (as local)", "a try") for word in BUILD),
        ("switch started", typo, "bob (as local)", "a try"),
        ("switch did not take effect", typo, "bob (as local)", "a try"),
        ("build cancelled", typo, "bob (as local)", "a typo (by local)"),
        *((word, second, "alice (as local)", "porter") for word in BUILD),
        *((word, second, "alice (as local)", "porter") for word in SWITCH),
        ("lock granted", None, "local", "the nightly backup"),
        ("lock released", None, "local", "not given"),
        ("rolled back", first, "bob (as local)", REASON),
        ("build claimed", cut, "carol (as local)", "the last one"),
        ("recovery: an external build is awaited", cut, "shadowswitch", "the engine started"),
    ]
    assert [line for line in lines if line in expected] == expected
    hurried = [one for one in story if one.sentence in HURRIED]
    assert [one.sentence for one in hurried] == list(HURRIED), "each once, however often it was asked for"
    assert {(one.level, one.fields["by"]) for one in hurried} == {("info", "bob (as local)")}
    assert {one.fields["purpose"].removesuffix(" (by local)") for one in hurried} == {"a hurry", "tidy"}
    assert all(part in one.fields["reason"] for part, one in zip(HURRIED.values(), hurried, strict=True))
    (refused,) = [one for one in story if one.sentence == "switch refused, nothing has changed"]
    assert (refused.level, refused.fields["shadow"]) == ("warning", typo)
    assert "would be empty: branch 'main' has no records of fiel" in refused.fields["reason"]
    (blocked,) = [one for one in story if one.sentence == "write refused"]
    assert (blocked.fields["branch"], blocked.fields["holder"]) == ("main", "local")
    figures = [one.fields for one in story if one.sentence in BUILD[2:] and one.fields["shadow"] == second]
    assert [one["record_count"] for one in figures] == ["3000"] * 3
    assert float(figures[-1]["took_s"]) > 0
    moves = [one.fields["generation"] for one in story if one.sentence in ("switched", "rolled back")]
    assert moves[-1] == generation, "the log says which generation is live"
    opened = [one.fields for one in story if one.sentence == "engine opened"]
    assert [one.get("last_event") for one in opened] == [None, "build.started"]


BUILD = ("build claimed", "build started", "build copied every record", "build validated", "build is BUILT")
SWITCH = ("switch started", "switched", "switch finished")
HURRIED = {
    "start build refused": "which is BUILT",
    "drop branch refused": "is in use",
    "switch refused": "is ACTIVE",
    "rollback refused": "no previous generation",
}
REASON = 'worse ranking  by=eve\\u000a23:00:00 info    switched  by="eve"'


def test_a_build_that_a_kill_cut_off_goes_on_in_the_story(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        fill(engine, 20_000)
    server = Server(data, SHADOWSWITCH_POINTS="copy.slice=sleep:0.4")  # so that the kill cuts the copy off
    id = build(server.client(), ["object_type"], called("carol", "nightly"))
    wait_until(lambda: "build started" in server.log, what="the line of the start")
    server.stop(signal.SIGKILL)
    with serving(data) as again:
        again.client().wait_for(id, "BUILT")
        wait_until(lambda: "build is BUILT" in again.log, what="the line of the end")
        story = [one for one in story_of(again.log) if one.fields.get("shadow") == id]
    words = [one.sentence for one in story]
    assert words[:2] == ["build claimed", "build started"]
    assert words[-3:] == ["build copied every record", "build validated", "build is BUILT"]
    assert "recovery: the build goes on" in words
    assert {(one.fields["by"], one.fields["reason"]) for one in story[-3:]} == {("carol (as local)", "nightly")}


SILENT = """
import logging, sys
from shadowswitch import Engine
from tests.support.engine_helpers import fill, live
logger = logging.getLogger("shadowswitch")
before = logger.level, list(logger.handlers), logger.propagate, list(logging.getLogger().handlers)
with Engine.open(sys.argv[1]) as engine:
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    logger.error("no handler listens")
before[1].extend(one for one in logger.handlers if type(one) is logging.NullHandler)
assert before == (logger.level, logger.handlers, logger.propagate, logging.getLogger().handlers)
"""


def test_the_embedded_library_configures_no_logging_and_prints_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path / "data")],
        capture_output=True, text=True, timeout=120, env=outside_environment(), check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


def test_a_host_that_listens_gets_the_story_from_the_logger_of_the_library(
    open_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "shadowswitch"):
        engine = open_engine()
        engine.create_branch("main", by="alice", reason="a try")
        live(engine)
        engine.close()
    words = [record.getMessage().partition("  ")[0] for record in caplog.records]
    assert [words[0], words[-1]] == ["engine opened", "engine closed"]
    assert [word for word in words if word in SWITCH] == [*SWITCH], "also the events just before the close"
