"""The GroupSwitcher: one switch or rollback of a group, from validation to verification. A short-lived actor for each.

Its steps are those of the Switcher (`actors.switch.switcher`), and `model.switch_outcome` decides after each:

    validate   every member as for a switch of its own; then the group validators of the host, with readers of all
               members as of one LSN. A problem of one refuses all
    claim      the reply: from here on the caller waits for the outcome
    attempt    see `actors.group.group_attempt`; tried again with backoff until `switch_timeout_seconds`
    verify     every member, read as every reader does
    revert     if that found something in any: all go back in one transaction, and the group is REVERTED

A rollback is the same with the previous generations as the targets. It asks no group validator: it is to be quick.
"""

from __future__ import annotations

import contextlib
import logging
import math
from concurrent.futures import InvalidStateError
from contextlib import ExitStack
from functools import partial

from shadowswitch.actors.build.validator import Validation
from shadowswitch.actors.group.group_attempt import GroupAttempt, Withdrawal
from shadowswitch.actors.group.group_check import problems_of
from shadowswitch.actors.group.group_moves import (
    author_of,
    begin_all,
    give_up_all,
    switch_all,
    switch_one,
    withdraw_one,
)
from shadowswitch.actors.group.group_run import GroupRun, RunGroup
from shadowswitch.actors.group.kind_checks import shipped
from shadowswitch.actors.kit.patience import patiently
from shadowswitch.actors.switch.attempt import Attempt, AttemptEnd, try_until
from shadowswitch.actors.switch.fitness import examine, refusal
from shadowswitch.actors.switch.switch_run import SwitchRun, figures_of
from shadowswitch.actors.switch.switching import REVERT_S, SwitchingActor
from shadowswitch.actors.switch.verifier import verify
from shadowswitch.model.errors import ResourceExhausted, ShadowSwitchError, StorageFull, Timeout
from shadowswitch.model.groups.views import GroupResult
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.switch_outcome import Failure, SwitchOutcome, SwitchStep, WayBack, decide
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.source.group_table import group_row
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.failpoints import failpoint

logger = logging.getLogger("shadowswitch")


