"""Child processes in Python. A child imports what its parent imports; the working directory shadows no module.

The interpreter of the child starts without the working directory and without PYTHONPATH, so it runs no module from
there while it starts. Then it gets the module search path of the parent, in its order, with two exceptions. An entry
that is relative to the working directory is left out. The working directory itself, where the parent names it by its
absolute path, comes last: a file there stands in for no module of Python, of this library or of what is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

_FLAGS = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s", "no_site": "-S"}
"""The restrictions of the parent that hold for a child, by their names in `sys.flags`."""


def module_path() -> list[str]:
    """The module search path of a child of this process."""
    entries = [entry for entry in sys.path if isinstance(entry, str) and os.path.isabs(entry)]
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # the working directory was removed
        return entries
    return sorted(entries, key=lambda entry: os.path.realpath(entry) == here)


def start_python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a child that runs `code`; `options` go to `Popen`. Raises OSError."""
    flags = [flag for name, flag in _FLAGS.items() if getattr(sys.flags, name)]
    command = [sys.executable, "-P", *flags, "-c", f"import sys; sys.path[:] = {module_path()!r}; {code}", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(command, env=environment, **options)
