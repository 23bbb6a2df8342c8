"""Starts the scripts of these tests as processes of their own, with a deadline, and kills those that are left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 100.0
POLL_S = 0.005
WORKERS_END_S = 30.0


class Ended(msgspec.Struct, frozen=True):
    """The end of a process: its id, its status (negative: the signal), the end of its output."""

    pid: int
    status: int
    output: str
    errors: str

    @property
    def killed(self) -> bool:
        """Did a SIGKILL end it?"""
        return self.status in (-signal.SIGKILL, 128 + signal.SIGKILL)


class Scene:
    """One run: its data directory, its ledger, and the folder in which a passed failpoint makes a file."""

    def __init__(self, folder: Path, data: Path | None = None, backend: str = "fts5") -> None:
        self.folder = folder
        self.backend = backend
        self.data = data or folder / "data"
        self.ledger = folder / "ledger"
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True, exist_ok=True)

    def command(self, script: str, *arguments: str) -> list[str]:
        """The command line of one of the scripts of this folder."""
        return [sys.executable, "-m", f"tests.crash.{script}", str(self.data), str(self.ledger), *arguments]

    def workload(self, *arguments: str, points: str = "", once: bool = True) -> Ended:
        """Run the workload, with planned failpoints."""
        return self.run(self.command("workload", *arguments), self.environment(points, once))

    def oracle(self, *arguments: str, points: str = "") -> Ended:
        """Run the oracle, with planned failpoints."""
        return self.run(self.command("oracle", *arguments), self.environment(points))

    def run(self, command: Sequence[str], more: Mapping[str, str], timeout_s: float = DEADLINE_S) -> Ended:
        """Run a host on this data to its end; no worker process may outlive it."""
        try:
            ended = run(command, more, self.folder, timeout_s)
            wait_until(lambda: not self.workers(), "every worker process ends with its host", WORKERS_END_S)
        finally:
            for pid in self.workers():
                kill(pid)
        return ended

    def workers(self) -> list[int]:
        """The worker processes that have this data directory."""
        wanted = (b"generations.worker", os.fsencode(self.data))
        return [pid for pid, command in commands() if all(part in command for part in wanted)]

    def environment(self, points: str, once: bool = True) -> dict[str, str]:
        """The environment of the process, apart from ours."""
        marks = {"SHADOWSWITCH_POINTS_ONCE": str(self.marks)} if once else {}
        of_index = {"WORKLOAD_BACKEND": self.backend}
        return {"SHADOWSWITCH_POINTS": points, **marks, **of_index} if points else of_index

    def verdict(self, *arguments: str) -> dict[str, Any]:
        """Run the oracle and demand that it finds no problem; returns its figures."""
        ended = self.oracle(*arguments)
        assert ended.status == 0, f"the oracle says: {ended.output}\n{ended.errors}"
        figures: dict[str, Any] = json.loads(ended.output)
        return figures

    def passed(self, name: str) -> int:
        """The id of the process that passed a failpoint as planned; 0 when none did."""
        mark = self.marks / name
        return int(mark.read_text() or 0) if mark.exists() else 0

    def clear(self) -> None:
        """Remove the data: hundreds of runs would fill a disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Our environment, without the failpoints that another test planned, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHADOWSWITCH_")}
    return {**kept, **more}


def start(command: Sequence[str], more: Mapping[str, str], **how: Any) -> subprocess.Popen[str]:
    """Start a process in a session of its own, so that `finish` ends all of its processes."""
    return subprocess.Popen(command, cwd=ROOT, env=environment(more), text=True, start_new_session=True, **how)


def finish(process: subprocess.Popen[str]) -> None:
    """Kill the process and its group, if they are still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait(DEADLINE_S)


def run(command: Sequence[str], more: Mapping[str, str], folder: Path, timeout_s: float = DEADLINE_S) -> Ended:
    """Run a process to its end. Raises TimeoutError with its output at the deadline.

    The process writes into files: a pipe would stay open for as long as any of its children lives.
    """
    said, complained = folder / "stdout", folder / "stderr"
    with said.open("w") as output, complained.open("w") as errors:
        process = start(command, more, stdout=output, stderr=errors)
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        text = said.read_text()[-2000:] + complained.read_text()[-4000:]
        raise TimeoutError(f"{' '.join(command)} did not end: {text}") from None
    finally:
        finish(process)
    return Ended(process.pid, status, said.read_text()[-4000:], complained.read_text()[-4000:])


def commands() -> Iterator[tuple[int, bytes]]:
    """The command line of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes()
            except OSError:
                continue


def kill(pid: int) -> None:
    """Send SIGKILL, unless the process is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Poll a condition that no event reports, until it holds. Raises TimeoutError."""
    ends = time.monotonic() + timeout_s
    pause = Event()
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"this did not happen in time: {what}")
        pause.wait(POLL_S)
