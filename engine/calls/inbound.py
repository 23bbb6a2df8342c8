"""Events from outside: the call that deals with one, whichever way it came in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shadowswitch.engine.calls.branches import Branching
from shadowswitch.engine.calls.indexes import Reading
from shadowswitch.engine.calls.records import Records
from shadowswitch.model.errors import InternalFailure, InvalidConfig, InvalidEvent, ShadowSwitchError
from shadowswitch.model.inbound_events import EventOutcome, Incoming, parse_incoming
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.inbox import find_received, received_key, save_received

logger = logging.getLogger("shadowswitch")

MergeCondition = Callable[[str, Mapping[str, Any]], str | None]
"""Gets the branch and the event's data; returns None when it is met, else why not."""

NO_CONFLICTS = "no_conflicts"

BUILT_WAIT_S = 25.0
"""How long an event waits for a build of the engine's own; less than the time after which clients commonly give up."""


class Receiving(Records, Reading, Branching):
    """Dealing with events from outside. Any thread; a call takes as long as the switch that it may bring about."""

    _merge_conditions: Mapping[str, MergeCondition] = {}

    def receive_event(self, event: Mapping[str, Any], by: str = "") -> EventOutcome:
        """Deal with one event in the JSON form of CloudEvents; see docs/events.md for the types.

        The same `(source, id)` again gets the outcome of the first, also after a restart. Raises InvalidEvent for what
        is no such event, and what may go well later (StorageFull, Timeout, EngineClosed): then send it again.
        """
        house = self._alive()
        incoming = parse_incoming(event)
        sources = house.config.incoming.sources
        if sources and incoming.source not in sources:
            raise InvalidEvent(
                f"events of {incoming.source[:80]!r} are not heard", hint="add it to IncomingRules.sources"
            )
        with self._turns.of(received_key(incoming.source, incoming.id)):
            known = find_received(house.catalog, incoming.source, incoming.id)
            if known is not None:
                house.metrics.count("incoming_duplicates")
                return msgspec.structs.replace(known, duplicate=True)
            outcome = self._deal_with(incoming, event.get("data") or {}, by or incoming.source)
            house.transact(lambda commit: save_received(commit, outcome), "remember the event")
            house.metrics.count(f"incoming_{outcome.outcome}")
            return outcome

    def event_outcome(self, source: str, id: str) -> EventOutcome | None:
        """What an event from outside brought about, if it came before and is remembered."""
        return find_received(self._alive().catalog, source, id)

    def add_merge_condition(self, name: str, condition: MergeCondition) -> None:
        """Register what must be met before a branch is merged automatically.

        `condition(branch, data)` gets the event's data and returns None, or why it is not met; what it raises counts
        as not met. `no_conflicts` is demanded unless `IncomingRules.require_no_conflicts` is off, because the engine
        itself cannot know. It runs on the thread of `receive_event`.
        """
        self._alive()
        if not name or not callable(condition):
            raise InvalidConfig("a merge condition has a name and can be called")
        self._merge_conditions = {**self._merge_conditions, name: condition}

    def _deal_with(self, incoming: Incoming, data: Mapping[str, Any], by: str) -> EventOutcome:
        try:
            outcome = self._shadow_told(incoming, by) if incoming.for_shadow else self._indexing_told(incoming)
        except ShadowSwitchError as error:
            if error.recoverable or isinstance(error, InternalFailure) or self._closed:
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

    # -- the way of shadows ----------------------------------------------------------------------------------------

    def _shadow_told(self, incoming: Incoming, by: str) -> EventOutcome:
        data = incoming.data
        id = data.shadow_index_id or ""
        shadow = self.shadow(id)
        if shadow.branch_name != data.branch_name:
            return self._outcome(
                incoming, "refused", f"shadow {id} is of branch {shadow.branch_name!r}, not {data.branch_name!r}"
            )
        if not incoming.succeeded:
            self.fail_build(id, incoming.error)
            return self._outcome(incoming, "failed", f"shadow {id} failed: {incoming.error}")
        if shadow.state in (ShadowState.ACTIVE, ShadowState.SWITCHING):
            return self._outcome(incoming, "switched", f"shadow {id} is {shadow.state} already")
        if shadow.state != ShadowState.BUILT and shadow.external:
            self.complete_build(id, data.index_size_bytes, data.records_indexed, data.applied_lsn)
        elif shadow.state != ShadowState.BUILT:  # the engine builds it, whoever believes to have done so
            shadow = self.wait_for(id, timeout_s=BUILT_WAIT_S)
            if shadow.state != ShadowState.BUILT:
                how = "refused" if shadow.state == ShadowState.CLEANUP else "switched"
                return self._outcome(incoming, how, f"shadow {id} is {shadow.state} already")
        rules = self._house.config.incoming
        if not rules.auto_switch:
            return self._outcome(incoming, "built", f"shadow {id} is BUILT; auto_switch is off")
        result = self.switch(id, rules.switch_request(by))
        if result.success:
            return self._outcome(incoming, "switched", result.message)
        return self._outcome(incoming, "ready_for_manual_switch", result.message)

    # -- the way of branches and locks -----------------------------------------------------------------------------

    def _indexing_told(self, incoming: Incoming) -> EventOutcome:
        data = incoming.data
        types = data.indexed_resource_types or None
        done = self.complete_indexing(
            data.branch_name,
            resource_types=types,
            failed=not incoming.succeeded,
            reason="indexing completed" if incoming.succeeded else incoming.error[:500],
        )
        if not incoming.succeeded:
            return self._outcome(incoming, "failed", f"indexing failed: {incoming.error}")
        left = f"; still under way: {', '.join(done.remaining)}" if done.remaining else ""
        return self._outcome(incoming, "completed", f"indexing of {', '.join(done.completed)} completed{left}")

    # -- merging ---------------------------------------------------------------------------------------------------

    def _consider_merge(self, incoming: Incoming, data: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
        """Are all conditions met? What nobody can tell is not met."""
        rules, branch = self._house.config.incoming, incoming.data.branch_name
        if not rules.auto_merge:
            return False, ()
        state = self.branch(branch).state
        unmet = [] if state == "READY" else [f"ready: the branch is {state}"]
        results = incoming.data.validation_results
        if rules.require_validation and (results is None or not results.passed):
            unmet.append("validation: the event does not say that it passed")
        if rules.require_no_conflicts and NO_CONFLICTS not in self._merge_conditions:
            unmet.append(f"{NO_CONFLICTS}: nobody here can tell (Engine.add_merge_condition)")
        for name, condition in self._merge_conditions.items():
            if name != NO_CONFLICTS or rules.require_no_conflicts:
                unmet += _ask(name, condition, branch, data)
        if unmet:
            return False, tuple(unmet)
        try:
            self.merge_branch(branch, by=incoming.source[:200], reason="all conditions of an automatic merge are met")
        except ShadowSwitchError as error:
            return False, (f"merge: {error}",)
        return True, ()


def _ask(name: str, condition: MergeCondition, branch: str, data: Mapping[str, Any]) -> list[str]:
    try:
        reason = condition(branch, data)
    except Exception as error:
        logger.exception("merge condition %s failed", name)
        reason = f"it failed: {error!r}"
    return [f"{name}: {reason}"] if reason else []
