"""The cost of a build, counted before it begins, in a worker process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.engine.arguments import check_seconds
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import BuildCancelled, EngineClosed, Timeout
from shadowswitch.model.views import BuildCost
from shadowswitch.storage.generations.build_spec import make_spec
from shadowswitch.storage.quality.costing import CostCounted, CountCost, count_cost, embeds


class CostCalls:
    """The cost of a build. Any thread; a call blocks while a worker reads the records."""

    def __init__(
        self, context: EngineContext, state: OpenState, branches: BranchDirectory, answers: WorkerAnswers
    ) -> None:
        self._context = context
        self._state = state
        self._branches = branches
        self._answers = answers

    def build_cost(
        self,
        branch: str,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None = None,
        timeout_s: float = 300,
    ) -> BuildCost:
        """What a build with these arguments would read, and embed, if it began now. It starts nothing.

        Where the index embeds texts, a worker process reads the records. What a seed of the build may save is not
        considered: it saves reading. Raises UnknownBranch, InvalidConfig, InvalidName, Timeout, CorruptData.
        """
        self._state.check()
        spec = make_spec(index_type, resource_types, build_config)
        deadline = self._context.clock.monotonic() + check_seconds("timeout_s", timeout_s)
        row = self._branches.row(branch)
        task = CountCost(str(self._context.root), row.number, spec)
        if not embeds(spec):
            return count_cost(self._context.catalog, task).cost
        try:
            cost = self._answers.ask(task, CostCounted, deadline).cost
        except BuildCancelled as error:
            raise EngineClosed("the engine is closed", operation="build_cost", hint="open it again") from error
        except Timeout as error:
            hint = "give it more time (timeout_s)"
            raise Timeout("the records were not read in time", operation="build_cost", hint=hint) from error
        self._branches.check(row)
        return cost
