"""Transitional: every collaborator of the engine's actors in one bag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowswitch.actors.branch.lock_registry import LockRegistry
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.maintenance.follower_pool import FollowerPause, FollowerPool
from shadowswitch.actors.maintenance.subscribers import Subscribers
from shadowswitch.actors.maintenance.watches import Watches
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches

if TYPE_CHECKING:
    from shadowswitch.actors.branch.router import BranchRouter
    from shadowswitch.actors.build.external import ExternalBuilds
    from shadowswitch.actors.build.registry import BuildRegistry
    from shadowswitch.actors.build.validator import ShadowValidator


class House:
    """Transitional: every collaborator of the engine's actors in one bag."""

    timers: Timers
    pool: WorkerPool
    validator: ShadowValidator
    builds: BuildRegistry
    router: BranchRouter
    dispatcher: Address
    janitor: Address
    scrubber: Address
    watcher: Address
    external: ExternalBuilds

    def __init__(self, context: EngineContext) -> None:
        self.context = context
        self.root, self.config, self.catalog = context.root, context.config, context.catalog
        self.metrics, self.clock, self.changes = context.metrics, context.clock, context.changes
        self.journal, self.crashed, self.transact = context.journal, context.crashed, context.transact
        self.heads = Heads(context.catalog)
        self.generations = OpenGenerations(context.root, context.catalog)
        self.indexes = LiveIndexes(context.clock, context.changes)
        self.publisher = Publisher(context.root, context.config, context.catalog, self.indexes)
        self.followers = FollowerPool(context.config.followers)
        self.pause = FollowerPause(context.clock, context.config.followers)
        self.running_builds = RunningBuilds()
        self.switches = RunningSwitches()
        self.locks = LockRegistry(self)  # type: ignore[arg-type]
        self.subscribers = Subscribers()
        self.watches = Watches()
