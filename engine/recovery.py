"""Recovery: the only way to start. It decides from what is durable, and from nothing else.

    found                       meaning                                        action
    shadow PREPARING            the directory may be half made                 built again from the beginning
    shadow BUILDING             the workers died with the host                 goes on from what each shard has stored
    shadow paused               a caller let it stand still                    stays paused
    shadow PREPARING, external  its builder does not know its directory yet    its directory is made
    shadow BUILDING, external   its builder is another process                 left as it is; its timeout begins anew
    shadow BUILT                complete, not switched to                      opened and followed
    shadow SWITCHING            the switch was not committed                   BUILT again
    generation live, soaking    served, kept                                   opened and followed; the read floor is
                                                                               the head of the branch at this start
    any, ahead of its branch    the catalog is older: a backup was put back    not served; a build begins again
    generation retiring         marked, perhaps half removed                   the Janitor goes on with it
    locks                       their holders may live                         kept, with one grace interval
    counters, heads             wrong: below what is in use, or beyond it      derived again from rows and journal

Each decision is an event and an audit row. A start without a decision writes nothing.
Every step is one transaction or can be repeated, so recovery itself may be killed and run again.
A generation that does not open becomes unsound if it is not live. If it is live, its index is not served until it is
rebuilt, and a reader gets the reason. A missing permission, EIO, or a look that ends without an answer says nothing
about what its files hold: it is not opened, and stays as it is. Any other resource that cannot be had ends the start.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial

from shadowswitch.actors.branch.lock_registry import LockRegistry
from shadowswitch.actors.build.disk_check import read_first
from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.model.errors import CorruptData, InternalFailure, ShadowSwitchError, Timeout
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory, disk
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Probing
from shadowswitch.storage.catalog import retention, transitions
from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.clock import Moment
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import adoption, published_path
from shadowswitch.storage.generations.directory import MANIFEST, shard_paths
from shadowswitch.storage.generations.generation import Generation, create
from shadowswitch.storage.generations.manifest import check_manifest
from shadowswitch.storage.repair.repair import Repair
from shadowswitch.storage.shortages import is_permission, shortage

logger = logging.getLogger("shadowswitch")

LOCKS_NAMED_MAX = 20
"""The event of a branch whose locks are kept names so many of them."""


@dataclass
class Recovered:
    """The findings of recovery that the start goes on with."""

    resume: list[ShadowRow] = field(default_factory=list)
    """Builds to go on with."""
    left: list[ShadowRow] = field(default_factory=list)
    """Built by a `rebuild` whose host stopped before the switch."""
    broken: dict[tuple[int, str], str] = field(default_factory=dict)
    """By branch and index type, the reason why an index is not served."""


class IndexAhead(CorruptData):
    """An index has changes that its branch has not."""


class Recovery:
    """Brings the catalog and what is open to a state that the engine can run from.

    It runs before any actor but the JournalWriter.
    """

    def __init__(
        self,
        context: EngineContext,
        generations: OpenGenerations,
        indexes: LiveIndexes,
        publisher: Publisher,
        validator: ShadowValidator,
        locks: LockRegistry,
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._clock = context.clock
        self._generations = generations
        self._indexes = indexes
        self._publisher = publisher
        self._validator = validator
        self._locks = locks
        self._found = Recovered()

    def run(self) -> Recovered:
        """Recover. Raises CorruptData when the locks do not decode, StorageFull, ResourceExhausted."""
        for repaired in self._repair_numbers():
            logger.error("%s", repaired)
        self._locks.load()
        self._note_locks()
        for shadow in self._context.shadows.standing():
            self._recover_shadow(shadow)
        for number in [row.number for row in self._catalog.generations()]:
            row = self._catalog.generation(number)  # another one that does not open may have retired it
            if row is not None and row.role in ("live", "soaking", "standby"):
                self._open(row)
        self._note_boot()
        self._carry_over()
        removed = self._clean_staging()
        if removed:
            self._context.transact(
                lambda c: transitions.note_recovered(c, "cleaned", "published", removed=removed), "recover"
            )
        failpoint("recover.cleaned")
        for index in self._catalog.indexes():
            live = self._generations.get(index.live)
            if index.withdrawn:
                self._found.broken[index.branch, index.index_type] = index.withdrawn
            if live is not None:
                head = self._catalog.head(index.branch)[0]
                self._indexes.of(index.branch, index.index_type).set_live(live, index.epoch, head)
                self._publish(index, live)
        return self._found

    def _clean_staging(self) -> list[str]:
        try:
            return published_path.clean_staging(self._publisher.folder)
        except OSError as error:
            _end_start_if_short(error, "clean", str(self._publisher.folder))
            logger.error("the files of a publication that was cut off were not removed: %s", error)
            return []

    def _repair_numbers(self) -> list[Finding]:
        context = self._context
        repair = Repair(self._catalog, context.root, context.transact, "recovery", "the start")
        return repair.run_at_start(context.shadows.token())

    def _publish(self, index: IndexRow, live: Generation) -> None:
        """Complete a publication that a crash cut off behind the commit of its switch: the live pointer decides."""
        failpoint("recover.step")
        shadow = self._catalog.shadow(live.row.shadow_id)
        try:
            if self._publisher.publish(shadow.branch_name, live, index.strategy):
                self._context.transact(
                    lambda c: transitions.note_recovery(c, "published", shadow, generation=index.live), "recover"
                )
        except (ShadowSwitchError, OSError) as error:
            logger.error("generation %d could not be published: %s", live.row.number, error)

    def _recover_shadow(self, shadow: ShadowRow) -> None:
        failpoint("recover.step")
        transact = self._context.transact
        spec = self._catalog.generation(shadow.generation) if shadow.external else None
        if spec is not None:
            ended = adoption.put_back if shadow.state == ShadowState.BUILDING else adoption.end
            try:
                ended(data_directory.inside(self._context.root, spec.path))
            except (ShadowSwitchError, OSError) as error:
                _end_start_if_short(error, "put back", spec.path)
                logger.error("the directory of shadow %s is not as its builder delivered it: %s", shadow.id, error)
        if shadow.state == ShadowState.SWITCHING:
            reason = "the host stopped before the switch was committed"
            transact(lambda c: transitions.give_up_switching(c, shadow.id, reason), "recover")
        elif shadow.state == ShadowState.PREPARING or (shadow.state == ShadowState.BUILDING and not shadow.external):
            self._begin_again_if_ahead(shadow)
            if not shadow.paused_by:
                transact(lambda c: transitions.note_recovery(c, "resumed", shadow), "recover")
                self._found.resume.append(shadow)
        elif shadow.state == ShadowState.BUILDING:
            transact(lambda c: transitions.note_recovery(c, "awaited", shadow), "recover")
        elif shadow.state == ShadowState.FAILED:
            self._begin_again_if_ahead(shadow)
        if shadow.of_rebuild and shadow.state in (ShadowState.BUILT, ShadowState.SWITCHING):
            self._found.left.append(shadow)

    def _begin_again_if_ahead(self, shadow: ShadowRow) -> None:
        """A build, or a retry, goes on from what its shards have stored, unless its branch does not have that."""
        row = self._catalog.generation(shadow.generation)
        if row is None or row.opaque:
            return
        path, backend = self._context.root / row.path, registry.backend(row.backend)
        try:
            if not (data_directory.inside(self._context.root, row.path) / MANIFEST).exists():
                return  # the builder makes the directory
            problems = self._read_first(row, probe=True) if isinstance(backend, Probing) else ""
            if problems:
                raise CorruptData(problems, object=row.path)
            with contextlib.closing(backend.open_reader(shard_paths(path, row.shards), row.options)) as reader:
                for shard in range(row.shards):
                    self._refuse_ahead(row, reader.shard_snapshot(shard)[0].applied_lsn)
        except CorruptData as error:
            barred = disk.failed_read(error, path)
            if barred is not None:
                logger.warning("the shards of generation %d could not be looked at: %s", row.number, barred)
                return
            logger.warning("the build of generation %d begins again: %s", row.number, error)
            if shadow.state == ShadowState.BUILDING:
                context = self._context
                create(context.root, row, shadow.branch_name, self._catalog.uuid, backend, context.hold.check)
            else:
                self._context.hold.check()
                (path / MANIFEST).unlink(missing_ok=True)
        except (ShadowSwitchError, OSError) as error:
            logger.warning("the shards of generation %d could not be looked at: %s", row.number, error)

    def _note_locks(self) -> None:
        """Each holder has one grace interval to give a sign of life; the event names the locks that are kept."""
        for locks in self._locks.all():
            live = locks.held.table.live(self._clock.monotonic())
            held = [f"{lock.owner}: {lock.lock_type} {lock.target}" for lock in live]
            if held:
                more = [f"{len(held) - LOCKS_NAMED_MAX} more"] if len(held) > LOCKS_NAMED_MAX else []
                note = partial(
                    transitions.note_recovered,
                    what="locks_kept",
                    subject=locks.row.name,
                    branch_name=locks.row.name,
                    locks=held[:LOCKS_NAMED_MAX] + more,
                    grace_s=self._context.config.lock_grace_s,
                )
                self._context.transact(note, "recover")

    def _check_before_opening(self, row: GenerationRow) -> None:
        """A worker process reads every shard that may end its reader before the host opens it: each page, and after a
        power cut each row of a shard that may be torn."""
        backend = registry.backend(row.backend)
        torn = backend.torn_by_power_cut and row.boot_id not in ("", self._clock.boot())
        if not torn and not isinstance(backend, Probing):
            return
        check_manifest(data_directory.inside(self._context.root, row.path), row, self._catalog.uuid)
        problems = self._read_first(row, probe=not torn)
        if problems:
            text = f"the machine stopped while it was open, and it is torn: {problems}" if torn else problems
            raise CorruptData(text, object=row.path, hint="rebuild the index; its records are safe in the catalog")
        if not torn:
            return
        shadow = self._catalog.shadow(row.shadow_id)
        self._context.transact(
            lambda c: transitions.note_recovery(c, "checked", shadow, generation=row.number), "recover"
        )

    def _read_first(self, row: GenerationRow, probe: bool) -> str:
        """What a worker process finds in the shards of a generation."""
        return read_first(self._validator.answers, self._context.root, row, probe=probe)

    def _note_boot(self) -> None:
        """Note the boot in which a generation is open, before it can be torn by the end of this boot."""
        boot = self._clock.boot()
        opened = self._generations.all()
        numbers = [g.row.number for g in opened if g.backend.torn_by_power_cut and g.row.boot_id != boot]
        if numbers:
            self._context.transact(lambda c: retention.note_boot(c, numbers, boot), "recover")

    def _carry_over(self) -> None:
        """After a reboot, or an older version, which stored wall times: what lasts begins again."""

        def is_foreign(moment: Moment | None) -> bool:
            return moment is None or self._clock.seconds_until(moment) is None

        rows = self._catalog.generations()
        shadows = self._context.shadows.standing({*UNDER_WAY, ShadowState.FAILED})
        soaking = [row.number for row in rows if row.role == "soaking" and is_foreign(row.soak_ends)]
        failed = [row.id for row in shadows if row.state == ShadowState.FAILED and is_foreign(row.failed_at)]
        planned = [row.id for row in shadows if row.plan is not None and is_foreign(row.plan.latest)]
        for shadow_id in planned:
            self._context.transact(partial(transitions.carry_over_plan, shadow_id=shadow_id), "recover")
        if soaking or failed:
            soak_s = self._context.config.soak_s
            self._context.transact(lambda c: retention.carry_over(c, soaking, failed, soak_s), "recover")

    def _open(self, row: GenerationRow) -> None:
        if row.role in ("live", "soaking"):
            self._indexes.of(row.branch, row.index_type).expose(row.number)
        try:
            self._check_before_opening(row)
            generation = self._generations.open(row)
            if not generation.writer.loaded and row.role != "building":
                raise CorruptData(f"generation {row.number} was never completed", object=row.path)
            self._refuse_ahead(row, generation.writer.newest_lsn)
            failpoint("recover.opened")
        except (ShadowSwitchError, OSError) as error:
            logger.error("generation %d (%s) cannot be opened: %s", row.number, row.role, error)
            opened = self._generations.get(row.number)
            if opened is not None:
                self._generations.forget(row.number)
                opened.close()
            _end_start_if_short(error, "open", row.path)
            barred = shortage(error) or disk.failed_read(error, self._context.root / row.path)
            if barred is not None or isinstance(error, Timeout | InternalFailure):
                self._note_unread(row, barred or error)
            else:
                self._note_unopened(row, f"it could not be opened: {error}", isinstance(error, IndexAhead))

    def _refuse_ahead(self, row: GenerationRow, applied_lsn: int) -> None:
        """Raise IndexAhead for an index that has changes which its branch has not: their LSNs are given again (ST-6).

        A change is durable in the catalog before an index has it, so the catalog is older than the index.
        """
        head = self._catalog.head(row.branch)[0]
        if applied_lsn > head:
            raise IndexAhead(
                f"generation {row.number} is at LSN {applied_lsn}, its branch at {head}: the catalog is older than the"
                " index (was a backup of it put back?)",
                object=row.path,
                hint="rebuild the index; writes that the catalog does not have are in no backup of it",
            )

    def _note_unread(self, row: GenerationRow, error: Exception) -> None:
        """Nothing is decided about the generation: the next start finds it as it is."""
        reason = (
            f"generation {row.number} could not be read ({error}) and was left as it is: give the user of this process"
            " access to its files, or check the disk, then open the engine again"
        )
        self._generations.unread[row.number] = reason
        if row.role == "live":
            self._found.broken[row.branch, row.index_type] = reason
        shadow = self._catalog.shadow(row.shadow_id)
        note = partial(transitions.note_recovery, what="broken", shadow=shadow, generation=row.number, reason=reason)
        self._context.transact(note, "recover")

    def _note_unopened(self, row: GenerationRow, reason: str, is_ahead: bool) -> None:
        """What is ahead of its branch retires, also the live one: new writes will pass its LSN, and hide that."""
        transact = self._context.transact
        if row.role == "live":
            self._found.broken[row.branch, row.index_type] = reason
            if is_ahead:
                transact(lambda c: transitions.withdraw_live(c, row.number, reason, served=True), "recover")
            shadow = self._catalog.shadow(row.shadow_id)
            transact(lambda c: transitions.note_recovery(c, "broken", shadow, reason=reason), "recover")
        elif row.role == "soaking":
            transact(lambda c: transitions.mark_unsound(c, row.number, reason), "recover")
        else:
            transact(lambda c: transitions.mark_failed(c, row.shadow_id, reason), "recover")
            self._begin_again_if_ahead(self._catalog.shadow(row.shadow_id))


def _end_start_if_short(error: Exception, operation: str, object: str) -> None:
    """Raise a shortage: it says nothing about the generation, and the next start finds it as it is.

    A missing permission does not end the start: it is that of one file, and everything else can be served.
    """
    lack = shortage(error, operation, object)
    if lack is not None and not is_permission(lack):
        raise lack from error
