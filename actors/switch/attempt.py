"""One attempt of a switch: prove the shadow, commit, bring in the last changes, lead readers over. Writers are not held
up: what they meet is one transaction more in the line of the JournalWriter.

    close    the shadow is brought near the head, again and again; from here on only this attempt applies to it
    hold     the live generation is not brought further either, so the shadow is never behind what readers saw (SW-2)
    prove    at a durable LSN H: the shadow's digest is that of its source, bucket by bucket
    commit   one transaction, behind every write that the BranchActor admitted before it; Z is the head of the branch in
             that very transaction, so nothing can come between (SW-3). Begins within `Config.seal_budget_ms`, or never
    drain    the changes after H, up to Z; proven again, at Z
    point    readers are led over

When the drain or the proof at Z fails, the shadow is live by the catalog and unfit: the Switcher goes back, and readers
of this process were never led there. Whatever else ends an attempt after its commit, `House.lead_over` sets the pointer
right.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.context import LIVE_S, House
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import Kick, RunSwitch, Seal
from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import EngineClosed, ShadowSwitchError, StorageFull, Timeout
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

CATCH_UP_S = 5.0
CLOSE_ROUNDS_MAX = 30
CLOSE_CHANGES = 1
TURN_S = 30.0
"""How long to wait for another switch of the index; then the attempt is given up."""
DRAIN_S = 10.0
"""The changes of one or two commits take milliseconds; an index that needs longer for them is stuck."""
AGAIN_S = 0.1
"""How soon a drain is tried again for which the disk had no room."""
COMMIT_TIMEOUT_S = 600.0
"""A commit that has begun is waited for much longer than anything else: giving up would leave its outcome unknown, and
while the disk stalls nobody else could write either."""


class Outcome:
    """How an attempt ended: committed, given up (`reason`), or refused because the shadow is unsound (`differing`).

    Committed and with a reason: the shadow is live by the catalog, and readers of this process were not led to it,
    because it could not be brought on, or is unsound (`differing`).
    """

    def __init__(self, reason: str = "", *, differing: bool = False) -> None:
        self.reason = reason
        self.differing = differing
        self.committed = False
        self.passing = False
        """Committed, and what stands in the way is no room, or no time: readers can be led over when that is over."""
        self.sealed_ms = 0.0
        """How long the transaction with the switch took: no write could become durable meanwhile, unless in it."""
        self.sealed_lsn = 0
        self.drained = 0


class Attempt:
    """On the Switcher's thread."""

    def __init__(
        self, house: House, branches: BranchRouter, message: RunSwitch, expected_live: int, audit: dict[str, Any]
    ) -> None:
        self._house = house
        self._branches = branches
        self._message = message
        self._target = message.target
        self._writer = message.target.writer
        self._branch = message.target.row.branch
        self._key = (self._branch, message.target.row.index_type)
        self._expected_live = expected_live
        self._audit = audit
        self._was_served = message.target.served
        self._budget_s = house.config.seal_budget_ms / 1000
        self._live_until = 0.0
        self._outcome = Outcome()
        self._step = _Steps(house.metrics)

    def run(self) -> Outcome:
        """Raises Timeout when the shadow cannot be brought near, ShadowSwitchError when the commit was refused or its
        outcome is unknown; nothing was changed before the commit."""
        with self._house.shelf.turn(*self._key, TURN_S):
            self._live_until = time.monotonic() + LIVE_S
            self._bring_on(self._house.head(self._branch), time.monotonic() + CATCH_UP_S)
            self._house.before_switch()
            try:
                with self._writer.held():
                    self._come_close()
                    return self._in_turn()
            finally:
                self._house.after_switch()
                for generation in (self._target, self._house.shelf.open.get(self._expected_live)):
                    if generation is not None:  # who waits for an LSN does not wait for the next tick
                        self._house.follower_of(generation.row.number).tell(Kick(self._branch))

    def _bring_on(self, upto: int, deadline: float) -> int:
        return self._house.bring_on(self._target, upto, deadline, self._live_until)

    def _come_close(self) -> None:
        """Apply again and again: each round leaves what was written during it, which is less than the round before as
        long as applying is faster than writing."""
        deadline = time.monotonic() + CATCH_UP_S
        for _ in range(CLOSE_ROUNDS_MAX):
            if self._bring_on(self._house.head(self._branch), deadline) <= CLOSE_CHANGES:
                break

    def _in_turn(self) -> Outcome:
        shelf = self._house.shelf
        with ExitStack() as holds:
            for left in (shelf.live.get(self._key), shelf.open.get(self._expected_live)):
                if left is not None:  # one and the same, unless the last switch came to no good end
                    holds.enter_context(left.writer.held())
            self._step.begin()
            source = self._prove()
            self._step("switch_proof")
            if self._outcome.reason:
                return self._outcome
            failpoint("switch.proven")
            sealed = self._commit(source)
            if sealed is not None:
                try:
                    self._finish(*sealed)
                except BaseException:
                    self._house.lead_over_in_turn(*self._key)
                    raise
        return self._outcome

    def _prove(self) -> Digest:
        """Compare the shadow with its source at the durable head; of that one, the digest."""
        head, source = self._house.catalog.source_digest(self._branch, set(self._writer.types))
        self._bring_on(head, time.monotonic() + CATCH_UP_S)
        self._compare(source, "")
        return source

    def _compare(self, source: Digest, when: str) -> None:
        if self._writer.differing(source):
            proof = "number of records" if self._target.row.opaque else "digest"
            self._outcome.reason = f"the {proof} differs from the source{when}"
            self._outcome.differing = True

    # -- the commit ------------------------------------------------------------------------------------------------

    def _commit(self, proven: Digest) -> tuple[IndexRow, Digest] | None:
        """Make the shadow live, as of all that is committed before or with it; None when it was given up.

        Not begun after the budget is over; a commit that has begun is waited for.
        """
        deadline = time.monotonic() + self._budget_s
        token = self._house.catalog.shadow(self._message.shadow_id).token
        last: list[Commit] = []
        self._target.served = True  # outsiders are led to it by the commit

        def work(commit: Commit) -> tuple[IndexRow, Digest] | str:
            last[:] = [commit]
            if time.monotonic() > deadline:
                return self._late()
            source = commit.source_digest(self._branch, self._writer.types)
            if self._target.row.opaque and source != proven:
                return "a change came that its builder has not applied"
            return self._transition(commit, token), source

        reply: Reply[tuple[IndexRow, Digest] | str] = Reply()
        self._branches.tell(self._house.catalog.branch(self._message.branch_name), Seal(work, reply))
        if not reply.wait(self._budget_s) and reply.cancel():
            self._not_begun(self._late())
            return None
        found: tuple[IndexRow, Digest] | str = result_of(reply, COMMIT_TIMEOUT_S, "the switch")
        self._step("switch_commit")
        if isinstance(found, str):
            self._not_begun(found)
            return None
        self._outcome.committed = True
        self._outcome.sealed_lsn = found[0].sealed_lsn
        self._outcome.sealed_ms = last[0].took_ms
        self._house.metrics.observe("sealed", self._outcome.sealed_ms)
        return found

    def _not_begun(self, reason: str) -> None:
        """Outsiders were not led to it either."""
        self._target.served = self._was_served
        self._outcome.reason = reason

    def _transition(self, commit: Commit, token: int) -> IndexRow:
        message, config = self._message, self._house.config
        return transitions.commit_switch(
            commit,
            self._target.row.number,
            token,
            self._expected_live,
            commit.head(self._branch)[0],
            config.soak_s,
            message.request.strategy or config.publish_strategy,
            self._audit,
            message.condemned,
        )

    def _late(self) -> str:
        budget = f"the {self._budget_s * 1000:g} ms that a switch waits for its turn (Config.seal_budget_ms)"
        return f"the commit of the writes before it took longer than {budget}"

    # -- behind it -------------------------------------------------------------------------------------------------

    def _finish(self, row: IndexRow, source: Digest) -> None:
        """Bring in what came between the proof and the commit, prove it, and lead readers over."""
        failpoint("switch.committed")
        self._drain(row.sealed_lsn)
        if not self._outcome.reason:
            self._compare(source, " after the last changes")
        if self._outcome.reason:
            return
        failpoint("switch.drained")
        self._house.unpublished.add(self._key)  # until `House.publish` has led outsiders over, too
        self._house.shelf.point(*self._key, self._target, row.epoch)
        self._target.advanced()
        self._step("switch_drain")
        failpoint("switch.pointed")

    def _drain(self, upto: int) -> None:
        if self._target.row.opaque:
            self._writer.advance_to(upto)  # or it would not have been committed
            return
        ends = time.monotonic() + DRAIN_S
        live = self._house.shelf.live.get(self._key) if self._was_served else None
        while True:
            try:
                with self._house.nobody_sees_less(live, self._target, upto):  # outsiders are led to it already
                    self._outcome.drained += self._writer.apply_until(upto, ends)
                return
            except EngineClosed:
                raise
            except ShadowSwitchError as error:
                if not isinstance(error, StorageFull) or time.monotonic() > ends:
                    self._outcome.reason = f"the last changes cannot be brought in: {error}"
                    self._outcome.passing = isinstance(error, StorageFull | Timeout)
                    return
            time.sleep(AGAIN_S)


class _Steps:
    """Where the time of an attempt goes: each call observes, in milliseconds, what passed since the last one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last = 0.0

    def begin(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self._metrics.observe(name, (now - self._last) * 1000)
        self._last = now
