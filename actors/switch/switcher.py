"""The Switcher: one switch, from validation to verification. A short-lived actor for each switch or rollback.

    validate   outside any lock, at a common LSN; differing buckets are repaired once
    warm       open a reader of the target and let it touch the index
    attempt    see `actors.switch.attempt`; tried again with backoff until `switch_timeout_seconds`
    verify     the new generation through the ordinary reader path; failure: switch back at once, by the same code

Rollback is the same with the previous generation as the target.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.validator import Validation, repair, run_validator, validate
from shadowswitch.actors.context import House
from shadowswitch.actors.kit.actor import EngineActor, result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import RunSwitch, SettleBuild
from shadowswitch.actors.switch.attempt import Attempt, Outcome
from shadowswitch.actors.switch.verifier import verify
from shadowswitch.model.errors import ShadowSwitchError, StaleFence, Timeout
from shadowswitch.model.views import ADVISORY_CHECKS, SwitchResult
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.generation import Generation

logger = logging.getLogger("shadowswitch")

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
SETTLE_S = 10.0


class _Tally:
    """What the attempts of one switch cost."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.sealed_ms = 0.0
        self.sealed_ms_max = 0.0
        self.attempts = 0
        self.drained = 0
        self.tried = False
        self.sealed_lsn = 0
        self.validating = False

    def add(self, outcome: Outcome) -> None:
        self.attempts += 1
        self.sealed_ms += outcome.sealed_ms
        self.sealed_ms_max = max(self.sealed_ms_max, outcome.sealed_ms)
        self.drained += outcome.drained
        self.sealed_lsn = outcome.sealed_lsn

    def figures(self) -> dict[str, Any]:
        return {
            "switch_duration_ms": (time.perf_counter() - self.begun) * 1000,
            "sealed_ms": self.sealed_ms,
            "sealed_ms_max": self.sealed_ms_max,
            "attempts": self.attempts,
            "drained_changes": self.drained,
            "sealed_lsn": self.sealed_lsn,
        }


class _WayBack(NamedTuple):
    """Which generation was live before (0: none), if it is open; why it is gone back to; what condemns the new one."""

    number: int
    old: Generation | None
    reason: str
    condemned: str


