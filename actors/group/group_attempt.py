"""One attempt of the switch of a group: the attempts of its members in one turn of the JournalWriter.

Beside the writers: the switch lock of every index, in the order of branch and index type; then every target is brought
near, its followers pause, and the digest of its source is kept. In the turn: every target is drained and proven, one
transaction commits all, and the live pointers of all move before anything else is done.

The JournalWriter commits for all branches. So its turn is that of each branch, and the LSN at which a target is proven
is the head of its branch. A member that is not proven, and an error in the transaction, leave all as they were (GR-1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Lock

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import CommitSwitch
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.follower_pool import FollowerPause
from shadowswitch.actors.switch.attempt import COMMIT_TIMEOUT_S, NEAR_CHANGES, NEAR_ROUNDS_MAX, Attempt, AttemptEnd
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import Timeout
from shadowswitch.model.switch_outcome import Failure
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

Move = Callable[[Commit], IndexRow]
WITHDRAWAL_LOCK_S = 10.0


class Withdrawal:
    """A member of a group that goes back to no generation at all: there is nothing to prove."""

    def __init__(self, context: EngineContext, index: LiveIndex, generations: OpenGenerations, move: Move) -> None:
        self._catalog = context.catalog
        self._index = index
        self._generations = generations
        self.work = move

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile no other switch of the index is attempted. Raises Timeout or EngineClosed."""
        with self._index.switch_lock(WITHDRAWAL_LOCK_S):
            yield

    def settle(self, row: IndexRow | None) -> None:
        """Behind the commit, in the same turn: the live pointer moves."""
        self._index.agree(self._catalog, self._generations, row)


Member = tuple[str, Attempt | Withdrawal]


class GroupAttempt:
    """Runs once, on the thread of the GroupSwitcher and in a turn of the JournalWriter."""

    def __init__(
        self,
        context: EngineContext,
        members: Sequence[Member],
        pause: FollowerPause,
        together: Lock,
        transition: Callable[[Commit, Sequence[Move]], list[IndexRow]],
    ) -> None:
        """`members` have names for messages; `transition` makes the moves of the members, and that of the group."""
        self._context = context
        self._clock = context.clock
        self._members = [one for _, one in members]
        self._targets = [one for one in self._members if isinstance(one, Attempt)]
        self._names = {id(one): name for name, one in members}
        self._pause = pause
        self._together = together
        self._transition = transition

    def run(self) -> tuple[AttemptEnd, list[AttemptEnd]]:
        """How the attempt ended, and the ends of its members if it committed.

        Raises what the transaction raised: its outcome is for the catalog to say. Any other failure is returned.
        """
        try:
            with ExitStack() as held:
                for member in self._members:
                    held.enter_context(member.locked())
                for one in self._targets:
                    one.catch_up()
                held.enter_context(self._pause.paused())
                for one in self._targets:
                    held.enter_context(one.apply_paused())
                self._come_near()
                for one in self._targets:
                    held.enter_context(one.digest_kept())
                return self._take_turn()
        except Timeout as error:
            return AttemptEnd(Failure.GAVE_UP, error.message), []

    def _come_near(self) -> None:
        """As of one index, until a round leaves nothing for the drain of any."""
        for _ in range(NEAR_ROUNDS_MAX):
            if max(one.catch_up() for one in self._targets) <= NEAR_CHANGES:
                break

    def _take_turn(self) -> tuple[AttemptEnd, list[AttemptEnd]]:
        failpoint("switch.near")
        reply: Reply[AttemptEnd | list[IndexRow]] = Reply()
        now = self._clock.monotonic()
        begin_by = max(one.be_ready(now) for one in self._targets)
        if begin_by < now:
            return self._targets[0].late(), []
        self._context.journal.tell(CommitSwitch(self._prepare, self._work, self._settle, reply))
        if not reply.wait(begin_by - now) and reply.cancel():
            return self._targets[0].late(), []
        ended: AttemptEnd | list[IndexRow] = result_of(reply, COMMIT_TIMEOUT_S, "the switch of the group")
        if isinstance(ended, AttemptEnd):
            return ended, []
        pairs = zip(self._members, ended, strict=True)
        return AttemptEnd(), [one.ended(row) if isinstance(one, Attempt) else AttemptEnd() for one, row in pairs]

    # -- on the JournalWriter's thread -----------------------------------------------------------------------------

    def _prepare(self) -> AttemptEnd | None:
        """Drain and prove each; None when the group may be committed. Nothing was changed otherwise."""
        for one in self._targets:
            refusal = one.prepare()
            if refusal is not None:
                refusal.reason = f"{self._names[id(one)]}: {refusal.reason}" if refusal.reason else ""
                return refusal
        return None

    def _work(self, commit: Commit) -> list[IndexRow]:
        """The transaction: each member moves only as of the head at which it was proven (SW-3)."""
        return self._transition(commit, [one.work for one in self._members])

    def _settle(self, rows: list[IndexRow] | None) -> None:
        """Behind the commit, in the same turn: the live pointers move, if the catalog's did."""
        failpoint("group.committed")
        with self._together:
            for number, one in enumerate(self._members):
                one.settle(rows[number] if rows is not None else None)
                failpoint("group.pointed")
