"""What the actors of one engine share: the catalog, addresses, the shelf of open generations, settings,
measurements."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.kit.actor import Address, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.maintenance.subscribers import Subscribers
from shadowswitch.actors.maintenance.watches import Watches
from shadowswitch.actors.messages import Transact
from shadowswitch.actors.switch.live_index import Shelf
from shadowswitch.model.config import Config
from shadowswitch.model.errors import CorruptData, EngineClosed, Timeout
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.progress import ProgressMeter
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations import published_path
from shadowswitch.storage.generations.generation import Generation, GenerationWriter

if TYPE_CHECKING:
    from shadowswitch.actors.branch.locks import BranchLocks
    from shadowswitch.actors.build.external import ExternalBuilds

logger = logging.getLogger("shadowswitch")
T = TypeVar("T")
Validator = Callable[[IndexReader], Iterable[str]]

TRANSACT_TIMEOUT_S = 30.0
SWITCH_INTERVAL_S = 0.0005
"""While an index is switched a busy Python thread keeps the GIL for half a millisecond instead of five: a drain gives
it up a dozen times, and each time would wait that long to get it back."""

FOLLOWING_WAIT_S = 1.0
"""For so long a switch waits for followers that are at work; then it takes its chance."""
LIVE_S = 1.0
"""How long an attempt, or a validation, waits in all for a live generation that does not come on (`House.bring_on`)."""
LEAD_S = 10.0
"""How long readers may be waited for to be led to another generation before that is tried again."""
REST_S = 0.5
"""An attempt to switch takes a few milliseconds; on a stalled disk followers do not wait for it."""


class House:
    """Shared by all actors of an engine. Its parts are set up in `engine.engine`, in the order of its list."""

    catalog: Catalog
    timers: Timers
    pool: WorkerPool
    journal: Address
    followers: list[Address]
    dispatcher: Address
    janitor: Address
    rechecker: Address
    watcher: Address
    external: ExternalBuilds
    tell_branch: Callable[[BranchRow, Any], None]
    """Sends to a branch's actor; set by `Branches`."""
    tell_branch_soon: Callable[[BranchRow, Any], None]
    """The same for what can wait while too many branches are awake."""

    def __init__(self, root: Path, config: Config, crashed: Callable[[str, BaseException], None]) -> None:
        self.root = root
        self.config = config
        self.crashed = crashed
        self.metrics = Metrics()
        self.shelf = Shelf()
        self.heads: dict[int, int] = {}
        """The head LSN of each branch written to since the start; the catalog knows the others."""
        self.subscribers = Subscribers()
        self.watches = Watches()
        self.meters: dict[str, ProgressMeter] = {}
        """The progress of running builds, by shadow id."""
        self.validators: dict[str, Validator] = {}
        """Checks that the host registered, by name."""
        self.delays: dict[int, float] = {}
        """Seconds by which each write of a branch is slowed, while a build of it cannot keep up."""
        self.keepers: dict[int, BranchLocks] = {}
        """The locks of each branch that ever had any or whose actor runs, by branch number."""
        self.tracked: dict[int, tuple[str, ...]] = {}
        """The builds that make their branch READY when they are switched to, by branch number."""
        self.switching: dict[str, str] = {}
        """The shadows that Switchers are at work on, by the urn of the actor."""
        self.publishing = threading.Lock()
        """Held while a path for outsiders is brought up to date."""
        self.unpublished: set[tuple[int, str]] = set()
        """The indexes whose path for outsiders could not be brought up to date."""
        self.stuck: dict[str, str] = {}
        """Why a build stands still whose failure cannot even be recorded, by shadow id."""
        self.changed = threading.Condition()
        """Notified after every metadata transaction: something may have changed its state."""
        self.astray: dict[tuple[int, str], str] = {}
        """The indexes whose readers could not be led to what is live by the catalog, and why."""
        self.attempts = 0
        """How many switches are about to commit, or just did: followers rest meanwhile, for a while."""
        self.following = [threading.Lock() for _ in range(config.followers)]
        """Each is held while a follower is at work: a switch would share disk and processor with it."""
        self._attempts_since = 0.0
        self._attempts_lock = threading.Lock()
        self._switch_interval_s = sys.getswitchinterval()
        self.closing = False

    # -- transactions ----------------------------------------------------------------------------------------------

    def transact(self, work: Callable[[Commit], T], what: str, timeout_s: float = TRANSACT_TIMEOUT_S) -> T:
        """Do metadata work in a write transaction and wait for it to be durable. Not from the JournalWriter's
        thread."""
        if self.closing:
            raise EngineClosed("the engine is closed", operation=what, hint="open it again")
        reply: Reply[T] = Reply()
        self.journal.tell(Transact(work, reply))
        result: T = result_of(reply, timeout_s, what)
        return result

    def notify_changed(self) -> None:
        """Wake everybody who waits for a state."""
        with self.changed:
            self.changed.notify_all()

    def wait_changed(self, is_so: Callable[[], T | None], deadline: float | None, what: str) -> T:
        """Wait until `is_so` gives something; it is asked again after every metadata transaction.

        Raises Timeout at the (monotonic) deadline, EngineClosed when the engine closes, and what the disk did to the
        catalog when nothing can change any more.
        """
        while True:
            with self.changed:
                found = is_so()
                if found is not None:
                    return found
                if self.closing:
                    raise EngineClosed("the engine is closed", operation=what, hint="open it again")
                if self.catalog.failed is not None:
                    raise self.catalog.failed
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise Timeout(
                        f"{what}: the deadline passed", operation=what, hint="wait longer, or look at the status"
                    )
                self.changed.wait(min(left, 1.0))

    # -- generations -----------------------------------------------------------------------------------------------

    def head(self, branch: int) -> int:
        """The LSN of the last committed change of a branch."""
        head = self.heads.get(branch)
        return head if head is not None else self.catalog.head(branch)[0]

    def open_generation(self, row: GenerationRow) -> Generation:
        """Open a generation's writer and put it on the shelf. Raises CorruptData when it is not sound."""
        path = data_directory.inside(self.root, row.path)
        if not row.opaque:
            data_directory.refuse_links(path)
        backend = registry.backend(row.backend)
        generation = Generation(row, path, backend, GenerationWriter(self.catalog, row, path, backend))
        self.shelf.add(generation)
        return generation

    def follower_of(self, number: int) -> Address:
        """The follower that keeps a generation up with the journal; always the same one."""
        return self.followers[number % len(self.followers)]

    def publish(self, branch_name: str, generation: Generation, strategy: str) -> bool:
        """Make the path for outsiders lead to a live generation; after the switch, in nobody's way (IX-7).

        A copy is as of one LSN, and the generation goes on meanwhile. Raises ShadowSwitchError or OSError; the path
        then leads to what it led to before, and the janitor tries again. False when it led there already, or when the
        generation is not live any more.
        """
        row = generation.row
        key = (row.branch, row.index_type)
        with self.publishing:  # one after the other, so that a slow copy is never put in the place of a newer one
            if self.shelf.live.get(key) is not generation:
                return False
            self.unpublished.add(key)
            mark = published_path.identity(self.catalog.uuid, row.number)
            done = published_path.publish(
                self.published, branch_name, row.index_type, generation.path, mark, strategy, generation.copy_to
            )
            self.unpublished.discard(key)
        return done

    def is_published(self, branch_name: str, generation: Generation, strategy: str) -> bool:
        """Does the path for outsiders lead to this generation (IX-7)?"""
        path = published_path.published_path(self.published, branch_name, generation.row.index_type)
        mark = published_path.identity(self.catalog.uuid, generation.row.number)
        return published_path.is_published(path, generation.path, mark, strategy)

    def bring_on(self, generation: Generation, upto: int, deadline: float, live_until: float) -> int:
        """Apply up to an LSN, in the index's turn. What readers may hold is not brought ahead of what they get (SW-2):
        that comes first. Returns the number of changes; raises as `apply_until`.

        An index that is left because it is broken, or comes to nothing, is not waited for beyond `live_until`
        (monotonic). Then who kept a reader of the other since the last switch may see more in it than new readers do.
        """
        live = self.shelf.live.get((generation.row.branch, generation.row.index_type))
        if generation.served and live is not None and live is not generation and not live.row.opaque:
            try:
                live.writer.apply_until(upto, live_until)
            except Exception as error:  # whatever it is, it may be why this one is left
                logger.warning("generation %d stands still: %s", live.row.number, error)
        return generation.writer.apply_until(upto, deadline)

    @contextlib.contextmanager
    def nobody_sees_less(self, live: Generation | None, target: Generation, upto: int) -> Iterator[None]:
        """While readers still get `live`, a target that somebody may hold is brought up to an LSN (SW-2).

        Who comes meanwhile waits until he can be shown as much, or goes along when readers are led over. If the target
        does not get there, he needs to wait for no more than it has.
        """
        if live is None or live is target or live.row.opaque:
            yield
            return
        before, live.ready_lsn = live.ready_lsn, max(live.ready_lsn, upto)
        try:
            yield
        finally:
            if target.applied_lsn < upto:
                live.ready_lsn = max(before, target.applied_lsn)
                live.advanced()

    def lead_over(self, branch: int, index_type: str) -> None:
        """Readers get what is live by the catalog, which decides when memory may be wrong (IX-1).

        After a switch that did not come to its end. They stay where they are as long as the other cannot be brought to
        the head, or differs from its source there: then the janitor tries again. Any thread; raises nothing.
        """
        key = (branch, index_type)
        if self.closing:
            return
        with self._noting_who_is_astray(key), self.shelf.turn(branch, index_type, LEAD_S):
            self._lead(key)

    def lead_over_in_turn(self, branch: int, index_type: str) -> None:
        """The same for who has the index's turn, and holds both generations: nobody gets ahead meanwhile."""
        if self.closing:
            return
        with self._noting_who_is_astray((branch, index_type)):
            self._lead((branch, index_type))

    @contextlib.contextmanager
    def _noting_who_is_astray(self, key: tuple[int, str]) -> Iterator[None]:
        try:
            yield
            self.astray.pop(key, None)
        except BaseException as error:
            self.astray[key] = str(error) or repr(error)
            if not isinstance(error, Exception):
                raise
            logger.error("readers of %s cannot be led to what is live yet: %s", key[1], error)

    def _lead(self, key: tuple[int, str]) -> None:
        row, old = self.catalog.index(*key), self.shelf.live.get(key)
        live = self.shelf.open.get(row.live) if row is not None else None
        if row is None or live is old:
            return
        with contextlib.ExitStack() as holds:
            for generation in (live, old):
                if generation is not None:
                    holds.enter_context(generation.writer.held(LEAD_S))
            if live is not None and not live.row.opaque:
                self._bring_to_head(live, old)
            self.unpublished.add(key)
            self.shelf.point(*key, live, row.epoch)
        logger.warning("readers of %s were led from generation %s to %d", key[1], _number(old), row.live)

    def _bring_to_head(self, live: Generation, old: Generation | None) -> None:
        """To the head, so that nobody is shown less than before (SW-2), and proven there (SW-3)."""
        head, source = self.catalog.source_digest(live.row.branch, set(live.writer.types))
        deadline = time.monotonic() + LEAD_S
        if old is not None and not old.row.opaque:
            live.writer.apply_until(min(head, old.applied_lsn), deadline)
        with self.nobody_sees_less(old, live, head):  # what was written since the two are held
            live.writer.apply_until(head, deadline)
        differing = live.writer.differing(source)
        if differing:
            raise CorruptData(
                f"buckets {differing} of generation {live.row.number} differ from their source",
                operation="switch",
                hint="roll back, or rebuild the index",
            )

    def lead_away_from(self, old: Generation) -> None:
        """A generation that is about to be removed must not be where readers are led to: what they get instead is shown
        once it has come as far. Raises Timeout when it is written to without an end."""
        key = (old.row.branch, old.row.index_type)
        row = self.catalog.index(*key)
        if row is None or self.shelf.live.get(key) is not old:
            return
        live = self.shelf.open.get(row.live)
        if live is not old:
            with old.writer.held(LEAD_S):
                if live is not None and not live.row.opaque:
                    live.ready_lsn = max(live.ready_lsn, row.sealed_lsn, old.applied_lsn)
                self.shelf.point(*key, live, row.epoch)
            self.unpublished.add(key)

    def is_way_of_outsiders(self, row: GenerationRow, path: Path) -> bool:
        """Does the path for outsiders still lead into these files, while the index is served? They stay until it
        leads elsewhere (IX-7)."""
        if self.shelf.live.get((row.branch, row.index_type)) is None:
            return False
        shadow = self.catalog.find_shadow(row.shadow_id)
        if shadow is None:
            return False
        way = published_path.published_path(self.published, shadow.branch_name, row.index_type)
        return way.is_symlink() and os.path.realpath(way) == os.path.realpath(path)

    @property
    def published(self) -> Path:
        """The folder of the paths for outsiders."""
        return Path(self.config.published_path) if self.config.published_path else self.root / published_path.PUBLISHED

    def before_switch(self) -> None:
        """From now on followers begin no new work; waits a while for those who are at it."""
        with self._attempts_lock:
            self.attempts += 1
            self._attempts_since = time.monotonic()
            if self.attempts == 1:
                self._switch_interval_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._switch_interval_s, SWITCH_INTERVAL_S))
        until = time.monotonic() + FOLLOWING_WAIT_S
        for at_work in self.following:
            if at_work.acquire(timeout=max(0.0, until - time.monotonic())):
                at_work.release()

    @property
    def resting(self) -> bool:
        """Should followers leave disk and processor to a switch? Not for long: readers wait for what they do."""
        return self.attempts > 0 and time.monotonic() < self._attempts_since + REST_S

    def after_switch(self) -> None:
        """The attempt is over."""
        with self._attempts_lock:
            self.attempts -= 1
            if self.attempts == 0:
                sys.setswitchinterval(self._switch_interval_s)

    def log(self, message: str, *details: Any) -> None:
        """One line for operators."""
        logger.info(message, *details)


def _number(generation: Generation | None) -> str:
    return str(generation.row.number) if generation is not None else "none"
