"""strace as a tool of these tests: lists the system calls of a run on its data, and kills or fails at one of them.

`when=` counts for each thread and each name of a call. With `-P` only calls on that path are counted, so a case is
(path, call, n-th use). (`--seccomp-bpf` would be faster, but then `-P` injects nothing.)
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import msgspec

from tests.crash.running import Scene

WRITING = (
    "pwrite64,write,pwritev,writev,fdatasync,fsync,msync,rename,renameat,renameat2,openat,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,ftruncate,flock,fcntl,symlink,symlinkat,link,linkat,fallocate"
)
"""Calls that change files or names on disk, or lock a file."""
LOCKING = ("fcntl", "flock")
_LINE = re.compile(r"(\d+)\s+(\w+)\(")
_ONCE = re.compile(r"check-\d+|\.staging/[0-9a-f]{32}%2F")
"""Paths that no second run has: the name of a copy holds a process id, or the id of the catalog."""


class Case(msgspec.Struct, frozen=True):
    """The n-th use of a call on a path (relative to the data directory) by any thread."""

    path: str
    call: str
    nth: int

    def __str__(self) -> str:
        return f"{self.call}#{self.nth} {self.path}"


def missing() -> str:
    """Why system calls cannot be traced here; "" when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, timeout=60)
    if tried.returncode:
        return f"strace cannot trace here: {tried.stderr.decode(errors='replace').strip()[-200:]}"
    return ""


def traced(command: list[str], output: Path | str, calls: str, *more: str) -> list[str]:
    """A command line under strace, with all processes it starts."""
    return ["strace", "-f", "-qq", "-o", str(output), "-e", f"trace={calls}", *more, *command]


def injected(scene: Scene, command: list[str], case: Case, what: str, output: Path | str = "/dev/null") -> list[str]:
    """A command line with `what` injected at the n-th use; `nth` 0: at each use, below 0: at each use from there on."""
    when = "" if case.nth == 0 else f":when={case.nth}" if case.nth > 0 else f":when={-case.nth}+"
    path = str(scene.data / case.path)
    return traced(command, output, case.call, "-P", path, "-e", f"inject={case.call}:{what}{when}")


def record(scene: Scene, command: list[str], calls: str = WRITING) -> list[Case]:
    """Run a command, and list every use of these calls on its data directory, in order of first use."""
    trace = scene.folder / "trace"
    ended = scene.run(traced(command, trace, calls, "-y"), {})
    assert ended.status == 0, f"the run to be recorded ended with {ended.status}: {ended.errors}"
    return cases_of(trace, scene.data)


def cases_of(trace: Path, data: Path) -> list[Case]:
    """The cases in a trace made with `-y`, which shows the paths of descriptors."""
    on_data = re.compile(rf'[<"]{re.escape(str(data))}/([^>"]+)')
    counts: Counter[tuple[str, str, str]] = Counter()
    found: dict[Case, None] = {}
    for line in trace.read_text(errors="replace").splitlines():
        call, path = _LINE.match(line), on_data.search(line)
        if call is None or path is None or _ONCE.search(path[1]):
            continue
        counts[call[1], path[1], call[2]] += 1
        found[Case(path[1], call[2], counts[call[1], path[1], call[2]])] = None
    return list(found)


def spread(cases: list[Case], most: int) -> list[Case]:
    """At most `most` cases, evenly from the beginning to the end; one in ten of them is a lock."""
    locks = [case for case in cases if case.call in LOCKING]
    others = [case for case in cases if case.call not in LOCKING]
    return _evenly(others, most - most // 10) + _evenly(locks, most // 10)


def _evenly(cases: list[Case], most: int) -> list[Case]:
    step = max(1.0, len(cases) / most)
    return [cases[int(number * step)] for number in range(min(most, len(cases)))]
