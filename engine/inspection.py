"""What an engine says of itself: its figures, and the invariants that hold in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.supervisor import Supervisor
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.queue.builders import Builders
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.engine.admission import AdmissionQueue
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.views import Finding, Health
from shadowswitch.storage import disk
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.rows import HoldRow
from shadowswitch.storage.catalog.source.branch_pages import branch_count, branch_pages, branch_rows
from shadowswitch.storage.catalog.source.sizes import catalog_sizes

PROBE_S = 1.0
ROOM_BYTES = 1 << 18
"""Less free room than this is no room for writes."""


JOURNALS_MAX = 100
"""Branches in the figures of the journal: with more of them, those with the most LSNs held."""


class Statistics:
    """Counters, histograms, sizes, and the number of what runs. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        router: BranchRouter,
        builders: Builders,
        pool: WorkerPool,
        admission: AdmissionQueue,
        generations: OpenGenerations,
        heads: Heads,
        supervisor: Supervisor,
    ) -> None:
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._router = router
        self._builders = builders
        self._pool = pool
        self._admission = admission
        self._generations = generations
        self._heads = heads
        self._supervisor = supervisor

    def summary(self) -> dict[str, Any]:
        """The answer of `Engine.stats`."""
        generations = self._generations.all()
        return {
            **self._metrics.summary(),
            "catalog": catalog_sizes(self._catalog),
            "journal": self._journal(),
            "branch_actors": self._router.running(),
            "builds_running": self._builders.count(),
            "builds_queued": self._builders.queued(),
            "build_share_given": self._builders.share_given(),
            "worker_pids": self._pool.pids(),
            "queued_changes": self._admission.queued,
            "pins": sum(generation.pins for generation in generations),
            "generations_open": len(generations),
            "crashes": self._supervisor.crashes,
        }

    def _journal(self) -> list[dict[str, Any]]:
        """For each branch: the length of its journal in LSNs, and the generations and subscribers that hold it.

        The lowest of these, and `Config.journal_keep_changes` and `journal_keep_bytes`, decide what the Janitor trims.
        With more than `JOURNALS_MAX` branches only of those that are held most, at most so many of them.
        """
        held_by = self._held_most()
        if branch_count(self._catalog) <= JOURNALS_MAX:
            branches = list(branch_pages(self._catalog))
        else:
            branches = list(branch_rows(self._catalog, held_by).values())
        figures = []
        for branch in branches:
            head, oldest = self._catalog.head(branch.number)
            held = sorted(held_by.get(branch.number, []), key=lambda holder: int(holder["durable_lsn"]))
            length = max(0, head - oldest + 1)
            figures.append(
                {"branch": branch.name, "head_lsn": head, "oldest_lsn": oldest, "changes": length, "held_by": held}
            )
        return figures

    def _held_most(self) -> dict[int, list[dict[str, Any]]]:
        """By branch number what holds the journal, of up to `JOURNALS_MAX` branches. Reads the rows of these alone."""
        holds: dict[int, list[HoldRow]] = {}
        for hold in retention.holds(self._catalog):
            if not hold.given_up:
                holds.setdefault(hold.branch, []).append(hold)
        generations = self._holding()
        most = {branch: max(found.values()) for branch, found in generations.items()}
        for branch, rows in holds.items():
            held = self._heads.of(branch) - min(row.after_lsn for row in rows)
            most[branch] = max(held, most.get(branch, 0))
        found: dict[int, list[dict[str, Any]]] = {}
        for _, branch in sorted((-held, branch) for branch, held in most.items()):
            head = self._heads.of(branch)
            holders = [retention.hold_lag(row, head) for row in holds.get(branch, ())]
            holders += filter(None, (self._holder(number, head) for number in generations.get(branch, ())))
            if holders:
                found[branch] = holders
            if len(found) >= JOURNALS_MAX:
                break
        return found

    def _holding(self) -> dict[int, dict[int, int]]:
        """By branch the generations that may hold its journal, with the number of LSNs.

        Decodes no row of an open generation: some have retired since, see `_holder`. Of an unknown format, each row.
        """
        found: dict[int, dict[int, int]] = {}
        with self._catalog.read() as txn:
            for key, value in txn.cursor(self._catalog.db["generations"]):
                (number,) = SEQUENCE.unpack(key)
                opened = self._generations.get(number)
                if opened is None or opened.row.opaque:
                    row = self._catalog.lists.generation(value, txn)
                    if not row.needs_journal:
                        continue
                    branch, durable = row.branch, row.durable_lsn
                else:
                    branch, durable = opened.row.branch, opened.writer.durable_lsn
                found.setdefault(branch, {})[number] = max(0, self._catalog.head_in(txn, branch)[0] - durable)
        return found

    def _holder(self, number: int, head: int) -> dict[str, Any] | None:
        row, opened = self._catalog.generation(number), self._generations.get(number)
        if row is None or not retention.keeps_journal(self._catalog, row):
            return None
        lsn = max(row.durable_lsn, opened.writer.durable_lsn if opened is not None else 0)
        return {"generation": number, "role": row.role, "durable_lsn": lsn, "changes": max(0, head - lsn)}


