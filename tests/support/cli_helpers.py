"""The command line in tests: in this process, or in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.cli.app import main

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


def texts(folder: Path, count: int = 40) -> Path:
    """A folder of small text files."""
    for number in range(count):
        path = folder / f"part{number % 3}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = " ".join(WORDS[(number + k) % len(WORDS)] for k in range(5))
        path.write_text(f"{words} singing in the {number}th evening with unique{number}\n")
    return folder


class Cli:
    """Runs commands in this process and captures their output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: object, status: int = 0) -> str:
        """Run a command, check its exit status, and return its output."""
        found = main([str(argument) for argument in arguments])
        out, self.err = self._capsys.readouterr()
        assert found == status, f"{arguments} ended with {found}\n{out}\n{self.err}"
        return out

    def json(self, *arguments: object, status: int = 0) -> Any:
        """Run a command with --json and return the value. Standard error must be empty."""
        out = self(*arguments, "--json", status=status)
        if status == 0:
            assert self.err == ""
        return json.loads(out)

    def error(self, *arguments: object, status: int) -> str:
        """Run a command that must fail, and return its one line."""
        assert self(*arguments, status=status) == ""
        return self._line()

    def failure(self, *arguments: object, status: int) -> Any:
        """Run a command with --json that must fail, and return the error of its one line of output."""
        out = self(*arguments, "--json", status=status)
        self._line()
        assert out.count("\n") == 1, out
        (found,) = json.loads(out).items()
        assert found[0] == "error"
        return found[1]

    def _line(self) -> str:
        assert self.err.startswith("shadowswitch: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err


class Commands:
    """Runs commands over a data directory: in this process, or in one of their own."""

    def __init__(self, data: Path, cli: Cli) -> None:
        self.data = data
        self._cli = cli

    def __call__(self, *arguments: str, status: int = 0) -> str:
        out = self._cli(*arguments, "--data", self.data, status=status)
        return out + self._cli.err

    def json(self, *arguments: str, status: int = 0) -> Any:
        return self._cli.json(*arguments, "--data", self.data, status=status)

    def process(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of a process."""
        process = spawn(*arguments, "--data", self.data)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err


def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A data directory with forty records on `main`, created by `import`."""
    data = tmp_path / "data"
    Cli(capsys)("import", "main", texts(tmp_path / "texts"), "--data", data)
    return data


def switched(data: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same data directory with a live index."""
    Cli(capsys)("build", "main", "SEARCH_INDEX", "--data", data, "--switch")
    return data


def spawn(*arguments: object, points: str = "", stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A command in a process of its own; `points` is the value of SHADOWSWITCH_POINTS."""
    command = [sys.executable, "-m", "shadowswitch", *map(str, arguments)]
    environment = {**os.environ, "SHADOWSWITCH_POINTS": points}
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)


def lose_one_row(generations: Path) -> str:
    """Delete one row from a shard below a folder, and return the id of the record. The engine does not notice."""
    for path in sorted(generations.rglob("*")):
        if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3":
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                lost = connection.execute("DELETE FROM docs WHERE rowid = (SELECT min(rowid) FROM docs) RETURNING id")
                (id,) = lost.fetchone()
                return str(id)
    raise AssertionError(f"no shard with a row below {generations}")