class GroupSwitcher(SwitchingActor):
    """Runs one switch of a group and stops."""

    NAME, MESSAGE = "shadowswitch-group", RunGroup

    def _run(self, message: RunGroup) -> None:
        try:
            if message.reply.cancelled():
                return
            names = [f"{self.actor_urn}/{number}" for number in range(len(message.members))]
            try:
                for name, member in zip(names, message.members, strict=True):
                    self._switches.begin(name, member.shadow_id)
                result = self._switch(message)
            finally:
                for name in names:
                    self._switches.end(name)
            self._note_figures(message, result)
            with contextlib.suppress(InvalidStateError):  # the caller gave it up: see `_claim`
                message.reply.set_result(result)
        finally:
            self.stop()

    def _switch(self, message: RunGroup) -> GroupResult:
        """Validate, attempt, verify, revert, as far as the table says; then record how it ended."""
        begun = self._clock.monotonic()
        run = GroupRun(message, [SwitchRun(one, begun, *self._live_before(one.target)) for one in message.members])
        if not message.rollback:
            self._context.transact(signed(partial(begin_all, message), *author_of(message)), "switch group")
            failpoint("group.begun")
        outcome = SwitchOutcome.NOT_SWITCHED
        try:
            with ExitStack() as held:
                for one in run.runs:
                    held.enter_context(one.target.maintenance_lock(one.seconds_left(self._clock.monotonic())))
                for one in run.runs:
                    self._refuse_live(one.target)
                    one.previous, one.old = self._live_before(one.target)
                outcome = self._steps(run)
        except ShadowSwitchError as error:
            run.reason = str(error)
            if run.attempts:
                outcome = decide(SwitchStep.ATTEMPT, Failure.ERROR, self._are_live(run), run.way_back)
        finally:
            if outcome in (SwitchOutcome.NOT_SWITCHED, SwitchOutcome.GAVE_UP):
                self._give_up(run)
        if outcome == SwitchOutcome.GAVE_UP:  # a turn of unknown outcome has ended by now: `_give_up` stood behind it
            outcome = decide(SwitchStep.ATTEMPT, Failure.GAVE_UP, self._are_live(run), run.way_back)
        return self._finish(run, outcome)

    def _steps(self, run: GroupRun) -> SwitchOutcome:
        failure = self._validate(run)
        if failure == Failure.NONE:
            for one in run.runs:
                one.target.warm()
            failure = self._claim(run, run.message.reply)
        outcome = decide(SwitchStep.VALIDATE, failure, False, run.way_back)
        if outcome == SwitchOutcome.GO_ON:
            failure = try_until(self._context, run.deadline, partial(self._attempt, run, False, run.deadline))
            outcome = decide(SwitchStep.ATTEMPT, failure, self._are_live(run), run.way_back)
        if outcome == SwitchOutcome.GO_ON:
            failure = self._verify(run)
            outcome = decide(SwitchStep.VERIFY, failure, self._are_live(run), run.way_back)
        if outcome == SwitchOutcome.REVERT:
            logger.error("group %r is live but %s; reverting", run.message.group.name, run.reason)
            outcome = decide(SwitchStep.REVERT, self._revert(run), self._are_live(run), run.way_back)
        return outcome

    # -- the catalog decides ---------------------------------------------------------------------------------------

    def _are_live(self, run: GroupRun) -> bool:
        """By the catalog (IX-1): one transaction moved all or none (GR-1), and a later one may have moved on."""
        return all(self._is_live(one.target) for one in run.runs)

    # -- the steps -------------------------------------------------------------------------------------------------

    def _validate(self, run: GroupRun) -> Failure:
        run.reason = run.overdue(self._clock.monotonic())
        if run.reason:
            return Failure.GAVE_UP
        reasons = []
        for one in run.runs:
            try:
                reason = self._examined(run, one)
            except ShadowSwitchError as error:
                late = one.overdue(self._clock.monotonic(), error) if isinstance(error, Timeout) else ""
                one.validation = Validation({}, [str(error)], [], 0, 0)
                run.reason = late or f"{run.name(one)}: {error}"
                return Failure.ERROR
            if reason:
                reasons.append(f"{run.name(one)}: {reason}")
        if not reasons and not run.message.rollback:
            reasons = self._ask_host(run)
        run.reason = "; ".join(reasons)
        return Failure.REFUSED if reasons else Failure.NONE

    def _examined(self, run: GroupRun, one: SwitchRun) -> str:
        """Why a member is not fit to be live, or ""."""
        request, validator, rollback = run.message.request, self._validator, run.message.rollback
        before = partial(self._refuse_live, one.target)
        one.validation = examine(self._context, validator, one.target, request, rollback, one.deadline, before, True)
        if one.message.leaving not in (0, one.previous):
            return f"generation {one.message.leaving} is not live any more"
        return refusal(one.validation, validator.host_checks.__contains__, request.force_switch)

    def _ask_host(self, run: GroupRun) -> list[str]:
        """What the group validators say, those of the library first; force overrides them. Raises Timeout."""
        message = run.message
        targets = [(one.message.branch_name, one.target) for one in run.runs]
        left_s = run.deadline - self._now()
        own = shipped(message.request.validation_checks, targets, left_s, self._clock.monotonic)
        problems = problems_of({**own, **message.checks}, targets, self._context.catalog, run.deadline)
        for one in run.runs:
            one.validation.errors.extend(problems)
        return [] if message.request.force_switch or not problems else [f"validation failed: {'; '.join(problems)}"]

    def _attempt(self, run: GroupRun, back: bool, deadline: float, number: int) -> Failure:
        """One attempt, forward or `back`; backoff and deadline are those of `try_until`."""
        ends: list[AttemptEnd] = []
        try:
            end, ends = self._made(run, back, deadline, number).run()
        except Exception as error:
            if not isinstance(error, ShadowSwitchError):
                logger.exception("an attempt to switch group %r raised", run.message.group.name)
            end = AttemptEnd(Failure.ERROR, str(error) or repr(error))
        for one in run.runs:
            self._kick(one.target, one.old)
        run.add(end, ends)
        if end.reason or end.failure != Failure.GAVE_UP:
            run.reason = end.reason
        elif number == 0:
            run.reason = run.overdue(math.inf)
        if end.failure == Failure.NONE:
            run.epoch += 1
        return end.failure

    def _made(self, run: GroupRun, back: bool, deadline: float, number: int) -> GroupAttempt:
        members = [(run.name(one), self._member(run, one, back, deadline, number)) for one in run.runs]
        transition = partial(switch_all, run, back)
        return GroupAttempt(self._context, members, self._pause, self._indexes.together, transition)

    def _member(self, run: GroupRun, one: SwitchRun, back: bool, deadline: float, number: int) -> Attempt | Withdrawal:
        target = one.old if back else one.target
        index = self._indexes.of_generation(one.target)
        if target is None:
            return Withdrawal(self._context, index, self._generations, partial(withdraw_one, one))
        token = self._context.catalog.shadow(target.row.shadow_id).token
        return Attempt(
            self._context, index, self._generations, target, self._heads, self._pause, self._publisher,
            lambda _: None, partial(switch_one, self._context, run, one, back, target, token), number, deadline,
        )  # fmt: skip

    # -- behind the commit -----------------------------------------------------------------------------------------

    def _verify(self, run: GroupRun) -> Failure:
        """A verification that lacks a resource is no verdict: the digest, proven before the commit, keeps it live."""
        for one in run.runs:
            look = partial(verify, self._context, self._indexes.of_generation(one.target), one.target, one.commit_lsn)
            try:
                one.problems = patiently(look, self._clock, one.seconds_left(self._clock.monotonic()))
            except (ResourceExhausted, StorageFull) as error:
                run.reason = f"{run.name(one)} was not verified: {error}"
            except Exception as error:
                logger.exception("verification of generation %d raised", one.target.row.number)
                one.problems = [f"reading from the new generation failed: {error}"]
        found = [f"{run.name(one)}: {'; '.join(one.problems)}" for one in run.runs if one.problems]
        if found:
            run.reason = f"verification failed: {'; '.join(found)}"
        return Failure.UNSOUND if found else Failure.NONE

    def _revert(self, run: GroupRun) -> Failure:
        """All go back in one transaction: to the generations that were live before, or to none."""
        unfit = run.reason
        deadline = self._clock.monotonic() + max(REVERT_S, run.message.request.switch_timeout_seconds)
        failure = try_until(self._context, deadline, partial(self._attempt, run, True, deadline))
        failed = failure != Failure.NONE and self._are_live(run)
        run.reason = f"{unfit}; going back failed as well: {run.reason}" if failed else unfit
        return failure

    # -- the end ---------------------------------------------------------------------------------------------------

    def _give_up(self, run: GroupRun) -> None:
        """Nothing was committed: every shadow is BUILT again, if it was SWITCHING."""
        rows = [self._context.catalog.find_shadow(one.message.shadow_id) for one in run.runs]
        if any(row is not None and row.state == ShadowState.SWITCHING for row in rows):
            reason = run.reason or "the switch failed in an unforeseen way; see the log"
            self._transact_quietly(signed(partial(give_up_all, run.message, reason), run.message.request.performed_by))

    def _finish(self, run: GroupRun, outcome: SwitchOutcome) -> GroupResult:
        """What is done and said for each outcome."""
        metrics = self._context.metrics
        if outcome == SwitchOutcome.SWITCHED:
            text = self._after_switch(run)
        elif outcome == SwitchOutcome.REVERTED:
            metrics.count("automatic_rollbacks")
            text = f"{run.reason}; every member was switched back, nothing was lost"
        elif outcome == SwitchOutcome.REVERT_FAILED:
            lost = "a generation that was live could not be opened; rebuild the indexes"
            text = run.reason if run.way_back != WayBack.LOST else f"{run.reason}; going back failed as well: {lost}"
        else:
            metrics.count("switches_refused")
            text = f"not switched: {run.reason}"
        return run.result(outcome, text, group_row(self._context.catalog, run.message.group.id).epoch, self._now())

    def _now(self) -> float:
        return self._clock.monotonic()

    def _after_switch(self, run: GroupRun) -> str:
        """The targets are live, or were until a later switch: publish them, end an unwanted soak, say what was done."""
        message = run.message
        if not self._are_live(run):
            return f"switched; another switch has moved on since ({run.reason})"
        for one in run.runs:
            self._find_commit_lsn(one)
        strategy = message.request.strategy or self._context.config.publish_strategy
        published = [self._publish(one, strategy, f"the published path of {run.name(one)}") for one in run.runs]
        unpublished = "".join(published)
        try:
            self._end_unwanted_soak(run)
        except ShadowSwitchError as error:
            run.reason = run.reason or str(error)
        if run.reason:
            return f"switched, but not all that follows was done: {run.reason}{unpublished}"
        self._context.metrics.count("group_rollbacks" if message.rollback else "group_switches")
        word = "rolled back" if message.rollback else "switched"
        sealed_ms = max(one.sealed_ms for one in run.runs)
        said = [f"; {run.name(one)}{one.validation.remarks}" for one in run.runs if one.validation.remarks]
        return (
            f"{len(run.runs)} indexes {word} together in {sealed_ms:.1f} ms of sealed time{unpublished}{''.join(said)}"
        )

    def _end_unwanted_soak(self, run: GroupRun) -> None:
        """No soak without `backup_current`; nor of a generation that could not even be opened."""
        if not run.message.request.backup_current:
            end = partial(transitions.end_soak, group_id=run.message.group.id, reason="backup_current was off")
            self._context.transact(end, "end soak of a group")
        for one in run.runs:
            if one.previous and one.old is None:
                self._context.transact(partial(transitions.retire_previous, generation_number=one.previous), "retire")

    def _note_figures(self, message: RunGroup, result: GroupResult) -> None:
        """An event for each member with what the switch cost."""
        pairs = list(zip(message.members, result.members, strict=True))

        def work(commit: Commit) -> None:
            for one, ended in pairs:
                figures, took_s = figures_of(ended, message.rollback), ended.switch_duration_ms / 1000
                transitions.finish_switch(commit, one.shadow_id, figures, took_s)

        self._transact_quietly(signed(work, *author_of(message)))
