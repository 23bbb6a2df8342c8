"""Ctrl-C while a command is still being imported: one line and the exit status 130.

The imports of a command take half a second. An exception from the midst of them is a traceback, and an imported module
may catch it. So the process of a command ends at the signal: it has opened nothing yet. `hold_interrupts` has no effect
in any other process, nor where SIGINT is ignored or handled already. Before the interpreter imports this package, it
prints a traceback of its own.
"""

from __future__ import annotations

import os
import signal
import sys

COMMAND = "shadowswitch"
INTERRUPTED = 130


def hold_interrupts() -> None:
    """From here on SIGINT ends this process at once, if it is a command."""
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            signal.signal(signal.SIGINT, _end)
        except ValueError:  # not the main thread: it is imported by a host of that name
            return


def release_interrupts() -> None:
    """From here on SIGINT raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    """Did the script `shadowswitch` or `python -m shadowswitch` start this process?

    While Python looks for the module of `-m`, it imports the package, and "-m" stands for its name.
    """
    if not sys.argv:
        return False
    if sys.argv[0] == "-m":
        return sys.orig_argv[-len(sys.argv)] in (COMMAND, f"-m{COMMAND}")
    folder, name = os.path.split(sys.argv[0])
    return name == COMMAND or (name == "__main__.py" and os.path.basename(folder) == COMMAND)


def _end(number: int, frame: object) -> None:
    try:
        os.write(2, b"shadowswitch: interrupted\n")
    finally:
        os._exit(INTERRUPTED)


hold_interrupts()
