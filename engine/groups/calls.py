"""Groups: the calls that start, switch, roll back and end several indexes together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pykka

from shadowswitch.actors.build.registry import BuildRegistry
from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.group.group_check import MemberReaders
from shadowswitch.actors.group.group_run import RunGroup
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.host_answer import Reasons
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.switch_run import MORE_TIME, RunSwitch
from shadowswitch.engine.arguments import check_text
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.calls.switches import GIVE_UP_S, GONE, SWITCH_GRACE_S, accountable
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import (
    EngineClosed,
    InvalidConfig,
    InvalidTransition,
    ShadowSwitchError,
    Timeout,
    UnknownIndex,
)
from shadowswitch.model.groups.views import (
    SWITCHED,
    Group,
    GroupMember,
    GroupMemberInfo,
    GroupResult,
    GroupState,
)
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import SwitchRequest, check_known
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import GroupMemberRow, GroupRow, ShadowRow
from shadowswitch.storage.catalog.source.group_table import group_row, group_rows, index_text, named, switched_group
from shadowswitch.storage.catalog.transaction import signed

logger = logging.getLogger("shadowswitch")

NAME_CHARS_MAX = 200
MEMBERS_MAX = 100
"""Writers wait for the turn of all members: a group is a handful of indexes."""
S = ShadowState


class GroupCalls:
    """Groups of indexes. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        generations: OpenGenerations,
        validator: ShadowValidator,
        builds: BuildRegistry,
        broken: dict[tuple[int, str], str],
        start_switcher: Callable[[], pykka.ActorRef[Any]],
    ) -> None:
        """A switch removes its indexes from `broken`: by branch and type, the reason why an index is not served."""
        self._context = context
        self._catalog = context.catalog
        self._state = state
        self._branches = branches
        self._generations = generations
        self._validator = validator
        self._builds = builds
        self._broken = broken
        self._start_switcher = start_switcher
        self._checks: dict[str, tuple[str | None, Callable[[MemberReaders], Reasons]]] = {}

    # -- starting and looking --------------------------------------------------------------------------------------

    def start_group(self, name: str, members: Sequence[GroupMember], *, by: str = "", reason: str = "") -> Group:
        """Begin to build several indexes that will be switched together; returns at once.

        All builds are claimed in one transaction, or none. Then they run beside each other, as `Config.builds_max`
        lets them; `wait_for` waits for each. Members may be on several branches. Until the soak behind its switch is
        over, the group holds its indexes: none of them is switched or rolled back alone, or dropped. `name` is for
        people, and need not be unique. Raises DuplicateBuild, InvalidConfig, InvalidName, UnknownBranch.
        """
        self._state.check()
        if not check_text("name", name, NAME_CHARS_MAX).strip():
            raise InvalidConfig("a group has a name", operation="start_group", hint='say start_group("schema-42", ...)')
        wanted = _members(members)
        named_by = author(by, reason)
        claims = []
        for one in wanted:
            row = self._branches.row(one.branch)
            claims.append(self._builds.claiming(row, one.index_type, one.resource_types, one.build_config))
        work = partial(transitions.start_group, name=name, claims=claims)
        group = self._context.transact(signed(work, *named_by), "start group")
        for member in group.members:
            self._builds.start(self._catalog.shadow(member.shadow_id))
        return self._view(group)

    def group(self, id: str) -> Group:
        """The status of a group. Raises UnknownGroup."""
        self._state.check()
        return self._view(group_row(self._catalog, id))

    def groups(self) -> list[Group]:
        """Every group, oldest first. Of those that have ended, the last hundred are kept."""
        self._state.check()
        return [self._view(row) for row in group_rows(self._catalog)]

    def _view(self, row: GroupRow) -> Group:
        return group_view(self._catalog, row)

    def dissolve_group(self, id: str, by: str = "", reason: str = "") -> Group:
        """Let the members go: each is switched, rolled back, dropped and cancelled alone from now on.

        Nothing else changes: builds go on, and what is live stays so. Raises UnknownGroup, InvalidTransition for a
        group that has ended.
        """
        self._state.check()
        named_by = author(by, reason)
        text = f"dissolve_group by {named_by[0]}"
        work = signed(partial(transitions.dissolve, group_id=id, reason=text), *named_by)
        return self._view(self._context.transact(work, "dissolve group"))

    def add_group_validator(
        self, name: str, validator: Callable[[MemberReaders], Reasons], group: str | None = None
    ) -> None:
        """Register a check that each switch of a group asks; with `group`, each switch of a group of that name.

        `validator(readers)` gets a mapping with an IndexReader of each member, by `(branch, index_type)`, or by the
        index type alone where one member has it. All readers show their branches as of one LSN, `readers.lsn`. It
        returns its findings as a validator does, see `add_validator`: each refuses the switch unless `force_switch`
        overrides them. It runs on a thread of its own; the members are not followed meanwhile, and writers go on. A
        rollback does not ask it. Raises InvalidConfig for a name that is taken.
        """
        self._state.check()
        if not isinstance(name, str) or not name or name in self._checks:
            raise InvalidConfig(f"{name!r} cannot be the name of a group validator", hint="choose another")
        if not callable(validator):
            raise InvalidConfig(f"a group validator is a function of readers, not {validator!r:.80}")
        if group is not None:
            check_text("group", group, NAME_CHARS_MAX)
        self._checks[name] = (group, self._state.callback(validator))

    # -- switching -------------------------------------------------------------------------------------------------

    def switch_group(self, id: str, request: SwitchRequest | None = None) -> GroupResult:
        """Make the BUILT shadows of a group live, all in one transaction, or none of them.

        Every member is validated as in `switch`; then every group validator is asked. A problem of one refuses all
        (`success=False`), and all shadows are BUILT again. Behind the commit every member is verified; if one is wrong,
        all go back together. `switch_timeout_seconds` bounds the call as in `switch`. Raises UnknownGroup, Timeout, and
        InvalidTransition while a member is not BUILT.
        """
        self._state.check()
        request = self._checked(request)
        row = group_row(self._catalog, id)
        view = self._view(row)
        if view.state != GroupState.BUILT:
            raise InvalidTransition(
                f"{named(row)} is {view.state}, only a BUILT one can be switched", operation="switch_group", object=id,
                hint=_unswitchable(view),
            )  # fmt: skip
        members = []
        for one in row.members:
            target = self._generations.get(one.generation)
            if target is None:
                unread = self._generations.unread.get(one.generation, "its generation is not open")
                raise InvalidTransition(f"{index_text(one)} cannot be switched to: {unread}", operation="switch_group")
            members.append(RunSwitch(one.branch_name, target, one.shadow_id, request, False, Reply()))
        return self._run(row, tuple(members), request, GroupState.ACTIVE, rollback=False)

    def rollback_group(self, id: str, request: SwitchRequest | None = None) -> GroupResult:
        """Switch all members to their previous generations, in one transaction, or none of them. Again: forward.

        The previous generations have followed the journal: nothing is lost. Raises UnknownGroup, InvalidTransition for
        a group that was not switched or has ended, UnknownIndex when a member has no previous generation, Timeout.
        """
        self._state.check()
        return self._roll_back(group_row(self._catalog, id), self._checked(request))

    def holder_of(self, branch: int, index_type: str) -> GroupRow | None:
        """The group that was switched and holds this index."""
        return switched_group(group_rows(self._catalog), branch, index_type)

    def go_back(self, row: GroupRow, request: SwitchRequest, leaving: int, unsound: str) -> GroupResult:
        """Leave the generation of a member for that reason, all members together, if it is still live."""
        return self._roll_back(row, request, leaving, unsound)

    def _roll_back(self, row: GroupRow, request: SwitchRequest, leaving: int = 0, unsound: str = "") -> GroupResult:
        if row.state not in SWITCHED:
            hint = "it was not switched yet" if row.state == GroupState.BUILDING else f"it has ended: {row.ended}"
            raise InvalidTransition(
                f"{named(row)} is {row.state} and cannot be rolled back", operation="rollback_group", object=row.id,
                hint=hint,
            )  # fmt: skip
        members = []
        for one in row.members:
            index = self._catalog.index(one.branch, one.index_type)
            target = self._generations.get(index.previous) if index is not None else None
            if index is None or target is None or target.closed:
                gone = self._generations.unread.get(index.previous, GONE) if index is not None else GONE
                raise UnknownIndex(
                    f"{index_text(one)} has no previous generation, so {named(row)} cannot go back",
                    operation="rollback_group", object=row.id,
                    hint=gone if one.previous else "the index was new with the group; a new build replaces it",
                )  # fmt: skip
            left, why = (leaving, unsound) if index.live == leaving else (0, "")
            shadow_id = target.row.shadow_id
            members.append(RunSwitch(one.branch_name, target, shadow_id, request, True, Reply(), left, why))
        if leaving and not any(one.leaving for one in members):
            raise InvalidTransition(f"generation {leaving} is not live any more", operation="rollback_group")
        state = GroupState.ROLLED_BACK if row.state == GroupState.ACTIVE else GroupState.ACTIVE
        return self._run(row, tuple(members), request, state, rollback=True)

    def _checked(self, request: SwitchRequest | None) -> SwitchRequest:
        request = request if request is not None else SwitchRequest()
        if not isinstance(request, SwitchRequest):
            raise InvalidConfig(f"a switch takes a SwitchRequest, not {request!r:.80}", hint="say SwitchRequest()")
        check_known(request, self._validator.host_checks)
        return accountable(request)

    def _run(
        self, row: GroupRow, members: tuple[RunSwitch, ...], request: SwitchRequest, state: GroupState, rollback: bool
    ) -> GroupResult:
        checks = {name: check for name, (group, check) in self._checks.items() if group in (None, row.name)}
        reply: Reply[GroupResult] = Reply()
        message = RunGroup(row, members, request, state, rollback, checks, reply)
        Address(self._start_switcher).tell(message)
        operation = "rollback_group" if rollback else "switch_group"
        try:
            if not reply.wait(request.switch_timeout_seconds + GIVE_UP_S) and reply.cancel():
                raise Timeout(
                    f"{named(row)} did not come to its commit within {request.switch_timeout_seconds:g} s; the switch"
                    " was given up, and nothing was changed",
                    operation=operation, object=row.id, hint=MORE_TIME,
                )  # fmt: skip
            result = reply.result(SWITCH_GRACE_S)
        except EngineClosed as error:
            raise EngineClosed(
                "the engine was closed while a group was switched; it took effect as a whole or not at all",
                operation=operation, object=row.id, hint="open the engine again, and look at the group",
            ) from error  # fmt: skip
        except TimeoutError as error:
            if isinstance(error, ShadowSwitchError):
                raise
            raise Timeout(
                f"the commit of {named(row)} is under way and has not ended",
                operation=operation, object=row.id, hint="look at the group: it took effect as a whole or not at all",
            ) from None  # fmt: skip
        if result.success:
            for one in row.members:
                self._broken.pop((one.branch, one.index_type), None)
        return result


