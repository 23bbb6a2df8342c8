"""The world of one simulation: one thread, one seed, virtual time.

Every actor and every client is a task, a greenlet. A task runs until it waits: for a message, for an answer, for time
to pass, or at a failpoint of the library. Then the seed chooses the next task among all that are ready, and decides
whether time passes meanwhile. So each step handles one message, or a piece of it between two failpoints.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import GreenletExit, getcurrent, greenlet

if TYPE_CHECKING:
    from tests.simulation.waiting import VirtualReply

STEPS_MAX = 20_000
"""The limit of steps: a seed with more steps hangs."""
STOOD_S_MAX = 3.5
"""A machine that stood still for longer, in all, is a trouble: a switch has 3 s."""
BOOTED_AT_S = 1000.0
WALL_AT_BOOT_S = 1_800_000_000.0


class Violation(AssertionError):
    """An invariant does not hold."""


class Task:
    """A greenlet that the world schedules. A `lazy` one is seldom chosen: a slow disk, a starved thread."""

    def __init__(self, name: str, run: Callable[[], object], hub: greenlet) -> None:
        self.name = name
        self.greenlet = greenlet(run, parent=hub)
        self.ready = False
        self.dead = False
        self.lazy = False
        self.resting = False
        """The task waits for a message, and handles none."""


class World:
    """Tasks, timers and clocks of one seed."""

    present: World | None = None

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = BOOTED_AT_S
        """True time. The library sees `monotonic` and `wall`."""
        self.booted = 0.0
        self.wall_offset = WALL_AT_BOOT_S
        self.boot = "boot-1"
        self.steps = 0
        self.trace: list[tuple[float, str, tuple[Any, ...]]] = []
        self.crashed = False
        self.actors: list[Any] = []
        """References to every actor that was ever started in this world."""
        self.reached: Callable[[str], None] = lambda name: None
        """Called at each failpoint of the library, by the task that reaches it."""
        self.catalog: Any = None
        self.workers: Any = None
        self.watcher: Any = None
        """The oracle, which sees the steps inside transactions."""
        self.slow: frozenset[str] = frozenset()
        """Names of tasks that are lazy in this seed."""
        self.period_s = 0.0
        """The shortest period of periodic timers."""
        self.dawdling = 0.0
        self.freezing = 0.0
        """The chances at each step: that a little time passes, and that the whole machine stands still for seconds."""
        self.troubles = 0
        self._stood_s = 0.0
        self.broken = False
        """The number of faults after which a caller may see a timeout; whether such a fault lasts."""
        self._hub = getcurrent()
        self._task: Task | None = None
        self._tasks: list[Task] = []
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._order = itertools.count()
        self._ids = itertools.count(1)
        self._burying = False

    # -- clocks and chance -----------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """The monotonic clock of the machine; it begins again at a reboot."""
        return self.now - self.booted

    def wall(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return self.now + self.wall_offset

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return share > 0 and self.random.random() < share

    def next_id(self) -> int:
        """A new number."""
        return next(self._ids)

    def note(self, text: str, *details: Any) -> None:
        """Add a line to the trace; `trace_lines` formats it."""
        self.trace.append((self.now, text, details))

    def trace_lines(self) -> list[str]:
        """The trace as text."""
        return [f"{at - BOOTED_AT_S:10.4f}  {text % details if details else text}" for at, text, details in self.trace]

    # -- tasks -----------------------------------------------------------------------------------------------------

    def spawn(self, name: str, run: Callable[[], object]) -> Task | None:
        """Start a task; its first step may come at any time."""
        if self._burying:
            return None
        task = Task(name, run, self._hub)
        task.lazy = name in self.slow
        self._tasks.append(task)
        self.wake(task)
        return task

    def wake(self, task: Task) -> None:
        """Make a task ready."""
        if not task.ready and not task.dead and not self._burying:
            task.ready = True
            self._ready.append(task)

    def at(self, when: float, call: Callable[[], None]) -> list[Callable[[], None]]:
        """Call at a (true) time; clear the returned list to cancel the call."""
        entry = [call]
        if not self._burying:
            heapq.heappush(self._timers, (when, next(self._order), entry))
        return entry

    def rests(self, name: str) -> bool:
        """Does a task with that name exist that handles no message?"""
        return any(task.name == name and task.resting and not task.dead for task in self._tasks)

    def current(self) -> Task:
        """The running task. A dead task never waits again."""
        task = self._task
        if task is None or task.dead:
            raise GreenletExit
        return task

    def end(self, task: Task) -> None:
        """Kill a task: it ends where it waits, or where it waits next."""
        self.wake(task)
        task.dead = True

    def yield_(self) -> None:
        """Let other tasks run until this one is woken."""
        task = self.current()
        self._hub.switch()
        if task.dead:
            raise GreenletExit

    def pause(self) -> None:
        """Stay ready; the seed may choose another task first."""
        self.wake(self.current())
        self.yield_()

    def sleep(self, delay_s: float) -> None:
        """Wait for a time."""
        task = self.current()
        until = self.now + max(0.0, delay_s)
        self.at(until, partial(self.wake, task))
        while self.now < until:
            self.yield_()

    def wait(self, reply: VirtualReply, timeout_s: float | None) -> None:
        """Wait until there is an answer or the time is over."""
        if reply.done():
            return
        task = self.current()
        until = None if timeout_s is None else self.now + timeout_s
        alarm = self.at(until, partial(self.wake, task)) if until is not None else []
        reply.when_done(partial(self.wake, task))
        while not reply.done() and (until is None or self.now < until):
            self.yield_()
        alarm.clear()

    def die(self) -> NoReturn:
        """End the process of the engine at once; for a call from a task."""
        self.crashed = True
        self._hub.switch()
        raise GreenletExit

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], each_step: Callable[[], None]) -> bool:
        """Take steps until `until`; False when no task is ready and no timer is set. Stops when the process dies."""
        while not until():
            if not self._step():
                return False
            each_step()
            if self.crashed:
                return True
            if self.steps > STEPS_MAX:
                raise Violation(f"no end after {STEPS_MAX} steps; ready: {sorted(t.name for t in self._ready)}")
        return True

    def _step(self) -> bool:
        self._forget_cleared()
        self._time_passes()
        due = bool(self._timers) and self._timers[0][0] <= self.now
        if not self._ready and not due:
            if not self._timers:
                return False
            self.now = self._timers[0][0]
            due = True
        self.steps += 1
        ready = self._ready
        which = self.random.randrange(len(ready) + due)
        if which < len(ready) and ready[which].lazy and len(ready) + due > 1:
            which = self.random.randrange(len(ready) + due)
        if which == len(ready):
            _, _, entry = heapq.heappop(self._timers)
            entry[0]()
            return True
        task = ready[which]
        ready[which] = ready[-1]
        ready.pop()
        task.ready = False
        self._task = task
        if task.dead and not task.greenlet.gr_frame:
            return True  # the task was killed before it began
        task.greenlet.switch()
        self._task = None
        return True

    def _time_passes(self) -> None:
        if self.dawdling and self.random.random() < self.dawdling:
            self.now += self.random.random() * 0.02
        if self.freezing and self.random.random() < self.freezing:
            pause_s = self.random.choice((0.3, 2.0, 7.0, 45.0, 90.0))
            self._stood_s += pause_s
            if self._stood_s > STOOD_S_MAX:
                self.troubles, self._stood_s = self.troubles + 1, 0.0
            self.now += pause_s
            self.note("the machine stands still for %g s", pause_s)

    def _forget_cleared(self) -> None:
        while self._timers and not self._timers[0][2]:
            heapq.heappop(self._timers)

    def bury(self) -> None:
        """End every task where it waits; a task has no effect after that. For a call from the hub."""
        self._burying = True
        tasks, self._tasks = self._tasks, []
        self._ready.clear()
        self._timers.clear()
        for task in tasks:
            task.dead = True
        for task in tasks:
            for _ in range(100):
                if not task.greenlet:
                    break
                self._task = task
                with contextlib.suppress(Exception):  # an error of a dying task means nothing
                    task.greenlet.throw(GreenletExit)
        self._task = None
        self._burying = False
        self.crashed = False


def present() -> World:
    """The world of the library."""
    assert World.present is not None, "no world"
    return World.present
