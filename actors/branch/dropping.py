"""The drop of a branch, as its BranchActor sees it: what uses the branch, and the last message that it handles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shadowswitch.actors.branch.locks import BranchLocks
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit

DROP_TIMEOUT_S = 30.0


class DropBranch(msgspec.Struct, frozen=True):
    """To a BranchActor: drop the branch, unless it is in use. Reply: None, or InUse.

    Locks of an owner in `own` are no use. `work` makes the transaction, which is given the other uses and adds the
    builds. `settle` makes what is in memory agree with the catalog behind it, on the thread of the JournalWriter.
    """

    own: tuple[str, ...]
    work: Callable[[list[str]], Callable[[Commit], Any]]
    settle: Callable[[IndexRow | None], object]
    reply: Reply[None]


def uses_of(catalog: Catalog, locks: BranchLocks, switches: RunningSwitches, own: tuple[str, ...]) -> list[str]:
    """Everything that uses a branch but builds, which the transaction of the drop looks for."""
    return [*_uses_of_locks(locks, own), *_uses_of_switches(catalog, locks.row.number, switches)]


def _uses_of_locks(locks: BranchLocks, own: tuple[str, ...]) -> Iterator[str]:
    now, _ = locks.moment()
    table, status = locks.held.table, locks.held.status
    for lock in table.live(now):
        if lock.owner not in own:
            yield f"{lock.owner} holds the lock {lock.lock_id} ({lock.lock_type} {lock.target})"
    for waiter in table.waiters:
        yield f"{waiter.owner} waits for a lock"
    for work in status.indexing:
        if not work.lock_id and not work.shadow_id and work.owner not in own:
            yield f"{work.owner} indexes {work.name}"


def _uses_of_switches(catalog: Catalog, branch: int, switches: RunningSwitches) -> Iterator[str]:
    for kind, text in switched(catalog, branch, switches):
        yield f"{text} of {kind}"


def switched(catalog: Catalog, branch: int, switches: RunningSwitches) -> list[tuple[str, str]]:
    """The index types of a branch that a Switcher is at work on, each with that as a use. Any thread."""
    shadows = [catalog.find_shadow(shadow_id) for shadow_id in switches.shadows()]
    return [
        (shadow.index_type, f"a switch to shadow {shadow.id} runs")
        for shadow in shadows
        if shadow is not None and shadow.branch == branch
    ]
