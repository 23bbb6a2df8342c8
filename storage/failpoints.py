"""Failpoints: named points at every durable step, where a test kills or delays the process. Off by default.

Set the environment variable SHADOWSWITCH_POINTS before the first import, for example
`switch.committed=kill` (SIGKILL at the first pass), `copy.slice=kill@3` (at the third), `copy.slice=sleep:0.02`
(at every pass), `journal.before_commit=raise:ENOSPC`, `switch.verify=raise:EIO@2`. Several are separated by `;`.
Worker processes inherit it. Without a plan, a call of `failpoint` costs one dictionary test.

With SHADOWSWITCH_POINTS_ONCE=<folder> a kill, raise or exit happens once over all processes. The first process at the
point leaves a file with the name of the point and its process id; the worker that replaces a killed one passes.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

from shadowswitch.storage.clock import SYSTEM

POINTS = (
    "open.locked",
    "open.directories",
    "open.catalog",
    "recover.step",
    "recover.opened",
    "recover.cleaned",
    "write.admitted",
    "journal.before_commit",
    "journal.committed",
    "lock.before_store",
    "lock.stored",
    "build.claimed",
    "build.shard_made",
    "build.prepared",
    "build.begun",
    "build.shard_opened",
    "seed.made",
    "seed.slice",
    "copy.slice",
    "copy.loaded",
    "catchup.slice",
    "repair.bucket",
    "build.validated",
    "build.manifest",
    "build.built",
    "build.failed",
    "build.stopped",
    "switch.begun",
    "switch.validated",
    "switch.near",
    "switch.sealed",
    "switch.drained",
    "switch.proven",
    "switch.committed",
    "switch.pointed",
    "switch.verify",
    "switch.withdrawn",
    "switch.given_up",
    "group.begun",
    "group.proven",
    "group.moved",
    "group.committed",
    "group.pointed",
    "publish.copied",
    "publish.staged",
    "publish.exchanged",
    "publish.done",
    "withdraw.renamed",
    "words.begun",
    "words.synced",
    "words.added",
    "words.committed",
    "words.settling",
    "words.settled",
    "follow.shard_applied",
    "follow.applied",
    "follow.flushed",
    "retire.marked",
    "retire.shard_removed",
    "retire.removed",
    "retire.forgotten",
    "ended.forgotten",
    "drop.slice",
    "drop.emptied",
    "drop.forgotten",
    "trim.noted",
    "trim.slice",
    "trim.events",
    "trim.undo",
    "merge.batch",
    "merge.brought",
)
"""Every failpoint; a test walks this list."""


class _Plan:
    def __init__(self, action: str) -> None:
        action, _, nth = action.partition("@")
        self.nth = int(nth) if nth else 0
        self.kind, _, self.argument = action.partition(":")
        self.passes = 0

    def act(self, name: str) -> None:
        self.passes += 1
        if self.nth and self.passes != self.nth:
            return
        if self.kind == "sleep":
            SYSTEM.sleep(float(self.argument))
        elif not _is_first(name):
            return
        elif self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "raise":
            raise OSError(getattr(errno, self.argument), f"injected at {name}")
        elif self.kind == "exit":
            raise SystemExit(f"injected at {name}")


def _is_first(name: str) -> bool:
    folder = os.environ.get("SHADOWSWITCH_POINTS_ONCE")
    if not folder:
        return True
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(str(os.getpid()))
    return True


def _parse(text: str) -> dict[str, _Plan]:
    plans = {}
    for part in filter(None, text.split(";")):
        name, _, action = part.partition("=")
        if name not in POINTS:
            raise ValueError(f"SHADOWSWITCH_POINTS: no failpoint {name!r}; known: {', '.join(POINTS)}")
        plans[name] = _Plan(action or "kill")
    return plans


_plans = _parse(os.environ.get("SHADOWSWITCH_POINTS", ""))
_lock = threading.Lock()


def failpoint(name: str) -> None:
    """Pass a failpoint; does nothing unless a test has a plan for it."""
    if _plans and (plan := _plans.get(name)) is not None:
        plan.act(name)


def plan_points(text: str) -> None:
    """Replace the plans of this process, for tests that cannot use the environment."""
    with _lock:
        _plans.clear()
        _plans.update(_parse(text))
