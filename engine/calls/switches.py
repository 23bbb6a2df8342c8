"""Switches: the calls that switch, roll back and rebuild, and that schedule a switch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pykka

from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.schedule import Plans
from shadowswitch.actors.switch.switch_run import MORE_TIME, RunSwitch
from shadowswitch.engine.arguments import check_number, check_seconds
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.calls.builds import BuildCalls
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.reader import no_index
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import (
    EngineClosed,
    InvalidConfig,
    InvalidTransition,
    ShadowSwitchError,
    Timeout,
    UnknownIndex,
)
from shadowswitch.model.names import check_index_type
from shadowswitch.model.shadow_state import ENDED, ShadowState
from shadowswitch.model.views import ShadowIndex, SwitchRequest, SwitchResult, check_known
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.source.group_table import group_rows
from shadowswitch.storage.catalog.transitions.groups import held_text, holder
from shadowswitch.storage.generations.seeding import AUTO

logger = logging.getLogger("shadowswitch")

PLAN_MAX_S = 86_400.0 * 365

GIVE_UP_S = 1.0
"""For a switch without a commit to end by itself when its time is over: to store that, and to answer."""
SWITCH_GRACE_S = 5.0
"""For a commit that is under way, and for what follows it: reading from the new generation, its published path."""
GONE = "its soak time is over (Config.soak_s), backup_current was off, or it did not verify; rebuild instead"


def _unswitchable(row: ShadowRow) -> str:
    """The next step for a shadow that is not BUILT."""
    says = f"it says: {row.error or row.phase}"
    if row.state == ShadowState.FAILED:
        return f"retry_build goes on with it; {says}"
    if row.state == ShadowState.ACTIVE:
        return f"it has been switched to, and a rollback goes to the previous generation; {says}"
    if row.state in ENDED:
        return f"start a new build with start_build; {says}"
    return f"wait for it with wait_for; {says}"


def accountable(request: SwitchRequest) -> SwitchRequest:
    """A request with an author and a reason for the audit history. Raises InvalidConfig."""
    by, reason = author(request.performed_by, request.reason)
    return msgspec.structs.replace(request, performed_by=by, reason=reason)


class SwitchCalls:
    """Switches between generations. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        generations: OpenGenerations,
        validator: ShadowValidator,
        broken: dict[tuple[int, str], str],
        start_switcher: Callable[[], pykka.ActorRef[Any]],
        builds: BuildCalls,
    ) -> None:
        """A switch removes its index from `broken`: by branch and type, the reason why an index is not served."""
        self._config = context.config
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._state = state
        self._branches = branches
        self._generations = generations
        self._validator = validator
        self._broken = broken
        self._start_switcher = start_switcher
        self._builds = builds

    def switch(self, id: str, request: SwitchRequest | None = None) -> SwitchResult:
        """Make a BUILT shadow the live generation.

        An index without records, or with a resource type that has none and is new to it, is refused (`success=False`)
        unless `allow_empty` of the request says that it is meant. So is a member of a group, unless `break_group` says
        that the group is to be broken up. `force_switch` overrides every advisory check.
        `switch_timeout_seconds` bounds the call: a switch that has not come to its commit by then is given up, with
        `success=False` or Timeout, and never takes effect. A commit that is under way is waited for 6 s more. Raises
        UnknownShadow, InvalidTransition when it is not BUILT, Timeout.
        """
        self._state.check()
        request = self._checked(request)
        row = self._catalog.shadow(id)
        target = self._generations.get(row.generation)
        unread = self._generations.unread.get(row.generation)
        if row.state == ShadowState.BUILT and unread is not None:
            raise InvalidTransition(
                f"shadow {id} cannot be switched to: {unread}", operation="switch", object=id, hint="or build it again"
            )
        if row.state != ShadowState.BUILT or target is None:
            raise InvalidTransition(
                f"shadow {id} is {row.state}, only a BUILT one can be switched to",
                operation="switch",
                object=id,
                hint=_unswitchable(row),
            )
        message = RunSwitch(row.branch_name, target, id, request, False, Reply())
        return self._refused(message, row.index_type) or self._run(message)

    def rollback(self, branch: str, index_type: str, request: SwitchRequest | None = None) -> SwitchResult:
        """Switch to the previous generation, which has followed the journal: nothing is lost. Again: forward.

        A member of a group that was switched is refused (`success=False`), see `rollback_group`, unless `break_group`
        of the request is True. `switch_timeout_seconds` bounds it as it does a switch. Raises UnknownIndex when there
        is no previous generation (any more), Timeout.
        """
        request = self._checked(request)
        message = self._back(branch, index_type, request)
        return self._refused(message, index_type) or self._run(message)

    def _refused(self, message: RunSwitch, index_type: str) -> SwitchResult | None:
        """The refusal of a switch of one member of a group, unless the request breaks the group up."""
        if message.request.break_group:
            return None
        group = holder(group_rows(self._catalog), message.target.row.branch, index_type, message.shadow_id)
        if group is None:
            return None
        self._metrics.count("switches_refused")
        text, number = f"not switched: {held_text(group, index_type)}", message.target.row.number
        return SwitchResult(message.shadow_id, False, text, generation=number)

    def _checked(self, request: SwitchRequest | None) -> SwitchRequest:
        """The request of a caller, before anything begins. Raises InvalidConfig."""
        request = request if request is not None else SwitchRequest()
        if not isinstance(request, SwitchRequest):
            raise InvalidConfig(f"a switch takes a SwitchRequest, not {request!r:.80}", hint="say SwitchRequest()")
        check_known(request, self._validator.host_checks)
        return accountable(request)

    def run_rollback(
        self, branch: str, index_type: str, request: SwitchRequest, leaving: int = 0, unsound: str = ""
    ) -> SwitchResult:
        """Roll back on a checked request.

        With `leaving` only if that generation is still live; with `unsound`, the reason, it retires in the same commit.
        """
        return self._run(self._back(branch, index_type, request, leaving, unsound))

    def _back(
        self, branch: str, index_type: str, request: SwitchRequest, leaving: int = 0, unsound: str = ""
    ) -> RunSwitch:
        """The rollback of an index. Raises UnknownIndex."""
        row = self._branches.row(branch)
        index = self._catalog.index(row.number, check_index_type(index_type))
        if index is None or not index.live:
            raise no_index(branch, index_type)
        target = self._generations.get(index.previous)
        if target is None or target.closed:
            gone = self._generations.unread.get(index.previous, GONE)
            raise UnknownIndex(
                f"{index_type} of branch {branch!r} has no previous generation to go back to",
                operation="rollback",
                object=branch,
                hint="there has been only one" if index.epoch == 1 else gone,
            )
        reply: Reply[SwitchResult] = Reply()
        return RunSwitch(branch, target, target.row.shadow_id, request, True, reply, leaving, unsound)

    def _run(self, message: RunSwitch) -> SwitchResult:
        request, target = message.request, message.target
        Address(self._start_switcher).tell(message)
        try:
            if not message.reply.wait(request.switch_timeout_seconds + GIVE_UP_S) and message.reply.cancel():
                raise Timeout(
                    f"the switch to generation {target.row.number} did not come to its commit within"
                    f" {request.switch_timeout_seconds:g} s; it was given up, and nothing was changed",
                    operation="switch",
                    object=message.branch_name,
                    hint=MORE_TIME,
                )
            result: SwitchResult = message.reply.result(SWITCH_GRACE_S)
        except EngineClosed as error:
            raise self._closed(message) from error
        except TimeoutError as error:
            if isinstance(error, ShadowSwitchError):
                raise
            raise Timeout(
                f"the switch to generation {target.row.number} did not end within {request.switch_timeout_seconds:g} s",
                operation="switch",
                object=message.branch_name,
                hint="it goes on, and takes effect as a whole or not at all: index() says which generation is live",
            ) from None
        if not result.success and self._state.closed:  # the close is the reason, whatever the message says
            raise self._closed(message)
        self._metrics.observe("switch", result.switch_duration_ms)
        if result.success:
            self._broken.pop((target.row.branch, target.row.index_type), None)
        return result

    def _closed(self, message: RunSwitch) -> EngineClosed:
        return EngineClosed(
            "the engine was closed while the switch ran; it took effect as a whole or not at all",
            operation="switch",
            object=message.branch_name,
            hint=f"open the engine again: if generation {message.target.row.number} is live, the switch took effect",
        )

    def rebuild(
        self,
        branch: str,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None = None,
        request: SwitchRequest | None = None,
        timeout_s: float | None = None,
        track_ready: bool = False,
        seed: str = AUTO,
    ) -> SwitchResult:
        """Start, wait, switch; with `track_ready` the branch is READY then. It and `seed` are those of `start_build`.

        `request` is that of the switch, with `allow_empty` for an index that may lack records, see `switch`.

        A rebuild that does not switch leaves nothing behind: when `timeout_s` passes first, when the validation says
        no, or when the caller is interrupted, the shadow is cancelled, and the next rebuild may begin. A rebuild that
        a stop of the host cut off is ended by the next one: joined if the options are equal, else discarded. A build
        by `start_build` that was cut off, and goes on since, is joined if the options are equal. To keep a refused
        shadow for a look, or for another switch, call `start_build`, `wait_for` and `switch`. Raises DuplicateBuild,
        InvalidConfig, BuildFailed, Timeout.
        """
        request = self._checked(request)
        if timeout_s is not None and check_seconds("timeout_s", timeout_s) <= 0:
            raise InvalidConfig(f"a rebuild takes more than {timeout_s:g} s", hint="leave timeout_s out: no limit")
        builds = self._builds
        by = request.performed_by
        id = builds.start_build(
            branch, index_type, resource_types, build_config, track_ready=track_ready, by=by, reason=request.reason,
            of_rebuild=True, seed=seed,
        ).shadow_index_id  # fmt: skip
        try:
            builds.wait_for(id, "BUILT", timeout_s=timeout_s)
            result = self.switch(id, request)
        except BaseException as error:
            why = "rebuild timed out" if isinstance(error, TimeoutError) else f"rebuild ended: {error!r}"
            builds.discard(id, why, by)
            raise
        if not result.success and builds.discard(id, result.message, by):
            result = msgspec.structs.replace(result, message=f"{result.message}; the shadow was discarded")
        return result


