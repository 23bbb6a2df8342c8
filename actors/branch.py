"""The BranchActor: admits the writes of one branch and serialises its switches. One for each branch in use.

Its mailbox is the seal: it handles one message at a time, so while it handles `Seal` no write of the branch can be
admitted; the barrier through the JournalWriter's mailbox proves that all admitted ones are committed. Nothing has to be
unlocked afterwards, and no crash can leave a branch sealed.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from shadowswitch.actors.base import EngineActor
from shadowswitch.actors.branch_life import BranchLife
from shadowswitch.actors.house import House
from shadowswitch.actors.keepers import keeper_of
from shadowswitch.actors.lock_answers import LockAnswers
from shadowswitch.actors.messages import Append, Barrier, Seal, SealOutcome, Write
from shadowswitch.actors.reply import Reply
from shadowswitch.model.errors import ShadowSwitchError, Timeout
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage import transitions
from shadowswitch.storage.points import point
from shadowswitch.storage.rows import BranchRow, IndexRow

COMMIT_TIMEOUT_S = 600.0
"""A commit that has begun is waited for much longer than anything else: giving up would leave its outcome unknown, and
while the disk stalls nobody else could write either."""


class Load:
    """What a BranchActor was sent and has handled; when they are equal it has nothing to do."""

    def __init__(self) -> None:
        self.sent = 0
        self.handled = 0


class BranchActor(EngineActor):
    """Owns one branch: its locks, what may be written, and when it is sealed."""

    def __init__(self, house: House, row: BranchRow, load: Load) -> None:
        super().__init__(f"shadowswitch-branch-{row.number}", house.crashed)
        self._house = house
        self._row = row
        self._load = load
        self._locks = keeper_of(house, row)
        self.handles(Write, self._write)
        self.handles(Seal, self._seal)
        for part in (self._locks, LockAnswers(self._locks), BranchLife(house, self._locks)):
            for kind, handler in part.handlers().items():
                self.handles(kind, handler)

    def on_receive(self, message: Any) -> None:
        """Handle one message, and count it."""
        try:
            super().on_receive(message)
        finally:
            self._load.handled += 1

    def _write(self, message: Write) -> None:
        self._locks.admit(message)
        point("write.admitted")
        fence = partial(self._locks.fence, message.owner, message.tokens) if message.tokens else None
        self._house.journal.tell(Append(self._row.number, message.batch, message.reply, fence))

    def _seal(self, message: Seal) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        begun = time.perf_counter()
        try:
            outcome = self._drain_and_commit(message, begun)
        except Timeout as error:
            outcome = SealOutcome(False, _ms(begun), reason=error.message)
        except ShadowSwitchError as error:
            self._point_at_what_is_durable(message)
            message.reply.set_exception(error)
            return
        self._house.metrics.observe("sealed", outcome.sealed_ms)
        message.reply.set_result(outcome)

    def _drain_and_commit(self, message: Seal, begun: float) -> SealOutcome:
        deadline = time.monotonic() + message.budget_s
        target = message.target
        step = _Steps(self._house.metrics, begun)
        sealed_lsn = self._barrier(deadline, message.budget_s)
        step("seal_barrier")
        point("switch.sealed")
        drained = target.writer.apply_until(sealed_lsn, deadline)
        step("seal_drain")
        point("switch.drained")
        head, source = self._house.catalog.source_digest(self._row.number, set(target.writer.types))
        assert head == sealed_lsn, f"SW-3 the branch moved from {sealed_lsn} to {head} while it was sealed"
        differing = target.writer.differing(source)
        if differing:
            proof = "number of records" if target.row.opaque else "digest"
            return SealOutcome(
                False, _ms(begun), sealed_lsn, drained, f"the {proof} differs from the source", differing
            )
        step("seal_digest")
        if time.monotonic() > deadline:  # the last moment: a commit that has begun cannot be bounded any more
            return SealOutcome(False, _ms(begun), sealed_lsn, drained, _over(message.budget_s, "barrier and drain"))
        row = self._commit(message, sealed_lsn)
        step("seal_commit")
        point("switch.committed")
        self._house.shelf.point(self._row.number, target.row.index_type, target)
        target.advanced()
        point("switch.pointed")
        return SealOutcome(True, _ms(begun), sealed_lsn, drained, epoch=row.epoch)

    def _barrier(self, deadline: float, budget_s: float) -> int:
        """Wait until every admitted write is on disk; no longer than the budget, for writers wait, too."""
        reply: Reply[int] = Reply()
        self._house.journal.tell(Barrier(self._row.number, reply))
        try:
            return reply.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            reply.cancel()
            raise Timeout(_over(budget_s, "the commit of the writes before it"), operation="switch") from None

    def _commit(self, message: Seal, sealed_lsn: int) -> IndexRow:
        soak_s = self._house.config.soak_s
        number = message.target.row.number
        return self._house.transact(
            lambda commit: transitions.commit_switch(
                commit,
                number,
                message.token,
                message.expected_live,
                sealed_lsn,
                soak_s,
                message.strategy,
                message.audit,
                message.condemned,
            ),
            "switch",
            COMMIT_TIMEOUT_S,
        )

    def _point_at_what_is_durable(self, message: Seal) -> None:
        """After a commit of unknown outcome the catalog decides, not what this thread remembers (IX-1)."""
        index_type = message.target.row.index_type
        live = self._house.durable_live(self._row.number, index_type)
        self._house.shelf.point(self._row.number, index_type, live)
        if live is message.target:  # nobody else will tell outsiders: the switch did not come to its end
            self._house.unpublished.add((self._row.number, index_type))

    def recover(self, message: Any, error: BaseException) -> None:
        """The branch keeps nothing in memory that is not durable; only the pointer may have to be set right."""
        if isinstance(message, Seal):
            self._point_at_what_is_durable(message)


class _Steps:
    """Where the time of a seal goes: each call observes, in milliseconds, what passed since the last one."""

    def __init__(self, metrics: Metrics, begun: float) -> None:
        self._metrics = metrics
        self._last = begun

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self._metrics.observe(name, (now - self._last) * 1000)
        self._last = now


def _over(budget_s: float, what: str) -> str:
    return f"{what} took longer than the {budget_s * 1000:g} ms that writers may wait (Config.seal_budget_ms)"


def _ms(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
