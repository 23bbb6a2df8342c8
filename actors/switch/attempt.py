"""One attempt of a switch: bring the shadow near, then commit in one turn of the JournalWriter.

On the Switcher's thread, beside the writers:

    near     apply what is newer, again and again; followers begin no new work meanwhile
    send     the CommitSwitch stands in the branch's line of writes; not begun within `Config.seal_budget_ms`, or by
             the deadline of the switch: given up

On the JournalWriter's thread, in one turn. Everything sent before is durable, and nothing can come between:

    drain    apply the last durable changes to the shadow, without waiting for the disk
    prove    at Z, the head of the branch: the shadow's digest is that of its source, bucket by bucket (SW-3)
    commit   one transaction, conditional on the expected live generation and the fencing token (SW-4)
    point    the live pointer moves

An attempt that fails before the commit has changed nothing. Nothing can fail between commit and pointer. Writers wait
for the drain, the proof and the commit: `sealed_ms`. Decision 0011 has the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import CommitSwitch
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.follower_pool import FollowerPause
from shadowswitch.actors.switch.live_index import LIVE_S, LiveIndex
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.model.errors import InvalidTransition, StaleFence, Timeout
from shadowswitch.model.switch_outcome import Failure
from shadowswitch.storage.asked_process import impatient
from shadowswitch.storage.catalog.keys import REPAIR
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.source.kept_digest import KeptDigest
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import PAUSE_S

logger = logging.getLogger("shadowswitch")

CATCH_UP_S = 5.0
NEAR_ROUNDS_MAX = 30
NEAR_CHANGES = 1
"""A round of catching up that had no more changes than this leaves no more for the drain."""
SWITCH_LOCK_S = 30.0
"""How long to wait for another switch of the index; then the attempt is given up."""
DRAIN_FIRST_S = 0.025
DRAIN_FIRST_LSNS = 500
"""How long the drain of a first attempt may keep writers out, and how many LSNs it may have ahead of it; each further
attempt may four times as much, up to `Config.seal_budget_ms`. So a large batch just ahead of the switch is caught up
with beside the writers, if possible."""
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
COMMIT_TIMEOUT_S = 600.0
"""A turn that has begun is waited for much longer than anything else: giving up would leave its outcome unknown, and
while the disk stalls no other write could be committed either."""


class AttemptEnd(msgspec.Struct):
    """How an attempt ended. Only with Failure.NONE was the shadow committed and the pointer moved."""

    failure: Failure = Failure.NONE
    reason: str = ""
    """With Failure.GAVE_UP, "" means that the deadline of the switch came before the turn."""
    sealed_ms: float = 0.0
    """How long its turn took: no other write could become durable meanwhile."""
    commit_lsn: int = 0
    drained: int = 0


def try_until(context: EngineContext, deadline: float, try_once: Callable[[int], Failure]) -> Failure:
    """Attempts with backoff, counted from 0, until one ends otherwise than by giving up or the deadline has come."""
    backoff_s = BACKOFF_FIRST_S
    number = 0
    while True:
        failure = try_once(number)
        if failure != Failure.GAVE_UP or context.clock.monotonic() + backoff_s > deadline:
            return failure
        context.metrics.count("switch_attempts_given_up")
        context.clock.sleep(backoff_s)
        backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
        number += 1


class Attempt:
    """Runs once, on the Switcher's thread and in a turn of the JournalWriter."""

    def __init__(
        self,
        context: EngineContext,
        index: LiveIndex,
        generations: OpenGenerations,
        target: Generation,
        heads: Heads,
        pause: FollowerPause,
        publisher: Publisher,
        send: Callable[[CommitSwitch], None],
        transition: Callable[[Commit], IndexRow],
        number: int,
        deadline: float,
    ) -> None:
        """`send` puts a message into the branch's line of writes; `transition` is the change of the catalog; `number`
        counts the attempts of this switch from 0; beyond `deadline` (monotonic) no turn begins."""
        self._context = context
        self._clock = context.clock
        self._index = index
        self._generations = generations
        self._target = target
        self._heads = heads
        self._pause = pause
        self._publisher = publisher
        self._send = send
        self._transition = transition
        self._budget_s = context.config.seal_budget_ms / 1000
        self._drain_s = min(self._budget_s, DRAIN_FIRST_S * 4**number)
        self._drain_lsns = DRAIN_FIRST_LSNS * 4**number
        self._head = 0
        self._deadline = deadline
        self._begin_by = self._live_until = self._begun = self._proven = 0.0
        self._end = AttemptEnd()

    def run(self) -> AttemptEnd:
        """Raises what the transaction raised: its outcome is for the catalog to say. Any other failure is returned."""
        try:
            with self.locked():
                self.catch_up()
                with self._pause.paused(), self.apply_paused():
                    self._come_near()
                    with self.digest_kept():
                        return self._take_turn()
        except Timeout as error:
            return AttemptEnd(Failure.GAVE_UP, error.message)

    # -- the parts of `run`, which a GroupAttempt does for several indexes together --------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile no other switch of the index is attempted. Raises Timeout or EngineClosed."""
        with self._index.switch_lock(self._within(SWITCH_LOCK_S)):
            self._live_until = self._clock.monotonic() + LIVE_S
            yield

    def apply_paused(self) -> AbstractContextManager[None]:
        """Meanwhile no follower applies to the target. Raises Timeout."""
        return self._target.writer.pause_apply(self._within(PAUSE_S))

    def catch_up(self) -> int:
        """Apply what is newer beside the writers; returns the number of changes. Raises Timeout."""
        deadline = self._clock.monotonic() + self._within(CATCH_UP_S)
        return self._index.catch_up(self._target, self._heads.of(self._index.branch), deadline, self._live_until)

    def _within(self, limit_s: float) -> float:
        """A wait of at most so long, and not beyond the deadline."""
        return min(limit_s, self._deadline - self._clock.monotonic())

    def _come_near(self) -> None:
        """Each round leaves what was written during it: less than the round before, as long as applying is faster than
        writing."""
        for _ in range(NEAR_ROUNDS_MAX):
            if self.catch_up() <= NEAR_CHANGES:
                break

    @contextmanager
    def digest_kept(self) -> Iterator[None]:
        """Meanwhile the digest of the source is known at each moment."""
        with closing(KeptDigest(self._context.catalog, self._index.branch, self._target.writer.types)) as self._source:
            yield

    def _take_turn(self) -> AttemptEnd:
        failpoint("switch.near")
        reply: Reply[AttemptEnd | IndexRow] = Reply()
        now = self._clock.monotonic()
        self.be_ready(now)
        if self._begin_by < now:
            return self.late()
        self._send(CommitSwitch(self.prepare, self.work, self.settle, reply))
        if not reply.wait(self._begin_by - now) and reply.cancel():
            return self.late()
        ended: AttemptEnd | IndexRow = result_of(reply, COMMIT_TIMEOUT_S, "the switch")
        if isinstance(ended, IndexRow):
            return self.ended(ended)
        return ended

    def be_ready(self, now: float) -> float:
        """The turn is about to be asked for; returns the (monotonic) moment by which it has to begin."""
        self._begin_by = min(now + self._budget_s, self._deadline)
        return self._begin_by

    def ended(self, row: IndexRow) -> AttemptEnd:
        """How the attempt ended that stored this row."""
        self._end.commit_lsn = row.sealed_lsn
        return self._end

    # -- on the JournalWriter's thread -----------------------------------------------------------------------------

    def prepare(self) -> AttemptEnd | None:
        """Drain and prove; None when the switch may be committed. Nothing was changed otherwise."""
        self._begun = self._clock.monotonic()
        if self._begun > self._begin_by:
            return self.late()
        self._head, source = self._source.look()
        if self._head - self._target.applied_lsn > self._drain_lsns:
            return AttemptEnd(Failure.GAVE_UP, "too many changes came just before the switch")
        ends = self._begun + self._drain_s
        try:
            with impatient(self._drain_s):  # an index may ask another process about a text
                self._end.drained = self._index.catch_up(self._target, self._head, ends, min(ends, self._live_until))
        except Timeout:
            text = f"the last changes kept writers out for {self._drain_s * 1000:g} ms and were not all applied"
            return AttemptEnd(Failure.GAVE_UP, text, self._observe("sealed", self._begun))
        except InvalidTransition as error:  # an index in an unknown format cannot catch up
            return AttemptEnd(Failure.GAVE_UP, f"a change came that its builder has not applied: {error.message}")
        self._observe("switch_drain", self._begun)
        failpoint("switch.drained")
        drained = self._clock.monotonic()
        if self._target.writer.differing(source):
            if self._target.row.opaque:
                return AttemptEnd(Failure.UNSOUND, "the number of records differs from the source")
            text = f"the digest differs from the source; {REPAIR}, which derives that of the source from its records"
            return AttemptEnd(Failure.UNSOUND, f"{text}; if it repairs nothing, build the index again")
        self._observe("switch_proof", drained)
        failpoint("switch.proven")
        self._proven = self._clock.monotonic()
        return None

    def work(self, commit: Commit) -> IndexRow:
        """The transaction. Only as of the head that was proven (SW-3)."""
        head = commit.head(self._index.branch)[0]
        if head != self._head:
            raise StaleFence(f"the head is {head}, the shadow was proven at {self._head}", operation="switch")
        return self._transition(commit)

    def settle(self, row: IndexRow | None) -> None:
        """Behind the commit, in the same turn: the live pointer moves, if the catalog's did."""
        if not self._index.agree(self._context.catalog, self._generations, row):
            return
        self._publisher.pending.add((self._index.branch, self._index.index_type))  # the published path is to agree, too
        self._observe("switch_commit", self._proven)
        self._end.sealed_ms = self._observe("sealed", self._begun)
        failpoint("switch.pointed")

    def _observe(self, name: str, since: float) -> float:
        took_ms = (self._clock.monotonic() - since) * 1000
        self._context.metrics.observe(name, took_ms)
        return took_ms

    def late(self) -> AttemptEnd:
        """The turn did not begin in time."""
        if self._begin_by >= self._deadline:
            return AttemptEnd(Failure.GAVE_UP)
        budget = f"the {self._budget_s * 1000:g} ms that a switch waits for its turn (Config.seal_budget_ms)"
        return AttemptEnd(Failure.GAVE_UP, f"the commit of the writes before it took longer than {budget}")
