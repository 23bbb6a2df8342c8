"""The transitions of a group: it is started, switched, rolled back, and it ends.

`switch_members` is the commit point of a group: the rows of all members and of the group change in one transaction, so
a kill leaves all members old or all new (GR-1). A group holds its indexes until it ends: no other transition switches
one of them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from shadowswitch.model.errors import InvalidTransition, StaleFence
from shadowswitch.model.groups.views import BOUND, SWITCHED, GroupState
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.rows import GroupMemberRow, GroupRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.source.group_table import (
    ENDED_MAX,
    group_in,
    group_of_shadow,
    groups_in,
    index_text,
    named,
    switched_group,
)
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.retirement import retire_index, retire_previous
from shadowswitch.storage.failpoints import failpoint

HELD = "held_groups"
"""The number of `meta` that counts the groups which hold indexes: most transactions need not look for one."""
Move = Callable[[Commit], IndexRow]
"""What a switch or rollback does to one member."""


def group(commit: Commit, group_id: str) -> GroupRow:
    """A group as of this transaction. Raises UnknownGroup."""
    return group_in(commit.txn, commit.db, group_id)


def held(commit: Commit) -> list[GroupRow]:
    """The groups that hold indexes, as of this transaction."""
    if not commit.catalog.number(HELD, commit.txn):
        return []
    return [row for row in groups_in(commit.txn, commit.db) if row.state in BOUND]


def _put(commit: Commit, row: GroupRow, was: GroupState | None) -> GroupRow:
    change = (row.state in BOUND) - (was in BOUND)
    if change:
        commit.put_number(HELD, commit.catalog.number(HELD, commit.txn) + change)
    commit.txn.put(SEQUENCE.pack(row.number), rows.encode_row(row), db=commit.db["groups"])
    return row


def _figures(row: GroupRow) -> dict[str, object]:
    members = [f"{one.branch_name} {one.index_type}" for one in row.members]
    return {"name": row.name, "members": members, "epoch": row.epoch}


def start_group(commit: Commit, name: str, claims: Sequence[Callable[[Commit], ShadowRow]]) -> GroupRow:
    """Claim the build of every member, and make the group. Raises what the claims raise: then nothing was claimed."""
    shadows = sorted((claim(commit) for claim in claims), key=lambda one: (one.branch_name, one.index_type))
    members = [GroupMemberRow(one.branch, one.branch_name, one.index_type, one.id, one.generation) for one in shadows]
    number = commit.next_number("group")
    row = GroupRow(rows.FORMAT, number, name, GroupState.BUILDING, members, commit.now())
    _put(commit, row, None)
    _forget_ended(commit)
    what = _figures(row) | {"shadows": [one.shadow_id for one in members]}
    commit.emit("group.started", row.id, what)
    commit.audit("group.started", row.id, what)
    return row


def _forget_ended(commit: Commit) -> None:
    """Remove the oldest groups that have ended, all but `ENDED_MAX`."""
    ended = [row.number for row in groups_in(commit.txn, commit.db) if row.state not in BOUND]
    for number in ended[: max(0, len(ended) - ENDED_MAX)]:
        commit.txn.delete(SEQUENCE.pack(number), db=commit.db["groups"])


def switch_members(
    commit: Commit, group_id: str, epoch: int, state: GroupState, moves: Sequence[Move], previous: Sequence[int],
    break_group: bool, message: str = "",
) -> list[IndexRow]:  # fmt: skip
    """THE ONLY COMMIT POINT of a group: every member moves, and the group is in `state`; or this raises, and none does.

    `moves` are those of the members in their order, `previous` the generations that are live before the first switch.
    Raises StaleFence when another switch of the group came first, InvalidTransition when another group holds an index.
    """
    failpoint("group.proven")
    row = group(commit, group_id)
    goes_back = state == GroupState.REVERTED and row.state == GroupState.COMPLETE  # no index had a generation before
    if row.epoch != epoch or not (row.state in BOUND or goes_back):
        raise StaleFence(
            f"{named(row)} is {row.state} with epoch {row.epoch}, epoch {epoch} was expected",
            operation="switch_group",
            hint="another switch came first; look at the group and decide again",
        )
    members = row.members
    if row.state not in SWITCHED:
        pairs = zip(members, previous, strict=True)
        members = [msgspec.structs.replace(one, previous=number) for one, number in pairs]
    supersede(commit, row, break_group)
    moved = []
    for move in moves:
        moved.append(move(commit))
        failpoint("group.moved")
    changed = msgspec.structs.replace(
        row, state=state, members=members, epoch=epoch + 1, switched_at=commit.now(), ended=message
    )
    _put(commit, changed, row.state)
    kind = "group.switched" if state == GroupState.ACTIVE else "group.rolled_back"
    what = _figures(changed) | {"sealed_lsns": [one.sealed_lsn for one in moved]}
    commit.emit(kind, row.id, what)
    commit.audit(kind, row.id, what)
    if state not in BOUND:
        _note_end(commit, changed)
    elif not any(one.previous for one in moved):
        _end(commit, changed, GroupState.COMPLETE, "no index had a generation before")
    return moved


def withdraw_member(commit: Commit, branch: int, index_type: str, generation: int, reason: str) -> IndexRow:
    """The index of a sound member has no generation again, because its group goes back."""
    index = commit.index(branch, index_type)
    if index is None or index.live != generation:
        raise StaleFence(f"generation {generation} is not live", operation="switch_group")
    return retire_index(commit, index, reason)


def end_soak(commit: Commit, group_id: str, reason: str = "its soak is over") -> bool:
    """The generations that soak for a rollback of the group retire together, and the group is COMPLETE."""
    row = group(commit, group_id)
    if row.state not in SWITCHED:
        return False
    for one in row.members:
        index = commit.index(one.branch, one.index_type)
        if index is not None and index.previous:
            retire_previous(commit, index.previous, reason)
    _end(commit, row, GroupState.COMPLETE, reason)
    return True


def dissolve(commit: Commit, group_id: str, reason: str) -> GroupRow:
    """The group holds its indexes no more; they stay as they are. Raises InvalidTransition when it has ended."""
    row = group(commit, group_id)
    if row.state not in BOUND:
        raise InvalidTransition(f"{named(row)} is {row.state}", operation="dissolve_group", object=row.id)
    return _end(commit, row, GroupState.DISSOLVED, reason)


def _end(commit: Commit, row: GroupRow, state: GroupState, reason: str) -> GroupRow:
    ended = _put(commit, msgspec.structs.replace(row, state=state, ended=reason), row.state)
    _note_end(commit, ended)
    return ended


def _note_end(commit: Commit, row: GroupRow) -> None:
    what = {**_figures(row), "state": str(row.state), "why": row.ended}
    commit.emit("group.ended", row.id, what)
    if not any(commit.author):
        what["reason"] = row.ended  # the engine decides by this rule
    commit.audit("group.ended", row.id, what)


def leave_group(commit: Commit, shadow_id: str, break_group: bool) -> None:
    """An index is about to be switched alone, to this shadow. Raises InvalidTransition if a group holds the index,
    unless it is broken up."""
    groups = held(commit)
    shadow = commit.shadow(shadow_id) if groups else None
    row = holder(groups, shadow.branch, shadow.index_type, shadow_id) if shadow is not None else None
    if row is None or shadow is None:
        return
    if not break_group:
        raise InvalidTransition(held_text(row, shadow.index_type), operation="switch", object=row.id)
    _end(commit, row, GroupState.DISSOLVED, f"{shadow.index_type} was switched alone (break_group)")


def holder(groups: Collection[GroupRow], branch: int, index_type: str, shadow_id: str) -> GroupRow | None:
    """The group without which an index cannot be switched to a shadow."""
    return switched_group(groups, branch, index_type) or group_of_shadow(groups, shadow_id)


def held_text(row: GroupRow, index_type: str) -> str:
    """Why an index is not switched alone, and what to do."""
    way = "rollback_group goes back with all" if row.state in SWITCHED else "switch_group switches all"
    return (
        f"{index_type} belongs to {named(row)}, whose members move together: {way},"
        " and break_group=True in the request breaks the group up"
    )


def cancel_member(commit: Commit, shadow_id: str) -> None:
    """The build of a member was ended for good: the group holds the others no more."""
    row = group_of_shadow(held(commit), shadow_id)
    if row is not None:
        one = next(one for one in row.members if one.shadow_id == shadow_id)
        _end(commit, row, GroupState.DISSOLVED, f"the shadow of {index_text(one)} was cancelled")


def supersede(commit: Commit, row: GroupRow, break_group: bool) -> None:
    """Other groups that hold indexes of this one end, for this one takes their place. Raises InvalidTransition where
    this would leave some of their members behind, unless they may be broken up."""
    keys = {(one.branch, one.index_type) for one in row.members}
    for other in held(commit):
        theirs = {(one.branch, one.index_type) for one in other.members}
        if other.number == row.number or other.state not in SWITCHED or not keys & theirs:
            continue
        if theirs <= keys:
            _end(commit, other, GroupState.COMPLETE, f"{named(row)} was switched in its place")
        elif break_group:
            _end(commit, other, GroupState.DISSOLVED, f"{named(row)} was switched to a part of its indexes")
        else:
            one = next(one for one in other.members if (one.branch, one.index_type) in keys)
            raise InvalidTransition(held_text(other, one.index_type), operation="switch_group", object=other.id)
