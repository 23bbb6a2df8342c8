"""The process of a command, in the service name of its builds: so another command knows whether that one has ended.

    cli#4242.1234567.4026531836          process, its start in clock ticks since the boot, its PID namespace

Beside a server a build outlives its command. What a command left of a `build --switch` may then be discarded.
"""

from __future__ import annotations

import os
from pathlib import Path

SERVICE = "cli"
"""The service name of a build of the command line, before the separator."""
SEPARATOR = "#"
ENDED_STATES = ("Z", "X")
"""A zombie runs no more, also while its parent has not waited for it."""


def service_name() -> str:
    """The service name of the builds of this command. Without /proc it names no process."""
    pid = os.getpid()
    found, namespace = _state_and_start(pid), _namespace()
    return f"{SERVICE}{SEPARATOR}{pid}.{found[1]}.{namespace}" if found and namespace else SERVICE


def is_ours(name: str) -> bool:
    """Is it the service name of a build of the command line?"""
    return name.partition(SEPARATOR)[0] == SERVICE


def has_ended(name: str) -> bool:
    """Has the command of a service name ended, for certain? False where that cannot be known from here."""
    parts = name.partition(SEPARATOR)[2].split(".")
    if not is_ours(name) or len(parts) != 3 or not parts[0].isdecimal() or parts[2] != _namespace():
        return False
    found = _state_and_start(int(parts[0]))
    return found is None or found[0] in ENDED_STATES or found[1] != parts[1]


def is_of_another(name: str) -> bool:
    """Is it the service name of another command, which may still run?"""
    return is_ours(name) and name != service_name() and not has_ended(name)


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """State and start of a process, see proc(5); None without such a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


def _namespace() -> str:
    """The number of the PID namespace of this process; "" where /proc does not say it."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino) if Path("/proc/self/stat").exists() else ""
    except OSError:
        return ""