class ScheduleCalls:
    """Plans of switches. Any thread."""

    def __init__(
        self, context: EngineContext, state: OpenState, validator: ShadowValidator, plans: Plans, views: Views
    ) -> None:
        self._transact = context.transact
        self._state = state
        self._validator = validator
        self._plans = plans
        self._views = views

    def schedule_switch(
        self, id: str, quiet_for_s: float = 900, within_s: float = 86400, request: SwitchRequest | None = None
    ) -> ShadowIndex:
        """Switch to a shadow at the first moment after so much quiet on its branch, at the latest after `within_s`.

        Quiet: no change was acknowledged. It is counted from this call on, and anew after a restart. A shadow that is
        still being built is switched to once it is BUILT and either is reached. The plan outlives restarts and kills;
        `scheduled_switch` of the status shows it. A second call replaces it. It ends with any switch to the shadow and
        with the shadow. A refused switch is tried again after a minute, then less and less often. Raises InvalidConfig,
        and InvalidTransition for a shadow that is past BUILT.
        """
        self._state.check()
        check_number("quiet_for_s", quiet_for_s, PLAN_MAX_S)
        check_number("within_s", within_s, PLAN_MAX_S)
        if within_s < quiet_for_s:
            raise InvalidConfig(
                f"within_s ({within_s:g}) is less than quiet_for_s ({quiet_for_s:g}): no quiet could be long enough",
                hint="the switch comes after quiet_for_s of quiet, at the latest after within_s",
            )
        request = request if request is not None else SwitchRequest()
        if not isinstance(request, SwitchRequest):
            raise InvalidConfig(f"a switch takes a SwitchRequest, not {request!r:.80}", hint="say SwitchRequest()")
        check_known(request, self._validator.host_checks)
        request = accountable(request)
        work = partial(
            transitions.schedule, shadow_id=id, quiet_for_s=float(quiet_for_s), within_s=float(within_s),
            request=msgspec.to_builtins(request), by=request.performed_by, reason=request.reason,
        )  # fmt: skip
        self._plans.add(self._transact(work, "schedule switch"))
        return self._views.shadow(id)

    def unschedule_switch(self, id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """Take the plan of `schedule_switch` back. Raises InvalidTransition without one."""
        self._state.check()
        by, reason = author(by, reason)
        self._transact(partial(transitions.unschedule, shadow_id=id, by=by, reason=reason), "unschedule switch")
        self._plans.drop(id)
        return self._views.shadow(id)
