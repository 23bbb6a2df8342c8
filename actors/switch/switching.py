"""What the Switcher and the GroupSwitcher share: the look at the catalog, the claim of the reply, and what follows."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import msgspec

from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Kick
from shadowswitch.actors.maintenance.follower_pool import FollowerPause, FollowerPool
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.actors.switch.switch_run import SwitchRun
from shadowswitch.model.errors import ShadowSwitchError, StaleFence, Timeout
from shadowswitch.model.switch_outcome import Failure
from shadowswitch.storage.generations.generation import Generation

logger = logging.getLogger("shadowswitch")

REVERT_S = 10.0
"""A way back has at least so long, also past the deadline: no commit is left unverified, or unsound."""


class Claimable(Protocol):
    """A SwitchRun or a GroupRun."""

    reason: str

    def overdue(self, now: float) -> str:
        """Why the switch is given up, at a (monotonic) moment; or ""."""


class SwitchingActor(EngineActor):
    """Runs one switch and stops. Its subclass has the steps."""

    NAME: str
    MESSAGE: type[msgspec.Struct]
    """What `_run` takes."""

    def __init__(
        self,
        context: EngineContext,
        indexes: LiveIndexes,
        generations: OpenGenerations,
        heads: Heads,
        followers: FollowerPool,
        pause: FollowerPause,
        publisher: Publisher,
        switches: RunningSwitches,
        validator: ShadowValidator,
    ) -> None:
        super().__init__(self.NAME, context.crashed)
        self._context = context
        self._clock = context.clock
        self._indexes = indexes
        self._generations = generations
        self._heads = heads
        self._followers = followers
        self._pause = pause
        self._publisher = publisher
        self._switches = switches
        self._validator = validator
        self.handles(self.MESSAGE, self._run)

    def _run(self, message: Any) -> None:
        raise NotImplementedError

    def _live_before(self, target: Generation) -> tuple[int, Generation | None]:
        row = self._context.catalog.index(target.row.branch, target.row.index_type)
        number = row.live if row is not None else 0
        return number, self._generations.get(number)

    def _is_live(self, generation: Generation) -> bool:
        """By the catalog, which decides (IX-1)."""
        return self._live_before(generation)[0] == generation.row.number

    def _refuse_live(self, target: Generation) -> None:
        """Two switches of one target were asked for, and the first came to its end while the second waited."""
        if self._is_live(target):
            raise StaleFence(f"generation {target.row.number} is live already", operation="switch")

    def _claim(self, run: Claimable, reply: Reply[Any]) -> Failure:
        """The last step before the first attempt: a switch whose caller got its answer never takes effect."""
        run.reason = run.overdue(self._clock.monotonic())
        if not run.reason and not reply.set_running_or_notify_cancel():
            run.reason = run.overdue(math.inf)
        return Failure.GAVE_UP if run.reason else Failure.NONE

    def _kick(self, *generations: Generation | None) -> None:
        """A reader that waits for an LSN does not wait for the next tick of its follower."""
        for generation in generations:
            if generation is not None:
                self._followers.of(generation.row.number).tell(Kick(generation.row.branch))

    def _find_commit_lsn(self, run: SwitchRun) -> None:
        """The answer of an attempt may have been lost."""
        if not run.commit_lsn:
            row = self._context.catalog.index(run.target.row.branch, run.target.row.index_type)
            run.commit_lsn = row.sealed_lsn if row is not None else 0

    def _publish(self, run: SwitchRun, strategy: str, path: str) -> str:
        """Make a published path agree. A failure does not undo the switch; the Janitor tries again."""
        try:
            self._publisher.publish(run.message.branch_name, run.target, strategy)
        except (ShadowSwitchError, OSError) as error:
            logger.error("generation %d could not be published: %s", run.target.row.number, error)
            self._context.metrics.count("publish_errors")
            return f"; {path} could not be brought up to date: {error}"
        return ""

    def _transact_quietly(self, work: Any) -> None:
        try:
            self._context.transact(work, "end a switch")
        except (Timeout, ShadowSwitchError) as error:
            level = logging.INFO if self._context.changes.closing else logging.ERROR
            logger.log(level, "the switch ended, but that could not be recorded: %s", error)
