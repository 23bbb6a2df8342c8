"""Logs: a text from outside ends no line, begins no field and steers no terminal."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.logs import JsonLines, TextLines
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import serving

FORGED = (
    "a\nb",
    "a\r\n12:00:00 info    request  caller=admin",
    "\x1b[31m red \x1b]0;title\x07",
    "\x9b2J",
    "\u202etxt.exe",
    "\u2028",
    "\x7f",
    "\udc80",
    'x"  status=200',
    "zero\u200bwidth",
    "\x00",
)


def record(message: str, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    found = logging.LogRecord("shadowswitch", logging.INFO, "", 0, "%s", (message,), None)
    if error is not None:
        found.exc_info = (type(error), error, error.__traceback__)
    found.fields = fields
    return found


@pytest.mark.parametrize("text", FORGED)
def test_a_text_from_outside_is_one_printable_line_of_the_log(text: str) -> None:
    plain = TextLines().format(record(text, path=text, status=404))
    assert plain.isprintable()
    assert plain.endswith("  status=404")
    line = JsonLines().format(record(text, path=text))
    assert line.isprintable()
    decoded = json.loads(line)
    assert (decoded["message"], decoded["path"]) == (text, text)


def test_a_value_with_a_space_cannot_begin_a_field_of_its_own() -> None:
    plain = TextLines().format(record("request", path='/x  status=200"', status=404))
    assert plain.endswith(r"""path="/x  status=200\""  status=404""")
    assert TextLines().format(record("request", path="/api/사용자")).endswith("path=/api/사용자")


def test_a_traceback_is_indented_so_that_no_message_in_it_looks_like_a_record() -> None:
    lines = TextLines().format(record("failed", ValueError("a\n12:00:00 info    forged\x1b[2J"))).split("\n")
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])
    assert len(lines) == 3


def test_a_request_for_a_forged_path_is_one_line_of_the_log(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        server.client().call("GET", "/%0a12:00:00%20info%20%20%20%20request%20%20caller=root%1b%5b2J%c2%9b")
        server.client().call("GET", "/last")
        wait_until(lambda: "path=/last" in server.log, what="the lines of both requests")
        lines = [line for line in server.log.splitlines() if "request_id" in line]
    assert len(lines) == 2
    assert lines[0].isprintable()
    assert r"\u000a12:00:00" in lines[0]


def test_a_reason_with_escape_codes_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.acquire_lock("main", "BACKUP", "a\x1b]0;owned\x07", reason="x\x1b[2J\x9b2J\u202e")
    for command in (("locks", "main"), ("status",), ("events",), ("audit",)):
        shown = cli(*command, "--data", data)
        assert all(line.isprintable() for line in shown.splitlines()), command
    assert "\x1b" not in cli.error("status", "--data", tmp_path / "no\x1b[2Jsuch", status=1)
