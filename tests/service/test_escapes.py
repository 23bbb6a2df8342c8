"""Texts from outside in terminals and logs: no text forges a line, and none commands the terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, Put
from shadowswitch.service.cli.app import main
from shadowswitch.service.daemon.inbox import Inbox
from shadowswitch.service.logs import JsonLines, TextLines
from tests.support import inside
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import wait_until

EVIL = "x\n08:00:00 error   forged\x1b[2J\x9b31m\u202e\u2028y"
OpenEngine = Callable[..., Engine]


def is_clean(text: str) -> bool:
    """Has a text no character that commands a terminal, and no line that begins with the forged one?"""
    hidden = [one for one in text if one != "\n" and (ord(one) < 32 or 127 <= ord(one) < 160 or one in "\u202e\u2028")]
    return not hidden and not any(line.startswith("08:00:00 error   forged") for line in text.split("\n"))


def record_of(message: str, *arguments: object, fields: dict[str, object] | None = None) -> logging.LogRecord:
    try:
        raise ValueError(EVIL)
    except ValueError:
        record = logging.LogRecord("shadowswitch", logging.ERROR, "", 0, message, arguments, sys.exc_info())
    record.fields = fields or {}
    return record


def test_a_line_of_the_log_stays_one_line() -> None:
    record = record_of("file %s, caf\udce9", EVIL, fields={"path": EVIL})
    text = TextLines().format(record)
    assert is_clean(text)
    assert all(line.startswith("    ") for line in text.split("\n")[1:])
    line = JsonLines().format(record)
    assert is_clean(line)
    assert "\n" not in line
    assert "forged" in json.loads(line)["path"]


def test_a_log_of_any_handler_gets_escaped_names(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    box = Inbox(engine, settle_s=0.01, rescan_s=0.05)
    box.start()
    (box.folder / EVIL.replace("/", "")).write_text("[]")
    wait_until(lambda: box.rejected)
    box.stop()
    (rejected,) = (record.getMessage() for record in caplog.records if "is rejected" in record.getMessage())
    assert is_clean(rejected)
    assert "\n" not in rejected
    assert "\\u001b[2J" in rejected


@pytest.fixture
def hostile(engine: Engine) -> Path:
    """A data directory with hostile texts in each place that takes one."""
    branch = "main\u202e"
    inside.transact(engine, lambda commit: commit.create_branch(branch, 0.0))
    engine.write("main", [Put("file", EVIL, {"text": f"word {EVIL}"})])
    assert engine.rebuild("main", "SEARCH_INDEX", ["file"], {"parallel_workers": 1}, timeout_s=60).success
    engine.acquire_lock("main", "MANUAL", EVIL, reason=EVIL)
    engine.force_unlock("main", EVIL, EVIL)
    engine.acquire_lock(branch, "MANUAL", EVIL, reason=EVIL)
    engine.close()
    return engine.path


@pytest.mark.parametrize("json_", [(), ("--json",)])
@pytest.mark.parametrize(
    "command", [("search", "main", "word"), ("status",), ("locks", "main\u202e"), ("events",), ("audit",), ("check",)]
)
def test_a_command_prints_nothing_that_commands_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], json_: tuple[str, ...]
) -> None:
    assert main([*command, "--data", str(hostile), *json_]) == 0
    printed = capsys.readouterr()
    assert is_clean(printed.out)
    assert is_clean(printed.err)
    if json_:
        json.loads(printed.out)


def test_an_error_prints_nothing_that_commands_the_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = Cli(capsys).error("locks", "absent\x1b[2J\u202e", "--data", hostile, status=1)
    assert is_clean(error)
    assert "absent\\u001b[2J" in error or "absent\\x1b[2J" in error


@pytest.mark.parametrize(("mode", "users"), [(0o777, "every user of this machine"), (0o770, "the group")])
def test_a_data_directory_that_others_may_write_is_reported(
    open_engine: OpenEngine,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    mode: int,
    users: str,
) -> None:
    engine = open_engine()
    engine.close()
    assert "may write" not in caplog.text
    engine.path.chmod(mode)
    open_engine(engine.path).close()
    wanted = f"{users} may write {engine.path} (mode {mode:04o})"
    assert wanted in caplog.text
    assert main(["status", "--data", str(engine.path)]) == 0
    error = capsys.readouterr().err
    assert wanted in error
    assert f"chmod go-w {engine.path}" in error
