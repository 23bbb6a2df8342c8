"""What a switch of a group does to its members in the catalog: each function runs in one transaction for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.group.group_attempt import Move
from shadowswitch.actors.group.group_run import GroupRun, RunGroup
from shadowswitch.actors.switch.switch_run import SwitchRun
from shadowswitch.model.groups.views import GroupState
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.generations.generation import Generation

WENT_BACK = "its group went back"


def author_of(message: RunGroup) -> tuple[str, str]:
    """Author and reason of the request."""
    return message.request.performed_by, message.request.reason


def begin_all(message: RunGroup, commit: Commit) -> None:
    """SWITCHING, every member from BUILT only: two switches of the group exclude each other."""
    for one in message.members:
        transitions.begin_switching(commit, one.shadow_id)


def give_up_all(message: RunGroup, reason: str, commit: Commit) -> None:
    """BUILT again, every member that is SWITCHING."""
    for one in message.members:
        if commit.shadow(one.shadow_id).state == ShadowState.SWITCHING:
            transitions.give_up_switching(commit, one.shadow_id, reason)


def switch_all(run: GroupRun, back: bool, commit: Commit, moves: Sequence[Move]) -> list[IndexRow]:
    """Every member moves, and the group with them: forward, or `back` because a member did not verify."""
    message = run.message
    work = partial(
        transitions.switch_members,
        group_id=message.group.id,
        epoch=run.epoch,
        state=GroupState.REVERTED if back else message.state,
        moves=moves,
        previous=[one.previous for one in run.runs],
        break_group=message.request.break_group,
        message=run.reason if back else "",
    )
    return signed(work, *author_of(message))(commit)


def switch_one(
    context: EngineContext,
    run: GroupRun,
    one: SwitchRun,
    back: bool,
    target: Generation,
    token: int,
    commit: Commit,
) -> IndexRow:
    """A member is switched. Back: the generation that it leaves retires, sound or not, for all went back together."""
    request, config = run.message.request, context.config
    audit = {
        "by": request.performed_by,
        "reason": request.reason,
        "forced": request.force_switch,
        "rollback": run.message.rollback or back,
        "overridden": [] if back else one.validation.errors + one.validation.allowed,
    }
    expected = one.target.row.number if back else one.previous
    unsound = "; ".join(one.problems) if back else one.message.unsound
    row = transitions.commit_switch(
        commit,
        target.row.number,
        token,
        expected,
        commit.head(target.row.branch)[0],
        config.soak_s,
        request.strategy or config.publish_strategy,
        audit,
        unsound,
    )
    if back and not unsound:
        transitions.retire_previous(commit, expected, WENT_BACK)
    return row


def withdraw_one(one: SwitchRun, commit: Commit) -> IndexRow:
    """A member had no generation before, and has none again."""
    row = one.target.row
    if one.problems:
        return transitions.withdraw_live(commit, row.number, "; ".join(one.problems))
    return transitions.withdraw_member(commit, row.branch, row.index_type, row.number, WENT_BACK)