class Readiness:
    """Whether the engine does what it is there for, and if not, every reason. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        indexes: LiveIndexes,
        broken: Mapping[tuple[int, str], str],
        unsound: Callable[[], Collection[int]],
        core: Callable[[], Mapping[str, Address]],
        timers: Timers,
    ) -> None:
        """`broken` has the reason why an index is not served, `unsound` gives the generations with an error,
        `core` the actors that always run."""
        self._context = context
        self._catalog = context.catalog
        self._indexes = indexes
        self._broken = broken
        self._unsound = unsound
        self._core = core
        self._timers = timers
        self._probed = float("-inf")
        self._lock = threading.Lock()

    def health(self) -> Health:
        """The present reasons; see `Health`."""
        reasons, unserved = (*self._of_writing(), *self._of_threads()), tuple(self._unserved())
        return Health(not reasons and not unserved, reasons, unserved)

    def _of_writing(self) -> Iterator[str]:
        if self._catalog.failed is not None:
            yield f"nothing is written until the directory is opened again: {self._catalog.failed}"
            return
        try:
            self._context.hold.check()
        except ShadowSwitchError as error:
            yield f"nothing is written until the directory is opened again: {error}"
            return
        short = self._catalog.short
        if short is not None and not self._has_room():
            yield f"writes are refused: {short}"

    def _has_room(self) -> bool:
        """After a write for which there was no room: is there some now? Once a second an empty transaction tries."""
        with self._lock:
            now = self._context.clock.monotonic()
            if now - self._probed < PROBE_S:
                return False
            self._probed = now
        try:
            if disk.free_bytes(self._context.root) < ROOM_BYTES:
                return False
            self._context.transact(lambda _: None, "look for room", PROBE_S)
        except (ShadowSwitchError, OSError):
            return False
        self._catalog.short = None
        return True

    def _of_threads(self) -> Iterator[str]:
        for name, address in self._core().items():
            if not address.ref.is_alive():
                yield f"the thread of the {name} has ended"
        if not self._timers.is_alive():
            yield "the thread of the timers has ended: nothing is followed, cleaned up or started again"

    def _unserved(self) -> Iterator[str]:
        """The indexes that had a live generation, and have none that is sound. Reads no row of another index."""
        wrong = {*self._broken, *self._indexes.without(self._unsound())}
        for row in filter(None, (self._catalog.index(*key) for key in sorted(wrong))):
            live = self._indexes.live(row.branch, row.index_type)
            reason = self._broken.get((row.branch, row.index_type))
            if reason is None and row.live and live is None:
                reason = "its live generation is not open"
            if reason is None and live is not None:
                shadow = self._catalog.find_shadow(live.row.shadow_id)
                reason = shadow.error if shadow is not None else None
            if reason is not None:
                branch = branch_rows(self._catalog, [row.branch]).get(row.branch)
                yield f"{row.index_type} of branch {branch.name if branch else str(row.branch)!r}: {reason}"


class LiveChecks:
    """The invariants of the live pointers and the published paths, of this process. Any thread."""

    def __init__(
        self,
        catalog: Catalog,
        indexes: LiveIndexes,
        generations: OpenGenerations,
        switches: RunningSwitches,
        publisher: Publisher,
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._generations = generations
        self._switches = switches
        self._publisher = publisher

    def findings(self) -> list[Finding]:
        """Every violation of IX-1 and IX-7."""
        return self._check_pointers() + self._check_published()

    def _check_pointers(self) -> list[Finding]:
        """IX-1. While a switch runs, the pointer in memory follows the commit by a moment: no check then."""
        findings = []
        for row in self._catalog.indexes():
            live = self._indexes.live(row.branch, row.index_type)
            if live is self._generations.get(row.live) or self._switches.shadows():
                continue
            if self._catalog.index(row.branch, row.index_type) == row:
                number = live.row.number if live is not None else "none"
                problem = f"readers get generation {number}, {row.live} is live"
                findings.append(Finding("IX-1", f"{row.index_type} of branch {row.branch}", problem))
        return findings

    def _check_published(self) -> list[Finding]:
        """IX-7. While a switch runs, the published path follows the pointer by a moment: no check then."""
        findings = []
        for row in self._catalog.indexes():
            live = self._indexes.live(row.branch, row.index_type)
            if live is None or self._switches.shadows() or self._publisher.is_busy:
                continue
            name = self._catalog.shadow(live.row.shadow_id).branch_name
            if self._publisher.is_published(name, live, row.strategy) or self._switches.shadows():
                continue
            if self._catalog.index(row.branch, row.index_type) == row:
                where = f"{row.index_type} of branch {name!r}"
                problem = f"its published path does not lead to generation {live.row.number}"
                findings.append(Finding("IX-7", where, problem))
        return findings
