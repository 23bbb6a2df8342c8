"""Processes that say what they found, and are killed by SIGKILL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import ROOT


def run_and_kill(module: str, errors: Path, *arguments: str) -> dict[str, Any]:
    """Run a module in a process, which is killed once it has said what it found. Raises RuntimeError if it fails."""
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
    finally:
        process.kill()
        process.wait()
    if not line:
        raise RuntimeError(f"{module} {arguments[0]} failed: {errors.read_text()[-2000:]}")
    found: dict[str, Any] = msgspec.json.decode(line)
    return found


def say_and_wait(found: dict[str, Any]) -> None:
    """In such a process: say what it found and wait to be killed."""
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    sys.stdout.flush()
    sys.stdin.read()
