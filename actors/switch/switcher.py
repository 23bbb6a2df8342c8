"""The Switcher: one switch or rollback, from validation to verification. A short-lived actor for each.

    validate   outside any lock, see `actors.switch.fitness`; differing buckets are repaired once
    claim      the reply: from here on the caller waits for the outcome. Past `switch_timeout_seconds`, or when the
               caller does not wait any more, the switch is given up instead, and never takes effect
    attempt    see `actors.switch.attempt`; tried again with backoff until `switch_timeout_seconds`
    verify     read from the new live generation as every reader does
    revert     only if that found something: the same attempt with the generation that was live before, in a time of
               its own
    decide     after each step `model.switch_outcome` says what is next, by what the catalog says

A rollback is the same with the previous generation as the target.
"""

from __future__ import annotations

import contextlib
import logging
import math
from concurrent.futures import InvalidStateError
from functools import partial

from shadowswitch.actors.branch.lifecycle import SettleBuild
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.validator import ShadowValidator, Validation
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import CommitSwitch
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.patience import patiently
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.follower_pool import FollowerPause, FollowerPool
from shadowswitch.actors.switch.attempt import COMMIT_TIMEOUT_S, Attempt, AttemptEnd, try_until
from shadowswitch.actors.switch.fitness import examine, refusal
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.actors.switch.switch_run import RunSwitch, SwitchRun, figures_of
from shadowswitch.actors.switch.switching import REVERT_S, SwitchingActor
from shadowswitch.actors.switch.verifier import verify
from shadowswitch.model.errors import ResourceExhausted, ShadowSwitchError, StorageFull, Timeout
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.switch_outcome import Failure, SwitchOutcome, SwitchStep, WayBack, decide
from shadowswitch.model.views import SwitchResult
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.generation import Generation

logger = logging.getLogger("shadowswitch")

SETTLE_S = 10.0


