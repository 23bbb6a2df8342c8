"""Developers at work: threads that think, edit, delete, lock, search and meet each other, and note their results."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from itertools import cycle

import msgspec

from benchmarks.ledger import Key, Ledger, Version
from benchmarks.simulation.hosts import Host
from benchmarks.simulation.schedule import Developer, Step
from shadowswitch.model.errors import LockConflict, LockLost, ShadowSwitchError, WriteBlocked
from shadowswitch.model.records import Delete, Put

LOCK_TTL_S = 60.0
PROBED_ONE_IN = 10
PROBES_MAX = 20
PROBE_POLL_S = 0.005
NEVER_S = 5.0
"""An edit that is not found that long after its acknowledgement, and was not edited again, is never found."""
EXAMPLES_MAX = 20


class Write(msgspec.Struct, frozen=True):
    """One acknowledged write; times are perf_counter."""

    branch: str
    zone: int
    begun: float
    ended: float


class Probe(msgspec.Struct, frozen=True):
    """An edit that must become searchable."""

    key: Key
    lsn: int
    marker: str
    begun: float
    acked: float


class Notes:
    """The notes of a run. Appending is safe on any thread."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.reads = 0
        self.failed_reads: list[str] = []
        self.stale_reads = 0
        self.went_back = 0
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.searchable_ms: list[float] = []
        self.never_searchable = 0
        self.probes: deque[Probe] = deque()


class Run:
    """The state that the developers of a run share."""

    def __init__(self, host: Host, ledger: Ledger, notes: Notes, stale_s: float, begun: float, seconds: float) -> None:
        self.host = host
        self.ledger = ledger
        self.notes = notes
        self.stale_s = stale_s
        self.begun = begun
        self.ends = begun + seconds
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.rebuilding = 0
        """Branches whose rebuilds are not all done: until then developers continue."""


class AtWork(threading.Thread):
    """One developer. An error is noted, never raised."""

    def __init__(self, run: Run, developer: Developer) -> None:
        super().__init__(name=developer.name, daemon=True)
        self._shared = run
        self._developer = developer
        self._seen: dict[Key, int] = {}
        self._edits = 0

    def run(self) -> None:
        """All shifts."""
        shared = self._shared
        steps = cycle(self._developer.steps)
        for begin, end in self._developer.at_work:
            shared.stop.wait(max(0.0, shared.begun + begin - time.perf_counter()))
            until = min(shared.begun + end, shared.ends)
            last = until >= shared.ends
            while (time.perf_counter() < until or (last and shared.rebuilding)) and not shared.stop.is_set():
                step = next(steps)
                try:
                    self._do(step)
                except Exception as error:
                    shared.notes.counts["errors"] += 1
                    if len(shared.notes.errors) < EXAMPLES_MAX:
                        shared.notes.errors.append(f"{self.name}, {step.kind}: {type(error).__name__}: {error}")

    def _do(self, step: Step) -> None:
        key = (self._developer.branch, step.resource_type, step.id)
        shared = self._shared
        if step.kind == "search":
            shared.stop.wait(step.think_s)
            self._search(key, step.text.split()[1])
            return
        before = shared.host.engine.get(*key)
        shared.stop.wait(step.think_s)
        now = shared.host.engine.get(*key)
        if (now.lsn if now else 0) != (before.lsn if before else 0):
            shared.notes.counts["edit conflicts"] += 1  # another developer was faster: look again, then go on
        if step.kind == "locked-edit":
            self._locked_edit(key, step)
        else:
            self._write(key, step, ())

    def _locked_edit(self, key: Key, step: Step) -> None:
        engine = self._shared.host.engine
        try:
            lock = engine.acquire_lock(
                key[0], "MANUAL", self.name, "RESOURCE", key[1], key[2], ttl_s=LOCK_TTL_S, reason="editing"
            )
        except LockConflict:
            self._shared.notes.counts["lock conflicts"] += 1
            return
        try:
            self._shared.stop.wait(step.think_s / 4)
            self._write(key, step, (lock.token,))
        finally:
            try:
                engine.release_lock(lock.lock_id, lock.token)
            except LockLost:
                self._shared.notes.counts["locks lost"] += 1

    def _write(self, key: Key, step: Step, tokens: tuple[int, ...]) -> None:
        shared = self._shared
        deleted = step.kind == "delete"
        change: Put | Delete = Delete(key[1], key[2])
        if not deleted:
            change = Put(key[1], key[2], {"title": step.id, "body": step.text})
        begun = time.perf_counter()
        try:
            lsn = shared.host.write(key[0], change, self.name, tokens)
        except WriteBlocked:
            shared.notes.counts["writes refused for a colleague's lock"] += 1
            return
        except BaseException:
            shared.ledger.unknown(key)
            raise
        shared.ledger.acked(key, lsn, deleted)
        ended = time.perf_counter()
        shared.notes.writes.append(Write(key[0], self._developer.zone, begun, ended))
        shared.notes.counts["deletes" if deleted else "edits"] += 1
        self._edits += not deleted
        if not deleted and self._edits % PROBED_ONE_IN == 0 and len(shared.notes.probes) < PROBES_MAX:
            shared.notes.probes.append(Probe(key, lsn, step.text.split()[0], begun, ended))

    def _search(self, key: Key, word: str) -> None:
        """Search for a word, then look one record up, and hold it against what must be seen by now."""
        shared = self._shared
        begun = time.perf_counter()
        expected = shared.ledger.newest(key)
        try:
            shared.host.search(key[0], word)
            lsn = shared.host.lsn_of(key) or 0
        except (ShadowSwitchError, OSError) as error:
            shared.notes.failed_reads.append(f"{type(error).__name__}: {error}")
            return
        shared.notes.reads += 1
        if 0 < lsn < self._seen.get(key, 0):
            shared.notes.went_back += 1
        self._seen[key] = lsn
        if expected is not None and expected.acked_at < begun - shared.stale_s and self._is_stale(key, lsn, expected):
            shared.notes.stale_reads += 1

    def _is_stale(self, key: Key, lsn: int, expected: Version) -> bool:
        """An older version than was acknowledged long ago; absence counts only while the record is there."""
        if lsn:
            return lsn < expected.lsn
        source = self._shared.host.engine.get(*key)
        return not expected.deleted and source is not None and source.lsn == expected.lsn


class Prober(threading.Thread):
    """Looks again and again whether edits can be found by now."""

    def __init__(self, run: Run) -> None:
        super().__init__(name="prober", daemon=True)
        self._shared = run

    def run(self) -> None:
        """Until the run is over and nothing is open."""
        shared = self._shared
        while not shared.stop.wait(PROBE_POLL_S) or shared.notes.probes:
            for _ in range(len(shared.notes.probes)):
                probe = shared.notes.probes.popleft()
                if not self._settled(probe):
                    shared.notes.probes.append(probe)
            if shared.stop.is_set():
                time.sleep(PROBE_POLL_S)

    def _settled(self, probe: Probe) -> bool:
        shared = self._shared
        newest = shared.ledger.newest(probe.key)
        if newest is None or newest.lsn != probe.lsn:
            return True
        try:
            found = any(hit.lsn == probe.lsn for hit in shared.host.search(probe.key[0], probe.marker))
        except (ShadowSwitchError, OSError) as error:
            shared.notes.failed_reads.append(f"{type(error).__name__}: {error}")
            return False
        now = time.perf_counter()
        if found:
            shared.notes.searchable_ms.append((now - probe.begun) * 1000)
        elif now > probe.acked + NEVER_S:
            shared.notes.never_searchable += 1
        return found or now > probe.acked + NEVER_S
