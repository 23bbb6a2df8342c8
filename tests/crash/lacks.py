"""Threads and processes cannot be had: a process is refused them for a while, by what this machine has for it.

    RLIMIT_NPROC    a user without privileges: more than one thread of the user is too much for that process
    pids cgroup     root, which RLIMIT_NPROC does not bind: the process is moved to a group of its own, with its
                    present number of threads as the limit; the controller of version 1 must be mounted and writable
    wrapper         otherwise: while a file is there, the process itself refuses (`tests.support.refusing`)

A limit of the kernel knows no difference between a thread and a process. Both are refused.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.crash.running import wait_until

_PROBE = """
import resource, threading
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=int).start()
except RuntimeError:
    print("refused")
"""
_PIDS = Path("/sys/fs/cgroup/pids")
EMPTY_S = 30.0


@cache
def means() -> str:
    """By what threads are refused here: "RLIMIT_NPROC", "pids cgroup" or "wrapper"."""
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60)
    if "refused" in probe.stdout:
        return "RLIMIT_NPROC"
    return "pids cgroup" if _own_group() is not None else "wrapper"


def _own_group() -> Path | None:
    """The group of this process in the pids controller, if groups can be made in it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        group = _PIDS / path.lstrip("/")
        if controllers == "pids" and os.access(group, os.W_OK):
            return group
    return None


class Lack:
    """Refuses threads to one process. The file `marker` is for the wrapper inside of it."""

    def __init__(self, pid: int, marker: Path) -> None:
        self._pid = pid
        self._marker = marker
        self._group: Path | None = None
        self.refused = 0
        """How often the kernel refused, where it says so: the pids cgroup does."""

    @contextlib.contextmanager
    def lacking(self, spare: int) -> Iterator[None]:
        """In the `with` block the process cannot have more than `spare` threads or processes more.

        RLIMIT_NPROC and the wrapper leave none. Raises ProcessLookupError when the process is gone.
        """
        if means() == "RLIMIT_NPROC":
            _, hard = resource.prlimit(self._pid, resource.RLIMIT_NPROC)
            resource.prlimit(self._pid, resource.RLIMIT_NPROC, (1, hard))
            try:
                yield
            finally:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(self._pid, resource.RLIMIT_NPROC, (hard, hard))
        elif means() == "pids cgroup":
            group = self._entered()
            present = int((group / "pids.current").read_text())
            (group / "pids.max").write_text(str(present + spare))
            try:
                yield
            finally:
                (group / "pids.max").write_text("max")
                self.refused = int((group / "pids.events").read_text().split()[1])
        else:
            self._marker.touch()
            try:
                yield
            finally:
                self._marker.unlink()

    def _entered(self) -> Path:
        """The group of the process; its workers that began before are in another one."""
        if self._group is None:
            own = _own_group()
            assert own is not None
            self._group = own / f"shadowswitch-{self._pid}"
            self._group.mkdir()
            (self._group / "cgroup.procs").write_text(str(self._pid))
        return self._group

    def end(self) -> None:
        """Remove the group, once its last process has ended. Raises TimeoutError."""
        if self._group is not None:
            wait_until(self._removed, f"{self._group} is empty", EMPTY_S)

    def _removed(self) -> bool:
        assert self._group is not None
        try:
            self._group.rmdir()
        except OSError:
            return False
        self._group = None
        return True