def _members(members: Sequence[GroupMember]) -> list[GroupMember]:
    """The members, by branch and index type. Raises InvalidConfig."""
    if isinstance(members, str | Mapping) or not isinstance(members, Sequence):
        raise InvalidConfig(f"members is a list of GroupMember, not {members!r:.80}", operation="start_group")
    for one in members:
        if not isinstance(one, GroupMember):
            raise InvalidConfig(
                f"a member is a GroupMember, not {one!r:.80}", operation="start_group",
                hint='say GroupMember("main", "SEARCH_INDEX", ["object_type"])',
            )  # fmt: skip
    if not 1 <= len(members) <= MEMBERS_MAX:
        raise InvalidConfig(f"a group has 1 to {MEMBERS_MAX} members, not {len(members)}", operation="start_group")
    keys = [(str(one.branch), str(one.index_type)) for one in members]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise InvalidConfig(f"{twice[1]} of branch {twice[0]!r} stands twice in the group", operation="start_group")
    return [one for _, one in sorted(zip(keys, members, strict=True), key=lambda pair: pair[0])]


def _unswitchable(view: Group) -> str:
    """The next step for a group that is not BUILT."""
    if view.state in SWITCHED:
        return "it has been switched; rollback_group goes back"
    if view.message:
        return view.message
    waits = [f"{one.index_type} of branch {one.branch_name!r} is {one.state}" for one in view.members
             if one.state != S.BUILT]  # fmt: skip
    return f"{'; '.join(waits)}: wait for each with wait_for"


