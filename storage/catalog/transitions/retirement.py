"""The transitions of a generation that leaves: it soaks, is found unsound, retires, and is forgotten."""

from __future__ import annotations

import msgspec

from shadowswitch.model.errors import InvalidTransition
from shadowswitch.model.events import ENGINE
from shadowswitch.model.shadow_state import GenerationRole, Phase, ShadowState
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.moves import emit, move, note_error


def soak(commit: Commit, number: int, soak_s: float) -> None:
    """The generation soaks for `soak_s` seconds: a rollback to it is possible until then."""
    old, ends = commit.generation(number), commit.catalog.clock.moment(soak_s)
    commit.put_generation(msgspec.structs.replace(old, role=GenerationRole.SOAKING, soak_ends=ends))
    commit.put_shadow(msgspec.structs.replace(commit.shadow(old.shadow_id), phase=Phase.SOAKING))


def retire(commit: Commit, number: int) -> None:
    """The generation retires: the Janitor will remove its files."""
    old = commit.generation(number)
    commit.put_generation(msgspec.structs.replace(old, role=GenerationRole.RETIRING, soak_ends=None))
    shadow = commit.shadow(old.shadow_id)
    if shadow.state == ShadowState.ACTIVE:
        move(commit, shadow, ShadowState.CLEANUP, phase=Phase.RETIRING)


def retire_and_emit(commit: Commit, number: int, reason: str) -> None:
    """The generation retires, with its event and its entry in the audit history: the engine decides by this rule."""
    retire(commit, number)
    shadow = commit.shadow(commit.generation(number).shadow_id)
    emit(commit, shadow, "generation.retired", generation=number, reason=reason)
    commit.audit("generation.retired", shadow.id, {"generation": number, "by": ENGINE, "reason": reason})


def mark_unsound(commit: Commit, generation_number: int, reason: str) -> None:
    """An unsound generation that is not live retires; it is never switched to again."""
    generation = commit.generation(generation_number)
    retire(commit, generation_number)
    shadow = note_error(commit, generation.shadow_id, reason)
    index = commit.index(generation.branch, generation.index_type)
    if index is not None and index.previous == generation_number:
        commit.put_index(msgspec.structs.replace(index, previous=0))
    emit(commit, shadow, "generation.condemned", generation=generation_number, reason=reason)
    commit.audit("generation.condemned", shadow.id, {"generation": generation_number, "reason": reason})


def note_read(commit: Commit, branch: int, index_type: str, live: int) -> None:
    """The live generation was read through, with a verdict."""
    index = commit.index(branch, index_type)
    if index is not None and index.live == live:
        commit.put_index(msgspec.structs.replace(index, unread=False))


def note_unsound(commit: Commit, shadow_id: str, reason: str) -> None:
    """A live generation that nothing can replace yet is unsound: it is served on, with an event."""
    emit(commit, note_error(commit, shadow_id, reason), "index.unsound", reason=reason)
    commit.audit("index.unsound", shadow_id, {"reason": reason})


def note_hindered(commit: Commit, number: int, reason: str) -> None:
    """A generation cannot follow the journal, for a reason; or follows it again ("")."""
    generation = commit.find_generation(number)
    if generation is None or bool(generation.hindered) is bool(reason):
        return
    commit.put_generation(msgspec.structs.replace(generation, hindered=reason))
    kind, what = ("generation.hindered", {"reason": reason}) if reason else ("generation.follows", {})
    emit(commit, commit.shadow(generation.shadow_id), kind, generation=number, **what)


def retire_previous(commit: Commit, generation_number: int, reason: str = "its soak is over") -> bool:
    """End the soak of the previous generation: no rollback to it is possible any more. False if it is not soaking."""
    generation = commit.generation(generation_number)
    index = commit.index(generation.branch, generation.index_type)
    if generation.role is not GenerationRole.SOAKING:
        return False
    if index is not None and index.previous == generation_number:
        commit.put_index(msgspec.structs.replace(index, previous=0))
    retire_and_emit(commit, generation_number, reason)
    return True


def retire_index(commit: Commit, index: IndexRow, reason: str) -> IndexRow:
    """The index has no generation any more: the live one retires, and the one that soaks."""
    row = msgspec.structs.replace(index, live=0, previous=0, epoch=index.epoch + 1, withdrawn="")
    commit.put_index(row)
    for number in (index.live, index.previous):
        if number:
            retire_and_emit(commit, number, reason)
    return row


FAILED_LONG_AGO = "the files of its failed build were kept for Config.failed_keep_s"


def retire_failed(commit: Commit, shadow_id: str, reason: str = FAILED_LONG_AGO) -> None:
    """The generation of a failed build retires: its files were kept long enough, or its branch was dropped."""
    row = commit.shadow(shadow_id)
    if row.state == ShadowState.FAILED:
        retire_and_emit(commit, row.generation, reason)


def forget_generation(commit: Commit, number: int) -> None:
    """Remove the row of a retiring generation whose directory was removed."""
    generation = commit.generation(number)
    if generation.role is not GenerationRole.RETIRING:
        raise InvalidTransition(f"generation {number} is {generation.role}, not retiring", operation="retire")
    commit.delete_generation(number)
    shadow = commit.shadow(generation.shadow_id)
    commit.put_shadow(msgspec.structs.replace(shadow, ended_at=commit.catalog.clock.moment()))
    what = {"generation": number, "reason": "it is retired, and no reader pins it"}
    commit.emit("generation.removed", generation.shadow_id, what)
