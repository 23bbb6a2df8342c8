"""Recovery: the only way to start. Decides from what is durable, and from nothing else.

    found                       what it means                                  what is done
    shadow PREPARING            the directory may be half made                 built again from the beginning of
    preparing
    shadow BUILDING             workers died with the host                     goes on from what each shard has stored
    shadow PREPARING, external  nobody was told of its directory yet           its directory is made
    shadow BUILDING, external   its builder is another process                 left as it is; its time begins anew
    shadow BUILT                whole and waiting                              opened and followed
    shadow SWITCHING            the commit did not happen (else it would be    BUILT again
                                ACTIVE)
    generation live, soaking    served, kept                                   opened and followed; readers wait
    until it has
                                                                               the head as it was at this start
    generation retiring         marked, perhaps half removed                   the janitor goes on with it
    locks                       their holders may live                         kept, with one grace interval

What is decided is told and audited; a start that finds nothing to decide writes nothing.
Every step is one transaction or can be repeated, so recovery itself may be killed and run again.
A generation that does not open is condemned if it is not live. If it is live, the index is unavailable until it is
rebuilt, and says so.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from shadowswitch.actors.house import House
from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog import durability, transitions
from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import published_path
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.recount import Checked, CheckShards

logger = logging.getLogger("shadowswitch")

LOCKS_TOLD_MAX = 20
"""Of so many locks of a branch it is told one by one that they are kept."""


class Recovered:
    """What recovery found: generations to follow, builds to go on with, indexes that cannot be served."""

    def __init__(self) -> None:
        self.follow: list[Generation] = []
        self.resume: list[ShadowRow] = []
        self.broken: dict[tuple[int, str], str] = {}


def recover(house: House) -> Recovered:
    """Bring the catalog and the shelf to a state that the engine can run from. Before any actor but the
    JournalWriter's."""
    found = Recovered()
    _note_locks(house)
    for shadow in house.catalog.shadows():
        _recover_shadow(house, shadow, found)
    for row in house.catalog.generations():
        if row.role in ("live", "soaking", "standby"):
            _open(house, row, found)
    _note_boot(house, found.follow)
    removed = published_path.clean_staging(house.publisher.folder)
    if removed:
        house.transact(lambda c: transitions.note_recovered(c, "cleaned", "published", removed=removed), "recover")
    failpoint("recover.cleaned")
    for index in house.catalog.indexes():
        live = house.generations.get(index.live)
        if live is not None:
            head = house.catalog.head(index.branch)[0]
            house.indexes.of(index.branch, index.index_type).set_live(live, index.epoch, head)
            _publish(house, index, live)
    return found


def _publish(house: House, index: IndexRow, live: Generation) -> None:
    """A crash between the commit of a switch and its publication: the live pointer is the intent."""
    failpoint("recover.step")
    shadow = house.catalog.shadow(live.row.shadow_id)
    try:
        if house.publisher.publish(shadow.branch_name, live, index.strategy):
            house.transact(
                lambda c: transitions.note_recovery(c, "published", shadow, generation=index.live), "recover"
            )
    except (ShadowSwitchError, OSError) as error:
        logger.error("generation %d could not be published: %s", live.row.number, error)


def _recover_shadow(house: House, shadow: ShadowRow, found: Recovered) -> None:
    failpoint("recover.step")
    if shadow.state == ShadowState.SWITCHING:
        reason = "the host stopped before the switch was committed"
        house.transact(lambda c: transitions.give_up_switching(c, shadow.id, reason), "recover")
    elif shadow.state == ShadowState.PREPARING or (shadow.state == ShadowState.BUILDING and not shadow.external):
        house.transact(lambda c: transitions.note_recovery(c, "resumed", shadow), "recover")
        found.resume.append(shadow)
    elif shadow.state == ShadowState.BUILDING:
        house.transact(lambda c: transitions.note_recovery(c, "awaited", shadow), "recover")


def _note_locks(house: House) -> None:
    """Holders live on; they have one grace interval to be heard of."""
    for keeper in house.locks.all():
        held = [f"{lock.owner}: {lock.lock_type} {lock.target}" for lock in keeper.held.table.live(time.monotonic())]
        if held:
            more = [f"{len(held) - LOCKS_TOLD_MAX} more"] if len(held) > LOCKS_TOLD_MAX else []
            told = partial(
                transitions.note_recovered,
                what="locks_kept",
                subject=keeper.row.name,
                branch_name=keeper.row.name,
                locks=held[:LOCKS_TOLD_MAX] + more,
                grace_s=house.config.lock_grace_s,
            )
            house.transact(told, "recover")


def _check_after_power_cut(house: House, row: GenerationRow) -> None:
    """A shard that a power cut may have torn is read whole, in a worker process, before anybody is shown it."""
    backend = registry.backend(row.backend)
    if not backend.torn_by_power_cut or row.boot_id in ("", data_directory.boot_id()):
        return
    paths = [str(path) for path in data_directory.shard_paths(data_directory.inside(house.root, row.path), row.shards)]
    task = CheckShards(paths, row.backend, row.options)
    checked = house.validator.ask(task, Checked, time.monotonic() + house.config.validation_timeout_s)
    if checked.problems:
        raise CorruptData(f"the machine stopped while it was open, and it is torn: {'; '.join(checked.problems)}")
    shadow = house.catalog.shadow(row.shadow_id)
    house.transact(lambda c: transitions.note_recovery(c, "checked", shadow, generation=row.number), "recover")


def _note_boot(house: House, opened: list[Generation]) -> None:
    boot = data_directory.boot_id()
    numbers = [g.row.number for g in opened if g.backend.torn_by_power_cut and g.row.boot_id != boot]
    if numbers:
        house.transact(lambda c: durability.note_boot(c, numbers, boot), "recover")


def _open(house: House, row: GenerationRow, found: Recovered) -> None:
    if row.role in ("live", "soaking"):
        house.indexes.of(row.branch, row.index_type).expose(row.number)
    try:
        _check_after_power_cut(house, row)
        generation = house.generations.open(row)
        if not generation.writer.loaded and row.role != "building":
            raise CorruptData(f"generation {row.number} was never completed", object=row.path)
        found.follow.append(generation)
        failpoint("recover.opened")
    except (ShadowSwitchError, OSError) as error:
        logger.error("generation %d (%s) cannot be opened: %s", row.number, row.role, error)
        opened = house.generations.get(row.number)
        if opened is not None:
            house.generations.forget(row.number)
            opened.close()
        reason = f"it could not be opened: {error}"
        if row.role == "live":
            found.broken[row.branch, row.index_type] = reason
            shadow = house.catalog.shadow(row.shadow_id)
            house.transact(lambda c: transitions.note_recovery(c, "broken", shadow, reason=reason), "recover")
        elif row.role == "soaking":
            house.transact(lambda c: transitions.mark_unsound(c, row.number, reason), "recover")
        else:
            house.transact(lambda c: transitions.mark_failed(c, row.shadow_id, reason), "recover")
