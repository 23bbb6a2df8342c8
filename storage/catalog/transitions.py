"""Every change of a shadow's, generation's or index's state: one function, one write transaction, with event and audit.

Each function runs inside a `Commit`, so all of it is on disk, or none of it. It checks before it changes.
`commit_switch` is THE ONLY COMMIT POINT of a switch (SW-4, IX-1, IX-6); `withdraw_live` takes a live one away.

A shadow's state and its generation's role belong together (IX-6):

    PREPARING BUILDING FAILED   building      BUILT SWITCHING   standby
    ACTIVE                      live, soaking CLEANUP CANCELLED retiring, then no row
"""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.errors import DuplicateBuild, InvalidTransition, StaleFence
from shadowswitch.model.shadow_state import UNDER_WAY, GenerationRole, Phase, PublishStrategy, ShadowState, check_move
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.build_spec import Spec
from shadowswitch.storage.generations.directory import generation_path

S, Role = ShadowState, GenerationRole


def _emit(commit: Commit, row: ShadowRow, kind: str, **data: Any) -> None:
    about = {"branch_name": row.branch_name, "index_type": row.index_type, "state": str(row.state)}
    commit.emit(kind, row.id, about | data)


def _note_error(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    row = msgspec.structs.replace(commit.shadow(shadow_id), error=reason)
    commit.put_shadow(row)
    return row


def _move(commit: Commit, row: ShadowRow, state: ShadowState, **changes: Any) -> ShadowRow:
    check_move(row.id, row.state, state)
    changed = msgspec.structs.replace(row, state=state, **changes)
    commit.put_shadow(changed)
    return changed


def claim_build(
    commit: Commit,
    shadow_id: str,
    branch: BranchRow,
    spec: Spec,
    build_config: dict[str, Any],
    external: bool,
    service: str,
    *,
    track_ready: bool = False,
) -> tuple[ShadowRow, GenerationRow]:
    """PREPARING: claim (branch, index type) with a new fencing token, a generation number and its directory's name.

    Raises DuplicateBuild while another build of the index is under way. The builder makes the directory afterwards.
    """
    for other in commit.shadows():
        if other.branch == branch.number and other.index_type == spec.index_type and other.state in UNDER_WAY:
            raise DuplicateBuild(
                f"{other.index_type} of branch {branch.name!r} is being built by shadow {other.id} ({other.state})",
                shadow_index_id=other.id,
                operation="start_build",
                object=branch.name,
                hint="wait for it, switch it or cancel it first",
            )
    for name in spec.resource_types:
        commit.type_number(name)  # so that the index follows a type without records from its first record on
    now = commit.now()
    number = commit.next_number("generation")
    path = generation_path(branch.name, spec.index_type, number)
    generation = GenerationRow(
        rows.FORMAT, number, branch.number, spec.index_type, shadow_id, spec.backend, spec.options, spec.fingerprint,
        spec.shards, spec.resource_types, path, Role.BUILDING, now, durable_lsn=commit.head(branch.number)[0],
        boot_id=commit.catalog.clock.boot(),
    )  # fmt: skip
    shadow = ShadowRow(
        rows.FORMAT, shadow_id, branch.number, branch.name, spec.index_type, spec.resource_types, S.PREPARING,
        Phase.PREPARING, spec.backend, build_config, spec.fingerprint, commit.next_number("token"), now, external,
        service, number, path=path, track_ready=track_ready,
    )  # fmt: skip
    commit.put_generation(generation)
    commit.put_shadow(shadow)
    _emit(commit, shadow, "build.claimed", resource_types=spec.resource_types)
    return shadow, generation


def begin_building(commit: Commit, shadow_id: str) -> ShadowRow:
    """BUILDING: the directory exists. Capture begins at S, the head of the branch in this very transaction."""
    row = commit.shadow(shadow_id)
    start = commit.head(row.branch)[0]
    row = _move(commit, row, S.BUILDING, phase=Phase.COPYING, start_lsn=start, started_at=commit.now(), error=None)
    commit.put_generation(msgspec.structs.replace(commit.generation(row.generation), durable_lsn=start))
    _emit(commit, row, "build.started", start_lsn=start)
    return row


def note_progress(commit: Commit, shadow_id: str, phase: Phase, percent: float, eta_s: float | None) -> ShadowRow:
    """Store the progress of a build, so that it does not go backwards over a restart."""
    row = commit.shadow(shadow_id)
    if row.state != S.BUILDING:
        return row
    row = msgspec.structs.replace(row, phase=phase, progress=max(percent, row.progress), eta_s=eta_s)
    commit.put_shadow(row)
    return row


def mark_built(
    commit: Commit, shadow_id: str, applied_lsn: int, record_count: int, size_bytes: int, manifest_hash: str,
    **more: Any,
) -> ShadowRow:  # fmt: skip
    """BUILT: whole, validated and caught up. From now on a follower keeps it caught up."""
    row = _move(
        commit, commit.shadow(shadow_id), S.BUILT, phase=Phase.WAITING, progress=100.0, eta_s=0.0, **more,
        completed_at=commit.now(), applied_lsn=applied_lsn, record_count=record_count, size_bytes=size_bytes,
    )  # fmt: skip
    generation = commit.generation(row.generation)
    assert generation.role is Role.BUILDING, f"IX-6 generation {generation.number} of {shadow_id} is {generation.role}"
    durable = max(generation.durable_lsn, applied_lsn)
    commit.put_generation(
        msgspec.structs.replace(generation, role=Role.STANDBY, durable_lsn=durable, manifest_hash=manifest_hash)
    )
    what = {"record_count": record_count, "index_size_bytes": size_bytes, "applied_lsn": applied_lsn}
    _emit(commit, row, "build.completed", **what)
    return row


def mark_delivered(
    commit: Commit,
    shadow_id: str,
    applied_lsn: int,
    record_count: int,
    size_bytes: int,
    summary: dict[str, Any],
    manifest_hash: str,
) -> ShadowRow:
    """BUILT by an external builder and checked; or BUILT before, and now at a higher LSN."""
    row = commit.shadow(shadow_id)
    if row.state == S.BUILDING:
        row = mark_built(commit, shadow_id, applied_lsn, record_count, size_bytes, manifest_hash)
    elif row.state != S.BUILT:
        raise InvalidTransition(f"shadow {shadow_id} is {row.state}", operation="complete build", object=shadow_id)
    row = msgspec.structs.replace(
        row, applied_lsn=applied_lsn, record_count=record_count, size_bytes=size_bytes, summary=summary, error=None
    )
    commit.put_shadow(row)
    commit.put_generation(msgspec.structs.replace(commit.generation(row.generation), durable_lsn=applied_lsn))
    commit.audit("build.delivered", shadow_id, {"applied_lsn": applied_lsn, "record_count": record_count})
    return row


def note_external(
    commit: Commit, shadow_id: str, percent: float, eta_s: float | None, record_count: int | None
) -> None:
    """Store the progress that an external builder reports; it never goes backwards."""
    row = note_progress(commit, shadow_id, Phase.BUILDING, percent, eta_s)
    if row.state == S.BUILDING and record_count is not None:
        commit.put_shadow(msgspec.structs.replace(row, record_count=record_count))


def note_refused(commit: Commit, shadow_id: str, problems: list[str]) -> None:
    """Store the reasons why a completion was refused; the state of the shadow stays."""
    row = commit.shadow(shadow_id)
    if row.state == S.BUILDING:
        row = _note_error(commit, shadow_id, "; ".join(problems))
    _emit(commit, row, "build.refused", problems=problems)
    commit.audit("build.refused", shadow_id, {"problems": problems})


def mark_failed(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """FAILED, with the reason. The files stay for a retry until `Config.failed_keep_s` has passed."""
    row = _move(
        commit, commit.shadow(shadow_id), S.FAILED, phase=Phase.FAILED, error=reason, completed_at=commit.now(),
        failed_at=commit.catalog.clock.moment(),
    )  # fmt: skip
    generation = commit.generation(row.generation)
    commit.put_generation(msgspec.structs.replace(generation, role=Role.BUILDING, manifest_hash=""))
    _emit(commit, row, "build.failed", error=reason)
    commit.audit("build.failed", shadow_id, {"reason": reason})
    return row


def fail_waiting(commit: Commit, shadow_id: str, reason: str) -> bool:
    """FAILED, for a BUILT shadow that turned out unsound; False if it is no longer BUILT."""
    if commit.shadow(shadow_id).state != S.BUILT:
        return False
    mark_failed(commit, shadow_id, reason)
    return True


def mark_cancelled(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """CANCELLED; the generation retires."""
    row = _move(commit, commit.shadow(shadow_id), S.CANCELLED, phase=Phase.CANCELLED, error=reason or None)
    if commit.find_generation(row.generation) is not None:  # the generation of a build that failed long ago was removed
        _retire(commit, row.generation)
    _emit(commit, row, "build.cancelled", reason=reason)
    commit.audit("build.cancelled", shadow_id, {"reason": reason})
    return row


def mark_retrying(commit: Commit, shadow_id: str) -> ShadowRow:
    """PREPARING again after FAILED, with a new fencing token."""
    row = commit.shadow(shadow_id)
    for other in commit.shadows():
        same = other.branch == row.branch and other.index_type == row.index_type and other.id != row.id
        if same and other.state in UNDER_WAY:
            text = f"another build of the index is under way: shadow {other.id}"
            raise DuplicateBuild(text, shadow_index_id=other.id, operation="retry")
    generation = commit.find_generation(row.generation)
    if generation is None or generation.role is not Role.BUILDING:
        raise InvalidTransition(
            f"the files of shadow {shadow_id} are removed or being removed",
            operation="retry",
            hint="start a new build with start_build",
        )
    row = _move(
        commit, row, S.PREPARING, phase=Phase.PREPARING, token=commit.next_number("token"), completed_at=None,
        retry_count=row.retry_count + 1,
    )  # fmt: skip
    _emit(commit, row, "build.retried", retry_count=row.retry_count)
    return row


def resume_building(commit: Commit, shadow_id: str) -> ShadowRow:
    """BUILDING again from the stored shards. S stays: the journal has kept every change after it."""
    row = _move(commit, commit.shadow(shadow_id), S.BUILDING, phase=Phase.COPYING, error=None)
    _emit(commit, row, "build.resumed", start_lsn=row.start_lsn)
    return row


def begin_switching(commit: Commit, shadow_id: str) -> ShadowRow:
    """SWITCHING, from BUILT only: two switches of one shadow exclude each other."""
    row = _move(commit, commit.shadow(shadow_id), S.SWITCHING, phase=Phase.VALIDATING)
    _emit(commit, row, "switch.started")
    return row


def give_up_switching(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """BUILT again: no reader saw a change."""
    row = _move(commit, commit.shadow(shadow_id), S.BUILT, phase=Phase.WAITING)
    _emit(commit, row, "switch.given_up", reason=reason)
    commit.audit("switch.given_up", shadow_id, {"reason": reason})
    return row


def finish_switch(commit: Commit, shadow_id: str, figures: dict[str, Any]) -> None:
    """Emit the figures of a switch or rollback that has ended, in success or not: they are known after the commit."""
    _emit(commit, commit.shadow(shadow_id), "switch.finished", **figures)


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
    if live != expected_live or generation.role not in (Role.STANDBY, Role.SOAKING):
        raise StaleFence(
            f"generation {live} is live where {expected_live} was expected; {generation_number} is {generation.role}",
            operation="switch",
            hint="another switch came first; look at the index and decide again",
        )
    if shadow.token != token:
        text = f"token {token} of shadow {shadow.id} is not the present one, {shadow.token}"
        raise StaleFence(text, operation="switch")
    now = commit.now()
    if generation.role is Role.STANDBY:
        shadow = _move(commit, shadow, S.ACTIVE, phase=Phase.LIVE, switched_at=now)
    else:
        shadow = msgspec.structs.replace(shadow, phase=Phase.LIVE, switched_at=now)
        commit.put_shadow(shadow)
    commit.put_generation(msgspec.structs.replace(generation, role=Role.LIVE, switched_at=now, soak_ends=None))
    if index is not None and index.previous not in (0, generation_number, live):
        _retire_and_emit(commit, index.previous)
    if live:
        _soak(commit, live, soak_s)
    epoch = (index.epoch if index is not None else 0) + 1
    row = IndexRow(
        rows.FORMAT, generation.branch, generation.index_type, generation_number, live, epoch, sealed_lsn, now,
        PublishStrategy(strategy),
    )  # fmt: skip
    commit.put_index(row)
    what = {"generation": generation_number, "previous": live, "sealed_lsn": sealed_lsn, "epoch": epoch}
    _emit(commit, shadow, "rollback.committed" if audit.get("rollback") else "switch.committed", **what, **audit)
    commit.audit("switch.committed", shadow.id, {**what, **audit})
    if unsound and live:
        mark_unsound(commit, live, unsound)
    return row


def _soak(commit: Commit, number: int, soak_s: float) -> None:
    old, ends = commit.generation(number), commit.catalog.clock.moment(soak_s)
    commit.put_generation(msgspec.structs.replace(old, role=Role.SOAKING, soak_ends=ends))
    commit.put_shadow(msgspec.structs.replace(commit.shadow(old.shadow_id), phase=Phase.SOAKING))


def _retire(commit: Commit, number: int) -> None:
    old = commit.generation(number)
    commit.put_generation(msgspec.structs.replace(old, role=Role.RETIRING, soak_ends=None))
    shadow = commit.shadow(old.shadow_id)
    if shadow.state == S.ACTIVE:
        _move(commit, shadow, S.CLEANUP, phase=Phase.RETIRING)


def _retire_and_emit(commit: Commit, number: int) -> None:
    _retire(commit, number)
    shadow = commit.shadow(commit.generation(number).shadow_id)
    _emit(commit, shadow, "generation.retired", generation=number)


def withdraw_live(commit: Commit, generation_number: int, reason: str) -> IndexRow:
    """The index has no live generation any more, and none that soaks, which has followed as far."""
    generation = commit.generation(generation_number)
    index = commit.index(generation.branch, generation.index_type)
    if index is None or index.live != generation_number:
        raise StaleFence(f"generation {generation_number} is not live", operation="switch")
    if index.previous:
        retire_previous(commit, index.previous)
    row = msgspec.structs.replace(index, live=0, previous=0, epoch=index.epoch + 1)
    commit.put_index(row)
    mark_unsound(commit, generation_number, reason)
    return row


def mark_unsound(commit: Commit, generation_number: int, reason: str) -> None:
    """An unsound generation that is not live retires; it is never switched to again."""
    generation = commit.generation(generation_number)
    _retire(commit, generation_number)
    shadow = _note_error(commit, generation.shadow_id, reason)
    index = commit.index(generation.branch, generation.index_type)
    if index is not None and index.previous == generation_number:
        commit.put_index(msgspec.structs.replace(index, previous=0))
    _emit(commit, shadow, "generation.condemned", generation=generation_number, reason=reason)
    commit.audit("generation.condemned", shadow.id, {"generation": generation_number, "reason": reason})


def note_unsound(commit: Commit, shadow_id: str, reason: str) -> None:
    """A live generation that nothing can replace yet is unsound: it is served on, with an event."""
    _emit(commit, _note_error(commit, shadow_id, reason), "index.unsound", reason=reason)
    commit.audit("index.unsound", shadow_id, {"reason": reason})


def retire_previous(commit: Commit, generation_number: int) -> bool:
    """End the soak of the previous generation: no rollback to it is possible any more. False if it is not soaking."""
    generation = commit.generation(generation_number)
    index = commit.index(generation.branch, generation.index_type)
    if generation.role is not Role.SOAKING:
        return False
    if index is not None and index.previous == generation_number:
        commit.put_index(msgspec.structs.replace(index, previous=0))
    _retire_and_emit(commit, generation_number)
    what = {"generation": generation_number, "reason": "its soak is over"}
    commit.audit("generation.retired", generation.shadow_id, what)
    return True


def retire_failed(commit: Commit, shadow_id: str) -> None:
    """The generation of a failed build retires once its files were kept for `Config.failed_keep_s`."""
    row = commit.shadow(shadow_id)
    if row.state == S.FAILED:
        _retire_and_emit(commit, row.generation)


def forget_generation(commit: Commit, number: int) -> None:
    """Remove the row of a retiring generation whose directory was removed."""
    generation = commit.generation(number)
    if generation.role is not Role.RETIRING:
        raise InvalidTransition(f"generation {number} is {generation.role}, not retiring", operation="retire")
    commit.delete_generation(number)
    commit.emit("generation.removed", generation.shadow_id, {"generation": number})


def note_recovery(commit: Commit, what: str, shadow: ShadowRow, **data: Any) -> None:
    """Emit an event of recovery about a shadow: resumed, awaited, checked, published or broken."""
    _emit(commit, shadow, f"recovery.{what}", **data)
    commit.audit(f"recovery.{what}", shadow.id, {"reason": "the engine started", "state": str(shadow.state), **data})


def note_recovered(commit: Commit, what: str, subject: str, **data: Any) -> None:
    """Emit an event of recovery about another subject: the locks of a branch, or the published paths."""
    commit.emit(f"recovery.{what}", subject, data)
    commit.audit(f"recovery.{what}", subject, {"reason": "the engine started", **data})
