"""Events: the calls that read and subscribe to the log, and those that say how the engine is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from shadowswitch.actors.build.disk_check import OnProgress, check_disk, no_progress, readable_in_workers
from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import Address, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Kick
from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.actors.maintenance.janitor import Sweep
from shadowswitch.actors.maintenance.subscribers import Subscriber, Subscribers
from shadowswitch.engine.arguments import check_seconds, check_text, check_whole
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.inspection import LiveChecks, Readiness, Statistics
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import BuildCancelled, EngineClosed, InvalidConfig, InvalidTransition
from shadowswitch.model.views import CheckProgress, Event, Finding, Health
from shadowswitch.storage.catalog.outbox import event_position, note_position
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.repair.repair import Repair

NAME_CHARS_MAX = 2000


class EventCalls:
    """The event log, the audit history, checks and figures. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        subscribers: Subscribers,
        dispatcher: Address,
        janitor: Address,
        statistics: Statistics,
        live_checks: LiveChecks,
        readiness: Readiness,
        answers: WorkerAnswers,
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._state = state
        self._subscribers = subscribers
        self._dispatcher = dispatcher
        self._janitor = janitor
        self._statistics = statistics
        self._live_checks = live_checks
        self._readiness = readiness
        self._answers = answers
        self._repairing = threading.Lock()
        self._numbers = count(1)
        self._checks: dict[int, CheckProgress] = {}

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Up to `limit` events of the durable log after a sequence number, in order; see docs/events.md.

        Sequence numbers have no gaps: when the first is not `after` + 1, the events between were removed
        (`Config.events_keep`).
        """
        return self._rows(after, limit, "outbox")

    def event_span(self) -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest event kept; (newest + 1, newest) when there is none."""
        self._state.check()
        return self._catalog.span()

    def subscribe(self, callback: Callable[[Event], None], after: int | None = None) -> Callable[[], None]:
        """Call back with every event from now on (or after a sequence number); returns a function that ends it.

        On the dispatcher's thread, in order, at least once: a callback that raises gets the same event again.
        """
        self._state.check()
        if not callable(callback):
            raise InvalidConfig(f"subscribe wants a function of one event, not {callback!r:.80}")
        if after is not None:
            check_whole("after", after, 0)
        else:
            with self._catalog.read() as txn:
                after = self._catalog.number("event", txn)
        subscriber = Subscriber(self._state.callback(callback), after)
        self._subscribers.add(subscriber)
        self._dispatcher.tell(Kick())
        return lambda: self._subscribers.remove(subscriber)

    def tell_settings(self, file: str, error: str | None, by: str = "", reason: str = "") -> None:
        """Emit an event: the settings of a host changed, or a file of settings is wrong and the old ones stay."""
        self._state.check()
        data = {"file": file} if error is None else {"file": file, "error": error}
        kind = "settings.applied" if error is None else "settings.refused"

        def note(commit: Commit) -> None:
            commit.emit(kind, file, data)
            commit.audit(kind, file, data)

        self._context.transact(signed(note, *author(by, reason)), "note settings")

    def event_position(self, name: str) -> int | None:
        """The last event that was noted under a name, or None."""
        self._state.check()
        return event_position(self._catalog, check_text("name", name, NAME_CHARS_MAX))

    def note_event_position(self, name: str, sequence: int) -> None:
        """Store the position of a delivery to another system: every event up to `sequence` has arrived there."""
        check_whole("sequence", sequence, 0)
        check_text("name", name, NAME_CHARS_MAX)
        self._state.check()
        self._context.transact(lambda commit: note_position(commit, name, sequence), "note position")

    def audit(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """The audit history: switches, rollbacks, failures and decisions of recovery, with author and reason."""
        return self._rows(after, limit, "audit")

    def audit_span(self) -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest entry of the audit history, as `event_span` has them."""
        self._state.check()
        return self._catalog.span("audit")

    def _rows(self, after: int, limit: int, database: str) -> list[Event]:
        self._state.check()
        check_whole("after", after, 0)
        check_whole("limit", limit, 1)
        return [event_of(row, self._catalog.uuid) for row in self._catalog.events(after, limit, database)]

    def histograms(self) -> dict[str, tuple[list[tuple[float, int]], float]]:
        """The latency histograms of `stats` whole: cumulative buckets by upper bound in seconds, and the sum."""
        self._state.check()
        found = sorted(self._context.metrics.histograms.items())
        return {name: histogram.cumulative() for name, histogram in found}

    def latencies(self) -> dict[str, dict[str, float]]:
        """The latencies of `stats` alone, in milliseconds: reads no row."""
        self._state.check()
        found = sorted(self._context.metrics.histograms.items())
        return {name: histogram.summary() for name, histogram in found}

    def trouble(self) -> str:
        """Why nothing can be written until the directory is opened again, or "" while all is well."""
        self._state.check()
        failed = self._catalog.failed
        return str(failed) if failed is not None else ""

    def health(self) -> Health:
        """Whether writes are taken, threads run and indexes are served; if not, every reason. A closed engine is not.

        After a write that found no room, an empty transaction looks for room, at most once a second.
        """
        if self._state.closed:
            return Health(False, ("the engine is closed",), ())
        return self._readiness.health()

    def check(
        self, repair: bool = False, by: str = "", reason: str = "", *, progress: OnProgress | None = None
    ) -> list[Finding]:
        """fsck: every invariant over everything on disk. Works beside writers and readers; may take long.

        Worker processes read the files, as many as there are cores: one that ends its reader is a finding. `progress`
        is called with a CheckProgress on this thread, at most ten times a second; what it raises ends the check.

        With `repair`, first derive again what the catalog holds twice: digests, numbers, names, and damaged records of
        which a proven copy exists. Each repair is in the audit history, and among the findings, with its source in
        `repaired`. Raises InvalidTransition while another repair runs, DirectoryLost for a directory that was replaced.
        """
        self._state.check()
        for name, text in (("by", by), ("reason", reason)):
            check_text(name, text, NAME_CHARS_MAX)
        by, reason = author(by, reason)
        try:
            repaired = self._repair(by, reason) if repair else []
            with self._noted(progress or no_progress) as note:
                findings = check_disk(self._answers, self._context.root, self._context.clock, note)
        except BuildCancelled as error:
            text = "the engine was closed during the check"
            raise EngineClosed(text, operation="check", hint="open it again") from error
        return repaired + findings + self._live_checks.findings()

    def checks(self) -> list[CheckProgress]:
        """How far each check is that runs at this moment, the oldest first. A repair before it has no progress."""
        self._state.check()
        return list(self._checks.values())

    @contextmanager
    def _noted(self, progress: OnProgress) -> Iterator[OnProgress]:
        number = next(self._numbers)

        def note(found: CheckProgress) -> None:
            self._checks[number] = found
            progress(found)

        try:
            yield note
        finally:
            self._checks.pop(number, None)

    def _repair(self, by: str, reason: str) -> list[Finding]:
        if not self._repairing.acquire(blocking=False):
            raise InvalidTransition("a repair runs already", operation="check", hint="try again when it has ended")
        context = self._context
        try:
            readable = readable_in_workers(self._answers, context.root, context.clock)
            return Repair(self._catalog, context.root, context.transact, by, reason).run(readable)
        finally:
            self._repairing.release()

    def clean_up(self, timeout_s: float = 30) -> None:
        """Do now what the janitor does every second: end soaks, remove what is retired, trim the journal."""
        reply: Reply[None] = Reply()
        timeout_s = check_seconds("timeout_s", timeout_s)
        self._state.check()
        self._janitor.tell(Sweep(reply))
        result_of(reply, timeout_s, "the clean-up")

    def stats(self) -> dict[str, Any]:
        """Counters, latency histograms (milliseconds), sizes, what is running. JSON-like."""
        self._state.check()
        return self._statistics.summary()
