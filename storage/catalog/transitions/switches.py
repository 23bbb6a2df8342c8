"""The transitions of a switch. `commit_switch` is THE ONLY COMMIT POINT of a switch (SW-4, IX-1, IX-6)."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.errors import StaleFence
from shadowswitch.model.shadow_state import GenerationRole, Phase, PublishStrategy, ShadowState
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.moves import emit, move
from shadowswitch.storage.catalog.transitions.retirement import mark_unsound, retire_and_emit, retire_previous, soak
from shadowswitch.storage.generations.seeding import CLONE


def begin_switching(commit: Commit, shadow_id: str) -> ShadowRow:
    """SWITCHING, from BUILT only: two switches of one shadow exclude each other."""
    row = move(commit, commit.shadow(shadow_id), ShadowState.SWITCHING, phase=Phase.VALIDATING)
    emit(commit, row, "switch.started")
    return row


def give_up_switching(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """BUILT again: no reader saw a change."""
    row = move(commit, commit.shadow(shadow_id), ShadowState.BUILT, phase=Phase.WAITING)
    emit(commit, row, "switch.given_up", reason=reason)
    commit.audit("switch.given_up", shadow_id, {"reason": reason})
    return row


def finish_switch(commit: Commit, shadow_id: str, figures: dict[str, Any], took_s: float) -> None:
    """Emit the figures of a switch or rollback that has ended, in success or not: they are known after the commit.

    The times of the call and of the turn are kept with the shadow that is live now.
    """
    row = commit.shadow(shadow_id)
    if figures["success"]:
        row = msgspec.structs.replace(row, switch_s=took_s, sealed_ms=figures["sealed_ms"])
        commit.put_shadow(row)
    emit(commit, row, "switch.finished", **figures)


def commit_switch(
    commit: Commit,
    generation_number: int,
    token: int,
    expected_live: int,
    sealed_lsn: int,
    soak_s: float,
    strategy: str,
    audit: dict[str, Any],
    unsound: str = "",
) -> IndexRow:
    """THE ONLY COMMIT POINT: live = the generation, previous = the old one, states, audit, event (SW-3, SW-4).

    Raises StaleFence unless the expected generation is live and the shadow's fencing token is the present one. With a
    reason in `unsound` the old generation is unsound: it retires at once and is never switched to again.
    """
    generation = commit.generation(generation_number)
    shadow = commit.shadow(generation.shadow_id)
    index = commit.index(generation.branch, generation.index_type)
    live = index.live if index is not None else 0
    if live != expected_live or generation.role not in (GenerationRole.STANDBY, GenerationRole.SOAKING):
        raise StaleFence(
            f"generation {live} is live where {expected_live} was expected; {generation_number} is {generation.role}",
            operation="switch",
            hint="another switch came first; look at the index and decide again",
        )
    if shadow.token != token:
        text = f"token {token} of shadow {shadow.id} is not the present one, {shadow.token}"
        raise StaleFence(text, operation="switch")
    now = commit.now()
    if generation.role is GenerationRole.STANDBY:
        shadow = move(commit, shadow, ShadowState.ACTIVE, phase=Phase.LIVE, switched_at=now, plan=None)
    else:
        shadow = msgspec.structs.replace(shadow, phase=Phase.LIVE, switched_at=now)
        commit.put_shadow(shadow)
    commit.put_generation(
        msgspec.structs.replace(generation, role=GenerationRole.LIVE, switched_at=now, soak_ends=None)
    )
    if index is not None and index.previous not in (0, generation_number, live):
        retire_and_emit(commit, index.previous, f"generation {live} soaks in its place")
    if live:
        soak(commit, live, soak_s)
    epoch = (index.epoch if index is not None else 0) + 1
    is_unread = shadow.seed == CLONE and generation.role is GenerationRole.STANDBY
    row = IndexRow(
        rows.FORMAT, generation.branch, generation.index_type, generation_number, live, epoch, sealed_lsn, now,
        PublishStrategy(strategy), unread=is_unread,
    )  # fmt: skip
    commit.put_index(row)
    what = {"generation": generation_number, "previous": live, "sealed_lsn": sealed_lsn, "epoch": epoch}
    emit(commit, shadow, "rollback.committed" if audit.get("rollback") else "switch.committed", **what, **audit)
    commit.audit("switch.committed", shadow.id, {**what, **audit})
    if unsound and live:
        mark_unsound(commit, live, unsound)
    return row


def retune(commit: Commit, number: int, settings: dict[str, Any], build_config: dict[str, Any]) -> GenerationRow:
    """The readers of a live generation take other options; its files stay. Raises StaleFence if it was left."""
    generation = commit.generation(number)
    index = commit.index(generation.branch, generation.index_type)
    if index is None or index.live != number:
        raise StaleFence(f"generation {number} is not live any more", operation="retune", hint="try again")
    row = msgspec.structs.replace(generation, settings=settings)
    commit.put_generation(row)
    shadow = msgspec.structs.replace(commit.shadow(generation.shadow_id), build_config=build_config)
    commit.put_shadow(shadow)
    what = {"generation": number, "settings": settings}
    emit(commit, shadow, "index.retuned", **what)
    commit.audit("index.retuned", shadow.id, what)
    return row


def withdraw_live(commit: Commit, generation_number: int, reason: str, served: bool = False) -> IndexRow:
    """The index has no live generation any more, and none that soaks, which has followed as far.

    The reason stays with an index that was `served`.
    """
    generation = commit.generation(generation_number)
    index = commit.index(generation.branch, generation.index_type)
    if index is None or index.live != generation_number:
        raise StaleFence(f"generation {generation_number} is not live", operation="switch")
    if index.previous:
        retire_previous(commit, index.previous, "it followed the generation that is withdrawn")
    withdrawn = reason if served else ""
    row = msgspec.structs.replace(index, live=0, previous=0, epoch=index.epoch + 1, withdrawn=withdrawn)
    commit.put_index(row)
    mark_unsound(commit, generation_number, reason)
    return row