class Switcher(EngineActor):
    """Runs one switch and stops."""

    def __init__(self, house: House, branches: BranchRouter) -> None:
        super().__init__("shadowswitch-switch", house.crashed)
        self._house = house
        self._branches = branches
        self.handles(RunSwitch, self._run)

    def _run(self, message: RunSwitch) -> None:
        try:
            if not message.reply.set_running_or_notify_cancel():
                return
            self._house.switching[self.actor_urn] = message.shadow_id
            try:
                result = self._begin(message)
            finally:
                del self._house.switching[self.actor_urn]
                self._house.lead_over(message.target.row.branch, message.target.row.index_type)
            self._tell(message, result)
            if result.success and self._house.catalog.shadow(message.shadow_id).track_ready:
                self._settle(message)
            message.reply.set_result(result)
        finally:
            self.stop()

    def _settle(self, message: RunSwitch) -> None:
        """The branch may be READY now. If that cannot be stored at this moment, the janitor tries again."""
        settle = SettleBuild(message.shadow_id, Reply())
        try:
            self._branches.tell(self._house.catalog.branch(message.branch_name), settle)
            result_of(settle.reply, SETTLE_S, "the completion of the indexing")
        except ShadowSwitchError as error:
            logger.warning("branch %s does not know yet that it was indexed: %s", message.branch_name, error)

    def _tell(self, message: RunSwitch, result: SwitchResult) -> None:
        """An event for whoever watches what switches cost."""
        figures = {
            "success": result.success,
            "rollback": message.rollback,
            "rolled_back": result.rolled_back,
            "generation": result.generation,
            "sealed_ms": round(result.sealed_ms, 3),
            "switch_duration_ms": round(result.switch_duration_ms, 3),
            "attempts": result.attempts,
            "drained_changes": result.drained_changes,
            "message": result.message,
        }
        self._transact_quietly(lambda c: transitions.finish_switch(c, message.shadow_id, figures))

    def _begin(self, message: RunSwitch) -> SwitchResult:
        tally, house = _Tally(), self._house
        if not message.rollback:
            house.transact(lambda c: transitions.begin_switching(c, message.shadow_id), "switch")
            failpoint("switch.begun")
        try:
            with message.target.maintenance_lock(house.config.validation_timeout_s):
                self._refuse_live(message.target)
                return self._switch(message, tally)
        except ShadowSwitchError as error:  # an unsuccessful switch is a result, not an exception
            self._restore(message, str(error))
            nothing = Validation({}, [str(error)] if tally.validating else [], [], 0, 0)
            done = tally.tried and self._is_live(message.target)  # the error came behind the commit, or in its answer
            return self._result(message, tally, done, self._half_done(message, done, error), nothing, None)
        except BaseException as error:
            self._restore(message, repr(error))
            raise

    def _refuse_live(self, target: Generation) -> None:
        """Two asked for the same; the first was served while the second waited. A live index is never held still."""
        if self._is_live(target):
            raise StaleFence(f"generation {target.row.number} is live already", operation="switch")

    def _is_live(self, generation: Generation) -> bool:
        """By the catalog, which decides (IX-1)."""
        index = self._house.catalog.index(generation.row.branch, generation.row.index_type)
        return index is not None and index.live == generation.row.number

    def _half_done(self, message: RunSwitch, done: bool, why: object) -> str:
        if done:
            return f"switched, but not all that follows was done: {why}{self._publish(message)}"
        return f"not switched: {why}"

    def _restore(self, message: RunSwitch, reason: str) -> None:
        """An attempt that failed in an unforeseen way: nothing was committed, the shadow is BUILT again."""
        row = self._house.catalog.find_shadow(message.shadow_id)
        if row is not None and row.state == "SWITCHING":
            self._house.transact(
                lambda c: transitions.give_up_switching(c, message.shadow_id, reason), "give up switch"
            )

    def _switch(self, message: RunSwitch, tally: _Tally) -> SwitchResult:
        house, target = self._house, message.target
        tally.validating = True
        validation = self._validated(message)
        tally.validating = False
        refused = self._refusal(message, validation)
        if refused:
            return self._given_up(message, tally, refused, validation)
        failpoint("switch.validated")
        target.warm()
        expected_live = self._expected_live(message)
        live = house.shelf.open.get(expected_live)
        outcome = self._attempts(message, tally, expected_live, validation.errors)
        if not outcome.committed:
            if self._is_live(target):  # an earlier attempt was, whose outcome was not known
                text = self._half_done(message, True, outcome.reason)
                return self._result(message, tally, True, text, validation, live)
            return self._given_up(message, tally, f"not switched: {outcome.reason}", validation)
        problems = [outcome.reason] if outcome.reason else self._verify(message, tally)
        if problems and not self._is_live(target):
            text = (
                f"switched to generation {target.row.number}; another switch has led on since ({'; '.join(problems)})"
            )
            return self._result(message, tally, True, text, validation, live)
        if outcome.passing and house.shelf.live.get((target.row.branch, target.row.index_type)) is None:
            self._retire_old(message, live)  # nothing is served instead, and nothing is wrong with it
            text = self._half_done(message, True, f"{outcome.reason}; readers are led to it once it has come as far")
            return self._result(message, tally, True, text, validation, live)
        if problems:
            unfit = f"verification failed: {'; '.join(problems)}"
            condemned = unfit if outcome.differing or not outcome.reason else ""  # no room, no time: that says nothing
            way_back = _WayBack(expected_live, live, unfit, condemned)
            return self._switch_back(message, tally, way_back, problems, validation)
        unpublished = self._publish(message)
        self._retire_old(message, live)
        house.metrics.count("rollbacks" if message.rollback else "switches")
        word = "rolled back" if message.rollback else "switched"
        text = f"{word} to generation {target.row.number} in {tally.sealed_ms:.1f} ms of sealed time{unpublished}"
        text += f"; not checked: {validation.unchecked}" if validation.unchecked else ""
        return self._result(message, tally, True, text, validation, live)

    def _retire_old(self, message: RunSwitch, live: Generation | None) -> None:
        """No soak for what nobody wants back, or for a live generation that could not even be opened."""
        index = self._house.catalog.index(message.target.row.branch, message.target.row.index_type)
        if index is not None and index.previous and (live is None or not message.request.backup_current):
            self._house.transact(lambda c: transitions.retire_previous(c, index.previous), "retire previous")

    # -- validation ------------------------------------------------------------------------------------------------

    def _validated(self, message: RunSwitch) -> Validation:
        house, target = self._house, message.target
        checks = list(dict.fromkeys([*message.request.validation_checks, "DIGEST"]))
        own = [check for check in checks if check not in house.validators]
        found = validate(house, target, own, queries=message.request.queries)
        if found.differing_buckets:
            house.metrics.count("buckets_repaired", len(found.differing_buckets))
            self._refuse_live(target)  # another switch may have led to it meanwhile
            repair(house, target, found.differing_buckets)
            found = validate(house, target, own, queries=message.request.queries)
        for check in checks:
            if check in house.validators:
                found = run_validator(house, target, check, found)
        return found

    def _refusal(self, message: RunSwitch, found: Validation) -> str:
        if not found.errors:
            return ""
        fatal = found.differing_buckets or any(
            errors and check not in ADVISORY_CHECKS and check not in self._house.validators
            for check, errors in found.findings.items()
        )
        if message.request.force_switch and not fatal:
            return ""
        return "validation failed: " + "; ".join(found.errors)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _expected_live(self, message: RunSwitch) -> int:
        index = self._house.catalog.index(message.target.row.branch, message.target.row.index_type)
        live = index.live if index is not None else 0
        if message.leaving not in (0, live):
            raise StaleFence(f"generation {message.leaving} is not live any more", operation="switch")
        return live

    def _attempts(
        self, message: RunSwitch, tally: _Tally, expected_live: int, overridden: Sequence[str] = ()
    ) -> Outcome:
        deadline = time.monotonic() + message.request.switch_timeout_seconds
        backoff = BACKOFF_FIRST_S
        request = message.request
        audit = {
            "by": request.performed_by,
            "reason": request.reason,
            "forced": request.force_switch,
            "rollback": message.rollback,
            "overridden": list(overridden),
        }
        tally.tried = True
        while True:
            try:
                outcome = Attempt(self._house, self._branches, message, expected_live, audit).run()
            except Timeout as error:
                outcome = Outcome(error.message)
            tally.add(outcome)
            if outcome.committed or outcome.differing or time.monotonic() + backoff > deadline:
                return outcome
            self._house.metrics.count("switch_attempts_given_up")
            time.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_MAX_S)

    # -- verification ----------------------------------------------------------------------------------------------

    def _verify(self, message: RunSwitch, tally: _Tally) -> list[str]:
        try:
            failpoint("switch.verify")
            return verify(self._house, message.target, tally.sealed_lsn)
        except Exception as error:
            logger.exception("verification of generation %d raised", message.target.row.number)
            return [f"reading from the new generation failed: {error}"]

    def _switch_back(
        self, message: RunSwitch, tally: _Tally, way: _WayBack, problems: list[str], validation: Validation
    ) -> SwitchResult:
        house, bad, old, reason = self._house, message.target, way.old, way.reason
        logger.error("generation %d is live but %s; switching back", bad.row.number, reason)
        if message.condemned:  # neither is sound: what is live is left to be served as well as it can be
            text = f"switched, because {message.condemned}; {reason}; rebuild the index"
            return self._result(message, tally, True, text, validation, old, verification_errors=problems)
        try:
            gone, more = self._go_back(message, tally, way)
        except ShadowSwitchError as error:
            gone, more = False, str(error)
        if not gone:
            return self._result(
                message, tally, False, f"{reason}; going back failed as well: {more}", validation, old,
                verification_errors=problems,
            )  # fmt: skip
        house.metrics.count("automatic_rollbacks")
        return self._result(
            message, tally, False, f"{reason}; the index was switched back, nothing was lost{more}", validation, old,
            verification_errors=problems, rolled_back=True,
        )  # fmt: skip

    def _go_back(self, message: RunSwitch, tally: _Tally, way: _WayBack) -> tuple[bool, str]:
        """Make the old generation live again, or none if there was none: was it done, and what is to be said of it."""
        house, bad, old = self._house, message.target, way.old
        if way.number == 0:
            house.transact(lambda c: transitions.withdraw_first(c, bad.row.number, way.reason), "switch back")
            failpoint("switch.withdrawn")
            self._house.lead_over(bad.row.branch, bad.row.index_type)
            return True, ""
        if old is None:
            return False, f"generation {way.number}, which was live, could not be opened; rebuild the index"
        back = RunSwitch(
            message.branch_name, old, old.row.shadow_id, message.request, True, Reply(), bad.row.number, way.condemned
        )
        outcome = self._attempts(back, tally, bad.row.number)
        if outcome.committed and outcome.reason:
            return True, f"; readers are led back once it has come as far: {outcome.reason}"
        return outcome.committed, outcome.reason

    def _publish(self, message: RunSwitch) -> str:
        """Lead outsiders to the new generation. A failure does not undo the switch; it is told, and tried again."""
        strategy = message.request.strategy or self._house.config.publish_strategy
        try:
            self._house.publish(message.branch_name, message.target, strategy)
        except (ShadowSwitchError, OSError) as error:
            logger.error("generation %d could not be published: %s", message.target.row.number, error)
            self._house.metrics.count("publish_errors")
            return f"; its path for outsiders could not be brought up to date: {error}"
        return ""

    # -- results ---------------------------------------------------------------------------------------------------

    def _given_up(self, message: RunSwitch, tally: _Tally, reason: str, validation: Validation) -> SwitchResult:
        if not message.rollback:
            self._transact_quietly(lambda c: transitions.give_up_switching(c, message.shadow_id, reason))
            failpoint("switch.given_up")
        self._house.metrics.count("switches_refused")
        return self._result(message, tally, False, reason, validation, None)

    def _transact_quietly(self, work: Callable[[Commit], Any]) -> None:
        try:
            self._house.transact(work, "end a switch")
        except (Timeout, ShadowSwitchError) as error:
            logger.error("the switch ended, but that could not be recorded: %s", error)

    def _result(
        self, message: RunSwitch, tally: _Tally, success: bool, text: str, validation: Validation, old: Generation |
        None, verification_errors: list[str] | None = None, rolled_back: bool = False,
    ) -> SwitchResult:  # fmt: skip
        errors = verification_errors or []
        old_path = str(old.path) if old is not None else None
        old_size = data_directory.directory_size_bytes(old.path) if old is not None else None
        kept = success and message.request.backup_current
        return SwitchResult(
            shadow_index_id=message.shadow_id,
            success=success,
            message=text,
            validation_passed=not validation.errors,
            validation_errors=validation.errors,
            verification_passed=not errors,
            verification_errors=errors,
            rolled_back=rolled_back,
            old_index_path=old_path,
            new_index_path=str(message.target.path),
            backup_path=old_path if kept else None,
            index_size_change_bytes=validation.size_bytes - old_size if old_size is not None else None,
            generation=message.target.row.number,
            **tally.figures(),
        )
