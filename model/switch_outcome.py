"""How a switch ends. Pure: one table from what happened to what is done next, or to the outcome.

    step       failure    target live   way back   then
    VALIDATE   NONE                                GO_ON         attempt
    VALIDATE   any                                 NOT_SWITCHED  nothing was begun
    ATTEMPT    NONE                                GO_ON         verify
    ATTEMPT    any        yes                      SWITCHED      the commit's outcome was unknown; the catalog has it
    ATTEMPT    GAVE_UP    no                       GAVE_UP       no attempt came to its commit in time
    ATTEMPT    other      no                       NOT_SWITCHED  nothing was changed
    VERIFY     NONE                                SWITCHED
    VERIFY     any        no                       SWITCHED      a later switch has moved on
    VERIFY     any        yes           FIRST      REVERT        the index had no generation before: it has none again
    VERIFY     any        yes           OPEN       REVERT        to the generation that was live before
    VERIFY     any        yes           UNSOUND    SWITCHED      neither is sound; the newer one is served
    VERIFY     any        yes           LOST       REVERT_FAILED the old generation could not even be opened
    REVERT     NONE                                REVERTED
    REVERT     any        no                       REVERTED      the commit's outcome was unknown; the catalog has it
    REVERT     any        yes                      REVERT_FAILED

`target live` is what the catalog says (IX-1). It is asked, and not remembered: the transaction of a switch can be
durable although its answer was an error.
"""

from __future__ import annotations

from enum import StrEnum


class SwitchStep(StrEnum):
    """The steps of a switch, in order; REVERT only after VERIFY found something."""

    VALIDATE = "validate"
    ATTEMPT = "attempt"
    VERIFY = "verify"
    REVERT = "revert"


class Failure(StrEnum):
    """What went wrong in a step."""

    NONE = "none"
    REFUSED = "refused"
    """A check, a fence or a condition said no."""
    GAVE_UP = "gave up"
    """The step did not come to its end in time, and can be tried again."""
    UNSOUND = "unsound"
    """The generation is not what its source is."""
    ERROR = "error"
    """An exception; what it left behind is for the catalog to say."""


class WayBack(StrEnum):
    """What a switch could go back to."""

    FIRST = "first"
    """The index had no live generation before."""
    OPEN = "open"
    """The generation that was live before is open and follows the journal."""
    UNSOUND = "unsound"
    """It is being left because it is unsound."""
    LOST = "lost"
    """It could not be opened."""


class SwitchOutcome(StrEnum):
    """What is done next (the first two), or how the switch ended."""

    GO_ON = "go on"
    REVERT = "revert"
    NOT_SWITCHED = "not switched"
    GAVE_UP = "gave up"
    SWITCHED = "switched"
    REVERTED = "reverted"
    REVERT_FAILED = "revert failed"


_REVERSAL = {
    WayBack.FIRST: SwitchOutcome.REVERT,
    WayBack.OPEN: SwitchOutcome.REVERT,
    WayBack.UNSOUND: SwitchOutcome.SWITCHED,
    WayBack.LOST: SwitchOutcome.REVERT_FAILED,
}


def decide(step: SwitchStep, failure: Failure, target_live: bool, way_back: WayBack) -> SwitchOutcome:
    """The table above."""
    if step == SwitchStep.VALIDATE:
        return SwitchOutcome.GO_ON if failure == Failure.NONE else SwitchOutcome.NOT_SWITCHED
    if step == SwitchStep.ATTEMPT:
        if failure == Failure.NONE:
            return SwitchOutcome.GO_ON
        if target_live:
            return SwitchOutcome.SWITCHED
        return SwitchOutcome.GAVE_UP if failure == Failure.GAVE_UP else SwitchOutcome.NOT_SWITCHED
    if step == SwitchStep.VERIFY:
        return SwitchOutcome.SWITCHED if failure == Failure.NONE or not target_live else _REVERSAL[way_back]
    return SwitchOutcome.REVERT_FAILED if failure != Failure.NONE and target_live else SwitchOutcome.REVERTED