class Switcher(SwitchingActor):
    """Runs one switch and stops."""

    NAME, MESSAGE = "shadowswitch-switch", RunSwitch

    def __init__(
        self,
        context: EngineContext,
        router: BranchRouter,
        indexes: LiveIndexes,
        generations: OpenGenerations,
        heads: Heads,
        followers: FollowerPool,
        pause: FollowerPause,
        publisher: Publisher,
        switches: RunningSwitches,
        validator: ShadowValidator,
    ) -> None:
        super().__init__(context, indexes, generations, heads, followers, pause, publisher, switches, validator)
        self._router = router

    def _run(self, message: RunSwitch) -> None:
        try:
            if message.reply.cancelled():
                return
            self._switches.begin(self.actor_urn, message.shadow_id)
            try:
                result = self._switch(message)
            finally:
                self._switches.end(self.actor_urn)
            self._emit(message, result)
            if result.success and self._context.catalog.shadow(message.shadow_id).track_ready:
                self._settle(message)
            with contextlib.suppress(InvalidStateError):  # the caller gave it up: see `_claim`
                message.reply.set_result(result)
        finally:
            self.stop()

    def _switch(self, message: RunSwitch) -> SwitchResult:
        """Validate, attempt, verify, revert, as far as the table says; then record how it ended."""
        run = SwitchRun(message, self._context.clock.monotonic(), *self._live_before(message.target))
        if not message.rollback:
            begin = partial(transitions.begin_switching, shadow_id=message.shadow_id)
            self._context.transact(signed(begin, message.request.performed_by, message.request.reason), "switch")
            failpoint("switch.begun")
        outcome = SwitchOutcome.NOT_SWITCHED
        try:
            with message.target.maintenance_lock(run.seconds_left(self._context.clock.monotonic())):
                self._refuse_live(message.target)
                run.previous, run.old = self._live_before(message.target)
                outcome = self._steps(run)
        except ShadowSwitchError as error:
            run.reason = str(error)
            if run.attempts:
                outcome = decide(SwitchStep.ATTEMPT, Failure.ERROR, self._is_live(run.target), run.way_back)
        finally:
            if outcome in (SwitchOutcome.NOT_SWITCHED, SwitchOutcome.GAVE_UP):
                self._give_up(run)
        if outcome == SwitchOutcome.GAVE_UP:  # a turn of unknown outcome has ended by now: `_give_up` stood behind it
            outcome = decide(SwitchStep.ATTEMPT, Failure.GAVE_UP, self._is_live(run.target), run.way_back)
        return self._finish(run, outcome)

    def _steps(self, run: SwitchRun) -> SwitchOutcome:
        failure = self._validate(run)
        if failure == Failure.NONE:
            failpoint("switch.validated")
            run.target.warm()
            failure = self._claim(run, run.message.reply)
        outcome = decide(SwitchStep.VALIDATE, failure, False, run.way_back)
        if outcome == SwitchOutcome.GO_ON:
            failure = self._attempt(run, run.target, run.previous, run.message.unsound, run.deadline)
            outcome = decide(SwitchStep.ATTEMPT, failure, self._is_live(run.target), run.way_back)
        if outcome == SwitchOutcome.GO_ON:
            failure = self._verify(run)
            outcome = decide(SwitchStep.VERIFY, failure, self._is_live(run.target), run.way_back)
        if outcome == SwitchOutcome.REVERT:
            logger.error("generation %d is live but %s; reverting", run.target.row.number, run.reason)
            outcome = decide(SwitchStep.REVERT, self._revert(run), self._is_live(run.target), run.way_back)
        return outcome

    # -- the steps -------------------------------------------------------------------------------------------------

    def _validate(self, run: SwitchRun) -> Failure:
        request, target, validator = run.message.request, run.target, self._validator
        run.reason = run.overdue(self._context.clock.monotonic())
        if run.reason:
            return Failure.GAVE_UP
        try:
            refuse = partial(self._refuse_live, target)
            run.validation = examine(
                self._context, validator, target, request, run.message.rollback, run.deadline, refuse
            )
        except ShadowSwitchError as error:
            late = run.overdue(self._context.clock.monotonic(), error) if isinstance(error, Timeout) else ""
            run.validation, run.reason = Validation({}, [str(error)], [], 0, 0), late or str(error)
            return Failure.ERROR
        if run.message.leaving not in (0, run.previous):
            run.reason = f"generation {run.message.leaving} is not live any more"
            return Failure.REFUSED
        run.reason = refusal(run.validation, validator.host_checks.__contains__, request.force_switch)
        return Failure.REFUSED if run.reason else Failure.NONE

    def _attempt(
        self, run: SwitchRun, target: Generation, expected_live: int, unsound: str, deadline: float
    ) -> Failure:
        """Attempts until the deadline (monotonic), see `try_until`."""
        once = partial(self._attempt_once, run, target, expected_live, unsound, deadline)
        return try_until(self._context, deadline, once)

    def _attempt_once(
        self, run: SwitchRun, target: Generation, expected_live: int, unsound: str, deadline: float, number: int
    ) -> Failure:
        try:
            end = self._made(run, target, expected_live, unsound, number, deadline).run()
        except Exception as error:
            if not isinstance(error, ShadowSwitchError):
                logger.exception("an attempt to switch to generation %d raised", target.row.number)
            end = AttemptEnd(Failure.ERROR, str(error) or repr(error))
        self._kick(target, self._generations.get(expected_live))
        run.add(end)
        if end.reason or end.failure != Failure.GAVE_UP:
            run.reason = end.reason
        elif number == 0:
            run.reason = run.overdue(math.inf)
        return end.failure

    def _made(
        self, run: SwitchRun, target: Generation, expected_live: int, unsound: str, number: int, deadline: float
    ) -> Attempt:
        request, config, catalog = run.message.request, self._context.config, self._context.catalog
        audit = {
            "by": request.performed_by,
            "reason": request.reason,
            "forced": request.force_switch,
            "rollback": run.message.rollback or target is not run.target,
            "overridden": run.validation.errors + run.validation.allowed if target is run.target else [],
        }
        shadow = catalog.shadow(target.row.shadow_id)
        leave = partial(transitions.leave_group, shadow_id=shadow.id, break_group=request.break_group)
        alone = signed(leave, request.performed_by, request.reason)

        def transition(commit: Commit) -> IndexRow:
            alone(commit)
            return transitions.commit_switch(
                commit,
                target.row.number,
                shadow.token,
                expected_live,
                commit.head(target.row.branch)[0],
                config.soak_s,
                request.strategy or config.publish_strategy,
                audit,
                unsound,
            )

        return Attempt(
            self._context,
            self._indexes.of_generation(target),
            self._generations,
            target,
            self._heads,
            self._pause,
            self._publisher,
            partial(self._router.tell, catalog.branch(run.message.branch_name)),
            transition,
            number,
            deadline,
        )

    def _verify(self, run: SwitchRun) -> Failure:
        """A verification that lacks a resource is no verdict: the digest, proven before the commit, keeps it live."""
        look = partial(verify, self._context, self._indexes.of_generation(run.target), run.target, run.commit_lsn)
        try:
            run.problems = patiently(look, self._context.clock, run.seconds_left(self._context.clock.monotonic()))
        except (ResourceExhausted, StorageFull) as error:
            run.reason = f"it was not verified: {error}"
            return Failure.NONE
        except Exception as error:
            logger.exception("verification of generation %d raised", run.target.row.number)
            run.problems = [f"reading from the new generation failed: {error}"]
        if run.problems:
            run.reason = f"verification failed: {'; '.join(run.problems)}"
        return Failure.UNSOUND if run.problems else Failure.NONE

    def _revert(self, run: SwitchRun) -> Failure:
        """Make the old generation live again, or none if there was none; the bad one retires in that transaction."""
        unfit = run.reason
        if run.old is not None:
            deadline = self._context.clock.monotonic() + max(REVERT_S, run.message.request.switch_timeout_seconds)
            failure = self._attempt(run, run.old, run.target.row.number, unfit, deadline)
        else:
            failure = self._withdraw(run, unfit)
        failed = failure != Failure.NONE and self._is_live(run.target)
        run.reason = f"{unfit}; going back failed as well: {run.reason}" if failed else unfit
        return failure

    def _withdraw(self, run: SwitchRun, unfit: str) -> Failure:
        number, index = run.target.row.number, self._indexes.of_generation(run.target)
        reply: Reply[IndexRow] = Reply()
        message = CommitSwitch(
            lambda: None,
            lambda commit: transitions.withdraw_live(commit, number, unfit),
            partial(index.agree, self._context.catalog, self._generations),
            reply,
        )
        try:
            self._router.tell(self._context.catalog.branch(run.message.branch_name), message)
            result_of(reply, COMMIT_TIMEOUT_S, "switch back")
            failpoint("switch.withdrawn")
        except ShadowSwitchError as error:
            run.reason = str(error)
            return Failure.ERROR
        return Failure.NONE

    # -- the end ---------------------------------------------------------------------------------------------------

    def _give_up(self, run: SwitchRun) -> None:
        """Nothing was committed: the shadow is BUILT again, if it was SWITCHING."""
        row = self._context.catalog.find_shadow(run.message.shadow_id)
        if row is not None and row.state == ShadowState.SWITCHING:
            reason = run.reason or "the switch failed in an unforeseen way; see the log"
            work = partial(transitions.give_up_switching, shadow_id=row.id, reason=reason)
            self._transact_quietly(signed(work, run.message.request.performed_by))
            failpoint("switch.given_up")

    def _finish(self, run: SwitchRun, outcome: SwitchOutcome) -> SwitchResult:
        """What is done and said for each outcome."""
        metrics = self._context.metrics
        if outcome == SwitchOutcome.SWITCHED:
            text = self._after_switch(run)
        elif outcome == SwitchOutcome.REVERTED:
            metrics.count("automatic_rollbacks")
            text = f"{run.reason}; the index was switched back, nothing was lost"
        elif outcome == SwitchOutcome.REVERT_FAILED:
            lost = f"generation {run.previous}, which was live, could not be opened; rebuild the index"
            text = run.reason if run.way_back != WayBack.LOST else f"{run.reason}; going back failed as well: {lost}"
        else:
            metrics.count("switches_refused")
            text = run.reason if run.reason.startswith("validation failed") else f"not switched: {run.reason}"
        return run.result(outcome, text, self._context.clock.monotonic())

    def _after_switch(self, run: SwitchRun) -> str:
        """The target is live, or was until a later switch: publish it, end an unwanted soak, say what was done."""
        target, message = run.target, run.message
        if not self._is_live(target):
            return f"switched to generation {target.row.number}; another switch has moved on since ({run.reason})"
        self._find_commit_lsn(run)
        strategy = message.request.strategy or self._context.config.publish_strategy
        unpublished = self._publish(run, strategy, "its published path")
        try:
            self._retire_old(run)
        except ShadowSwitchError as error:
            run.reason = run.reason or str(error)
        if run.problems:
            return f"switched, because {message.unsound}; {run.reason}; rebuild the index"
        if run.reason:
            return f"switched, but not all that follows was done: {run.reason}{unpublished}"
        self._context.metrics.count("rollbacks" if message.rollback else "switches")
        word = "rolled back" if message.rollback else "switched"
        text = f"{word} to generation {target.row.number} in {run.sealed_ms:.1f} ms of sealed time{unpublished}"
        return text + run.validation.remarks

    def _retire_old(self, run: SwitchRun) -> None:
        """No soak without `backup_current`, or for a live generation that could not even be opened."""
        index = self._context.catalog.index(run.target.row.branch, run.target.row.index_type)
        if index is not None and index.previous and (run.old is None or not run.message.request.backup_current):
            self._context.transact(lambda c: transitions.retire_previous(c, index.previous), "retire previous")

    def _settle(self, message: RunSwitch) -> None:
        """The branch may be READY now. If that cannot be stored at this moment, the Janitor tries again."""
        settle = SettleBuild(message.shadow_id, Reply())
        try:
            self._router.tell(self._context.catalog.branch(message.branch_name), settle)
            result_of(settle.reply, SETTLE_S, "the completion of the indexing")
        except ShadowSwitchError as error:
            logger.warning("branch %s does not know yet that it was indexed: %s", message.branch_name, error)

    def _emit(self, message: RunSwitch, result: SwitchResult) -> None:
        """An event with what the switch cost."""
        figures, took_s = figures_of(result, message.rollback), result.switch_duration_ms / 1000
        finish = partial(transitions.finish_switch, shadow_id=message.shadow_id, figures=figures, took_s=took_s)
        self._transact_quietly(signed(finish, message.request.performed_by, message.request.reason))
