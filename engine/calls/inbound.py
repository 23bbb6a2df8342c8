"""Events from outside: the call that deals with one, and the conditions of an automatic merge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.host_answer import Reasons, reasons_of
from shadowswitch.engine.admission import KeyedLocks
from shadowswitch.engine.calls.branches import BranchCalls
from shadowswitch.engine.calls.builds import BuildCalls
from shadowswitch.engine.calls.switches import SwitchCalls
from shadowswitch.engine.forks.calls import ForkCalls
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import InternalFailure, InvalidConfig, InvalidEvent, ShadowSwitchError
from shadowswitch.model.forks.views import Conflict
from shadowswitch.model.inbound_events import EventOutcome, Incoming, parse_incoming
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.inbox import find_received, received_key, save_received
from shadowswitch.storage.catalog.transaction import signed

logger = logging.getLogger("shadowswitch")

MergeCondition = Callable[[str, Mapping[str, Any]], Reasons]
"""Gets the branch and the event's data; returns None when it is met, else the reason, or several."""

NO_CONFLICTS = "no_conflicts"

BUILT_WAIT_S = 25.0
"""The wait of an event for a build of the engine's own; less than the usual timeout of a client."""


class InboundCalls:
    """Events from outside. Any thread; a call takes as long as the switch that it may bring about."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchCalls,
        forks: ForkCalls,
        builds: BuildCalls,
        switches: SwitchCalls,
    ) -> None:
        self._context = context
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._rules = context.config.incoming
        self._state = state
        self._branches = branches
        self._forks = forks
        self._builds = builds
        self._switches = switches
        self._one_at_a_time = KeyedLocks()
        self._merge_conditions: Mapping[str, MergeCondition] = {}

    def receive_event(self, event: Mapping[str, Any], by: str = "") -> EventOutcome:
        """Deal with one event in the JSON form of CloudEvents; see docs/events.md for the types.

        The same `(source, id)` about the same branch, from the same sender (`by`), again gets the outcome of the first,
        also after a restart; an outcome of the host itself (no `by`) holds for every sender. Raises InvalidEvent when
        `event` is no such event. An error that may pass (StorageFull, Timeout, EngineClosed) is raised and not
        remembered: send the event again.
        """
        self._state.check()
        incoming = parse_incoming(event)
        sources = self._rules.sources
        if sources and incoming.source not in sources:
            raise InvalidEvent(
                f"events of {incoming.source[:80]!r} are not heard", hint="add it to IncomingRules.sources"
            )
        event_of_sender = (incoming.source, incoming.id, incoming.data.branch_name, by)
        with self._one_at_a_time.of(received_key(*event_of_sender)):
            known = find_received(self._catalog, *event_of_sender)
            if known is not None:
                self._metrics.count("incoming_duplicates")
                return msgspec.structs.replace(known, duplicate=True)
            outcome = self._deal_with(incoming, event.get("data") or {}, by or incoming.source)
            work = signed(lambda c: save_received(c, outcome, by), by or incoming.source, f"event {incoming.type}")
            self._context.transact(work, "remember the event")
            self._metrics.count(f"incoming_{outcome.outcome}")
            return outcome

    def event_outcome(
        self, source: str, id: str, branch: str | None = None, by: str | None = None
    ) -> EventOutcome | None:
        """What an event from outside brought about, if it came before and is remembered.

        Outcomes belong to a branch and a sender, the `by` of `receive_event`. Without them: the newest outcome of all.
        """
        self._state.check()
        return find_received(self._catalog, source, id, branch, by)

    def add_merge_condition(self, name: str, condition: MergeCondition) -> None:
        """Register what must be met before a branch is merged automatically.

        `condition(branch, data)` gets the event's data and returns None when it is met, else the reason: a text, or
        several. A condition that raises is not met, nor is one with any other answer (True, False, a number). The
        engine compares a fork with its parent itself. Of another branch it cannot know the conflicts, so it demands the
        condition `no_conflicts` unless `IncomingRules.require_no_conflicts` is off. A condition runs on the thread of
        `receive_event`.
        """
        self._state.check()
        if not name or not callable(condition):
            raise InvalidConfig("a merge condition has a name and can be called")
        self._merge_conditions = {**self._merge_conditions, name: condition}

    def _deal_with(self, incoming: Incoming, data: Mapping[str, Any], by: str) -> EventOutcome:
        try:
            outcome = self._end_build(incoming, by) if incoming.for_shadow else self._end_indexing(incoming, by)
        except ShadowSwitchError as error:
            if error.recoverable or isinstance(error, InternalFailure) or self._state.closed:
                raise
            return self._outcome(incoming, "refused", str(error))
        if outcome.outcome in ("switched", "completed"):
            merged, unmet = self._consider_merge(incoming, data)
            outcome = msgspec.structs.replace(outcome, merged=merged, unmet=unmet)
        return outcome

    def _outcome(self, incoming: Incoming, outcome: str, message: str) -> EventOutcome:
        return EventOutcome(
            incoming.source,
            incoming.id,
            incoming.type,
            outcome,
            message,
            incoming.data.branch_name,
            (incoming.data.shadow_index_id or "") if incoming.for_shadow else "",
        )

    # -- builds ----------------------------------------------------------------------------------------------------

    def _end_build(self, incoming: Incoming, by: str) -> EventOutcome:
        data = incoming.data
        id = data.shadow_index_id or ""
        shadow = self._builds.shadow(id)
        if shadow.branch_name != data.branch_name:
            return self._outcome(
                incoming, "refused", f"shadow {id} is of branch {shadow.branch_name!r}, not {data.branch_name!r}"
            )
        if not incoming.succeeded:
            self._builds.fail_build(id, incoming.error, by)
            return self._outcome(incoming, "failed", f"shadow {id} failed: {incoming.error}")
        if shadow.state in (ShadowState.ACTIVE, ShadowState.SWITCHING):
            return self._outcome(incoming, "switched", f"shadow {id} is {shadow.state} already")
        if shadow.state != ShadowState.BUILT and shadow.external:
            self._builds.complete_build(
                id, data.index_size_bytes, data.records_indexed, data.applied_lsn, None, by, f"event {incoming.type}"
            )
        elif shadow.state != ShadowState.BUILT:  # the engine itself builds it, and the event may be early
            shadow = self._builds.wait_for(id, timeout_s=BUILT_WAIT_S)
            if shadow.state != ShadowState.BUILT:
                how = "refused" if shadow.state == ShadowState.CLEANUP else "switched"
                return self._outcome(incoming, how, f"shadow {id} is {shadow.state} already")
        if not self._rules.auto_switch:
            return self._outcome(incoming, "built", f"shadow {id} is BUILT; auto_switch is off")
        result = self._switches.switch(id, self._rules.switch_request(by))
        if result.success:
            return self._outcome(incoming, "switched", result.message)
        return self._outcome(incoming, "ready_for_manual_switch", result.message)

    # -- indexing under locks -------------------------------------------------------------------------------------

    def _end_indexing(self, incoming: Incoming, by: str) -> EventOutcome:
        data = incoming.data
        types = data.indexed_resource_types or None
        done = self._branches.complete_indexing(
            data.branch_name,
            resource_types=types,
            failed=not incoming.succeeded,
            reason="indexing completed" if incoming.succeeded else incoming.error[:500],
            by=by[:200],
        )
        if not incoming.succeeded:
            return self._outcome(incoming, "failed", f"indexing failed: {incoming.error}")
        left = f"; still under way: {', '.join(done.remaining)}" if done.remaining else ""
        return self._outcome(incoming, "completed", f"indexing of {', '.join(done.completed)} completed{left}")

    # -- merging ---------------------------------------------------------------------------------------------------

    def _consider_merge(self, incoming: Incoming, data: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
        """Merge the branch if all conditions are met; else the conditions that are not. No answer is not met.

        A fork is merged into its parent, unless there is a conflict; any branch is noted as MERGED.
        """
        rules, branch = self._rules, incoming.data.branch_name
        if not rules.auto_merge:
            return False, ()
        info = self._branches.branch(branch)
        unmet = [] if info.state == "READY" else [f"ready: the branch is {info.state}"]
        results = incoming.data.validation_results
        if rules.require_validation and (results is None or not results.passed):
            unmet.append("validation: the event does not say that it passed")
        if info.parent is None and rules.require_no_conflicts and NO_CONFLICTS not in self._merge_conditions:
            unmet.append(f"{NO_CONFLICTS}: nobody here can tell (Engine.add_merge_condition)")
        for name, condition in self._merge_conditions.items():
            if name != NO_CONFLICTS or rules.require_no_conflicts:
                unmet += _ask(name, condition, branch, data)
        if unmet:
            return False, tuple(unmet)
        by, reason = incoming.source[:200], "all conditions of an automatic merge are met"
        try:
            if info.parent is not None:
                result = self._forks.merge_into(info.parent, branch, by=by, reason=reason)
                if result.conflicts:
                    return False, (_in_conflict(info.parent, result.conflicts),)
            self._branches.merge_branch(branch, by=by, reason=reason)
        except ShadowSwitchError as error:
            return False, (f"merge: {error}",)
        return True, ()


def _in_conflict(parent: str, conflicts: list[Conflict]) -> str:
    first = f"{conflicts[0].resource_type} {conflicts[0].id[:80]!r}"
    others = f" and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
    return f"{NO_CONFLICTS}: {parent!r} changed {first}{others} otherwise; settle it with merge_into, or on the fork"


def _ask(name: str, condition: MergeCondition, branch: str, data: Mapping[str, Any]) -> list[str]:
    try:
        reasons = reasons_of("the merge condition", condition(branch, data))
    except InvalidConfig as error:  # the answer, or a call that the condition made
        reasons = [str(error)]
    except Exception as error:
        logger.exception("merge condition %s failed", name)
        reasons = [f"it failed: {error!r}"]
    return [f"{name}: {reason}" for reason in reasons]