def group_view(catalog: Catalog, row: GroupRow) -> Group:
    """A group as the catalog has it."""
    shadows = [catalog.find_shadow(one.shadow_id) for one in row.members]
    state, message = row.state, row.ended
    if state == GroupState.BUILDING:
        state, message = _of_members(row.members, shadows)
    members = [
        GroupMemberInfo(
            one.branch_name, one.index_type, one.shadow_id, one.generation, one.previous or None,
            shadow.state if shadow is not None else None, (shadow.error or None) if shadow is not None else None,
        )
        for one, shadow in zip(row.members, shadows, strict=True)
    ]  # fmt: skip
    switched = datetime.fromtimestamp(row.switched_at, UTC) if row.switched_at is not None else None
    made = datetime.fromtimestamp(row.created_at, UTC)
    return Group(row.id, row.name, members, state, row.epoch, made, switched, message)


def _of_members(members: Sequence[GroupMemberRow], shadows: Sequence[ShadowRow | None]) -> tuple[GroupState, str]:
    """The state of a group that was not switched yet, and why it failed."""
    states = [shadow.state if shadow is not None else None for shadow in shadows]
    for one, shadow, state in zip(members, shadows, states, strict=True):
        if state in (S.FAILED, S.CANCELLED, S.CLEANUP, None):
            error = shadow.error if shadow is not None else "its row is gone"
            return GroupState.FAILED, f"{index_text(one)} is {state or 'gone'}: {error}"
    if S.SWITCHING in states:
        return GroupState.SWITCHING, ""
    return (GroupState.BUILT if set(states) == {S.BUILT} else GroupState.BUILDING), ""
