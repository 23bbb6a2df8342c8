"""Events, checks and figures: the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.dispatcher import event_of
from shadowswitch.actors.maintenance.subscribers import Subscriber
from shadowswitch.actors.messages import Kick, Sweep
from shadowswitch.engine.lifecycle import Running, check_seconds, check_whole, text_of
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.views import (
    Event,
    Finding,
)
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.outbox import event_position, note_position
from shadowswitch.storage.fsck import check_data

NAME_CHARS_MAX = 2000


class Observing(Running):
    """What an engine tells of itself. Any thread."""

    def events(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Up to `limit` events of the durable log after a sequence number, in order; see docs/events.md.

        Sequence numbers have no gaps: when the first is not `after` + 1, those between were removed
        (`Config.events_keep`).
        """
        house = self._alive()
        check_whole("after", after, 0)
        check_whole("limit", limit, 1)
        return [event_of(row, house.catalog.uuid) for row in house.catalog.events(after, limit)]

    def event_span(self) -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest event kept; (newest + 1, newest) when there is none."""
        return self._alive().catalog.span()

    def subscribe(self, callback: Callable[[Event], None], after: int | None = None) -> Callable[[], None]:
        """Call back with every event from now on (or after a sequence number); returns a function that ends it.

        On the dispatcher's thread, in order, at least once: a callback that raises gets the same event again.
        """
        house = self._alive()
        if not callable(callback):
            raise InvalidConfig(f"subscribe wants a function of one event, not {callback!r:.80}")
        if after is not None:
            check_whole("after", after, 0)
        else:
            with house.catalog.read() as txn:
                after = house.catalog.number("event", txn)
        subscriber = Subscriber(callback, after)
        house.subscribers.add(subscriber)
        house.dispatcher.tell(Kick())
        return lambda: house.subscribers.remove(subscriber)

    def tell_settings(self, file: str, error: str | None) -> None:
        """Tell, as an event, that a host's settings changed, or that they are wrong and stay as they were."""
        data = {"file": file} if error is None else {"file": file, "error": error}
        kind = "settings.applied" if error is None else "settings.refused"
        self._alive().transact(lambda commit: commit.emit(kind, file, data), "tell of settings")

    def event_position(self, name: str) -> int | None:
        """The last event that was noted under a name, or None."""
        return event_position(self._alive().catalog, text_of("name", name, NAME_CHARS_MAX))

    def note_event_position(self, name: str, sequence: int) -> None:
        """Remember durably, under a name, that everything up to an event was taken; for whoever delivers elsewhere."""
        check_whole("sequence", sequence, 0)
        text_of("name", name, NAME_CHARS_MAX)
        self._alive().transact(lambda commit: note_position(commit, name, sequence), "note position")

    def audit(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """The audit history: switches, rollbacks, failures and what recovery decided, with who and why."""
        house = self._alive()
        check_whole("after", after, 0)
        check_whole("limit", limit, 1)
        return [event_of(row, house.catalog.uuid) for row in house.catalog.events(after, limit, "audit")]

    def audit_span(self) -> tuple[int, int]:
        """The sequence numbers of the oldest and the newest entry of the audit history, as `event_span` has them."""
        return self._alive().catalog.span("audit")

    def histograms(self) -> dict[str, tuple[list[tuple[float, int]], float]]:
        """The latency histograms of `stats` whole: cumulative buckets by upper bound in seconds, and the sum."""
        found = sorted(self._alive().metrics.histograms.items())
        return {name: histogram.cumulative() for name, histogram in found}

    def trouble(self) -> str:
        """Why nothing can be written until the directory is opened again, or "" while all is well."""
        failed = self._alive().catalog.failed
        return str(failed) if failed is not None else ""

    def check(self) -> list[Finding]:
        """fsck: every invariant over everything on disk. Works beside writers and readers; may take long."""
        house = self._alive()
        return check_data(house.catalog, house.root) + self._check_pointers() + self._check_published()

    def _check_pointers(self) -> list[Finding]:
        """IX-1, of this process. While an index is switched its readers are led over a moment later."""
        house = self._house
        findings = []
        for row in house.catalog.indexes():
            live = house.indexes.live(row.branch, row.index_type)
            if live is house.generations.get(row.live) or house.switches.shadows():
                continue
            if house.catalog.index(row.branch, row.index_type) == row:
                told = live.row.number if live is not None else "none"
                problem = f"readers get generation {told}, {row.live} is live"
                findings.append(Finding("IX-1", f"{row.index_type} of branch {row.branch}", problem))
        return findings

    def _check_published(self) -> list[Finding]:
        """IX-7. While an index is switched its path comes a moment later, so that is not looked at."""
        house = self._house
        findings = []
        for row in house.catalog.indexes():
            live = house.indexes.live(row.branch, row.index_type)
            if live is None or house.switches.shadows() or house.publisher.is_busy:
                continue
            name = house.catalog.shadow(live.row.shadow_id).branch_name
            if house.publisher.is_published(name, live, row.strategy) or house.switches.shadows():
                continue
            if house.catalog.index(row.branch, row.index_type) == row:
                where = f"{row.index_type} of branch {name!r}"
                problem = f"its path for outsiders does not lead to generation {live.row.number}"
                findings.append(Finding("IX-7", where, problem))
        return findings

    def clean_up(self, timeout_s: float = 30) -> None:
        """Do now what the janitor does every second: end soaks, remove what is retired, trim the journal."""
        reply: Reply[None] = Reply()
        timeout_s = check_seconds("timeout_s", timeout_s)
        self._alive().janitor.tell(Sweep(reply))
        result_of(reply, timeout_s, "the clean-up")

    def stats(self) -> dict[str, Any]:
        """Counters, latency histograms (milliseconds), sizes, what is running. JSON-like."""
        house = self._alive()
        return {
            **house.metrics.summary(),
            "catalog": house.catalog.statistics(),
            "journal": self._journal_figures(),
            "branch_actors": self._branches.running(),
            "builds_running": self._builds.running(),
            "worker_pids": house.pool.pids(),
            "queued_changes": self._room.queued,
            "pins": sum(generation.pins for generation in house.generations.all()),
            "generations_open": len(house.generations.all()),
            "crashes": self._supervisor.crashes,
        }

    def _journal_figures(self) -> list[dict[str, Any]]:
        """For each branch: how long its journal is, in LSNs, and which generations and subscribers hold how much of it.

        Of these and `Config.journal_keep_changes`, the lowest decides."""
        house = self._house
        holders: dict[int, list[dict[str, Any]]] = {}
        for row in house.catalog.generations():
            opened = house.generations.get(row.number)
            durable = opened.writer.durable_lsn if opened is not None else row.durable_lsn
            if row.needs_journal:
                lsn = max(durable, row.durable_lsn)
                what = {"generation": row.number, "role": row.role, "durable_lsn": lsn}
                holders.setdefault(row.branch, []).append(what | {"changes": max(0, house.heads.of(row.branch) - lsn)})
        for hold in retention.holds(house.catalog):
            if not hold.given_up:
                holders.setdefault(hold.branch, []).append(retention.told(hold, house.heads.of(hold.branch)))
        figures = []
        for branch in house.catalog.branches():
            head, oldest = house.catalog.head(branch.number)
            held = sorted(holders.get(branch.number, []), key=lambda what: int(what["durable_lsn"]))
            length = max(0, head - oldest + 1)
            figures.append(
                {"branch": branch.name, "head_lsn": head, "oldest_lsn": oldest, "changes": length, "held_by": held}
            )
        return figures
