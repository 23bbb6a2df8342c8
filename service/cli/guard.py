"""The child in which a command runs: damage that ends it by a signal becomes one line and an exit status.

LMDB maps its files. A page that is cut off or overwritten may end the process that reads it by SIGBUS or SIGABRT, which
no Python code can catch. So the process of a command forks before it opens anything. The child runs the command; the
parent passes signals on, waits, and returns the status of the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable

from shadowswitch.storage.reading import DAMAGE_SIGNALS

_PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


def guarded(run: Callable[[], int], fail: Callable[[str], None]) -> int:
    """Run a command in a child process and return its exit status. Call before any thread runs.

    `fail` reports the damage that ended the child by a signal.
    """
    ours, theirs = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        child = os.fork()
    except OSError:  # no process can be had: the command runs without this protection
        os.close(ours)
        os.close(theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return run()
    if child == 0:
        os.close(theirs)
        with contextlib.suppress(RuntimeError):  # no thread can be had: the command goes on when its parent is killed
            threading.Thread(target=_end_with_parent, args=(ours,), name="parent", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return run()
    os.close(ours)  # the other end closes with this process, however it ends
    status = os.waitstatus_to_exitcode(_wait(child))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if -status in DAMAGE_SIGNALS:
        fail(
            f"reading the data directory ended by {signal.Signals(-status).name}, so a file of it is damaged;"
            " shadowswitch check names the file and what to do"
        )
        return 1
    if status < 0:  # another signal: this process ends by it, too
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


def _wait(child: int) -> int:
    """The status of the child; a signal that another process sent to this one goes to the child."""
    while True:
        found = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if found.si_signo != signal.SIGCHLD:
            if found.si_code <= 0:  # a terminal sends its signals to both by itself
                os.kill(child, found.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return status
