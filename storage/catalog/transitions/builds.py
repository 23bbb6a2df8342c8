"""The transitions of a build: claimed, building, built, delivered, failed, cancelled, begun again."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowswitch.model.errors import DuplicateBuild, InvalidTransition
from shadowswitch.model.locks.branch_state import BranchState
from shadowswitch.model.shadow_state import GenerationRole, Phase, ShadowState
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.groups import cancel_member
from shadowswitch.storage.catalog.transitions.moves import emit, move, note_error
from shadowswitch.storage.catalog.transitions.retirement import retire
from shadowswitch.storage.generations.build_spec import Spec
from shadowswitch.storage.generations.directory import generation_path
from shadowswitch.storage.generations.seeding import NEVER


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
    heals: bool = False,
    priority: int = 0,
    of_rebuild: bool = False,
    seed: str = NEVER,
    seeded_from: int = 0,
) -> tuple[ShadowRow, GenerationRow]:
    """PREPARING: claim (branch, index type) with a new fencing token, a generation number and its directory's name.

    Raises DuplicateBuild while another build of the index is under way; InvalidTransition on an ARCHIVED branch, unless
    the build `heals` a live index that cannot be served. The builder makes the directory afterwards.
    """
    _refuse_archived(commit, branch.number, "start_build", heals)
    other = commit.under_way(branch.number, spec.index_type)
    if other is not None:
        raise duplicate(other, "start_build")
    for name in spec.resource_types:
        commit.type_number(name)  # so that the index follows a type without records from its first record on
    now = commit.now()
    number = commit.next_number("generation")
    path = generation_path(branch.name, spec.index_type, number)
    generation = GenerationRow(
        rows.FORMAT, number, branch.number, spec.index_type, shadow_id, spec.backend, spec.options, spec.fingerprint,
        spec.shards, spec.resource_types, path, GenerationRole.BUILDING, now, durable_lsn=commit.head(branch.number)[0],
        boot_id=commit.catalog.clock.boot(),
    )  # fmt: skip
    shadow = ShadowRow(
        rows.FORMAT, shadow_id, branch.number, branch.name, spec.index_type, spec.resource_types, ShadowState.PREPARING,
        Phase.PREPARING if external else Phase.QUEUED, spec.backend, build_config, spec.fingerprint,
        commit.next_number("token"), now, external, service, number, path=path, track_ready=track_ready,
        priority=priority, begun_by=commit.author[0], begun_why=commit.author[1], of_rebuild=of_rebuild,
        seed=seed, seeded_from=seeded_from,
    )  # fmt: skip
    commit.put_generation(generation)
    commit.put_shadow(shadow)
    seeded = {"seeded_from": seeded_from} if seeded_from else {}
    emit(commit, shadow, "build.claimed", resource_types=spec.resource_types, **seeded)
    return shadow, generation


def duplicate(other: ShadowRow, operation: str) -> DuplicateBuild:
    """The refusal of a build while `other` is under way: what that one does or waits for, and what ends it."""
    name = f"{other.index_type} of branch {other.branch_name!r}"
    if other.state == ShadowState.BUILT:
        text = f"{name} has shadow {other.id}, which is BUILT and waits for its switch"
        hint = "switch to it, or discard it with cancel_build"
    elif other.state == ShadowState.SWITCHING:
        text = f"{name} has shadow {other.id}, and a switch to it is under way (SWITCHING)"
        hint = "wait until the switch has ended"
    elif other.paused_by:
        text = f"{name} has shadow {other.id} ({other.state}), which {other.paused_by} paused"
        hint = "let it go on with resume_build, or end it with cancel_build"
    else:
        text = f"{name} is being built by shadow {other.id} ({other.state})"
        hint = "wait until it is BUILT and switch to it, or end it with cancel_build"
    if other.of_rebuild:
        hint = f"if a kill cut its rebuild off, the same rebuild again ends it; or {hint}"
    return DuplicateBuild(text, shadow_index_id=other.id, operation=operation, object=other.branch_name, hint=hint)


def _refuse_archived(commit: Commit, number: int, operation: str, heals: bool) -> None:
    """An ARCHIVED branch begins no build. What was begun before comes to its end, and what is live stays readable."""
    branch = commit.branch(number)
    if branch.state == BranchState.ARCHIVED and not heals:
        raise InvalidTransition(
            f"branch {branch.name!r} is ARCHIVED and takes no new index",
            operation=operation,
            object=branch.name,
            hint="its records and its live indexes stay readable; build on a branch that is not archived",
        )


def begin_building(commit: Commit, shadow_id: str) -> ShadowRow:
    """BUILDING: the directory exists. Capture begins at S, the head of the branch in this very transaction."""
    row = commit.shadow(shadow_id)
    start = commit.head(row.branch)[0]
    row = move(
        commit, row, ShadowState.BUILDING, phase=Phase.COPYING, start_lsn=start, started_at=commit.now(), error=None
    )
    commit.put_generation(msgspec.structs.replace(commit.generation(row.generation), durable_lsn=start))
    emit(commit, row, "build.started", start_lsn=start)
    return row


def drop_seed(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """A build that began from a generation begins again, from the records."""
    row = commit.shadow(shadow_id)
    what = {"generation": row.seeded_from, "reason": reason}
    row = msgspec.structs.replace(row, seeded_from=0, phase=Phase.COPYING)
    commit.put_shadow(row)
    emit(commit, row, "build.unseeded", **what)
    commit.audit("build.unseeded", shadow_id, what)
    return row


def note_progress(commit: Commit, shadow_id: str, phase: Phase, percent: float, eta_s: float | None) -> ShadowRow:
    """Store the progress of a build, so that it does not go backwards over a restart."""
    row = commit.shadow(shadow_id)
    if row.state != ShadowState.BUILDING:
        return row
    row = msgspec.structs.replace(row, phase=phase, progress=max(percent, row.progress), eta_s=eta_s)
    commit.put_shadow(row)
    return row


def _took_s(commit: Commit, row: ShadowRow) -> float | None:
    """Seconds since the build started, by the wall clock."""
    return round(max(0.0, commit.now() - row.started_at), 3) if row.started_at is not None else None


def mark_built(
    commit: Commit, shadow_id: str, applied_lsn: int, record_count: int, size_bytes: int, manifest_hash: str,
    **more: Any,
) -> ShadowRow:  # fmt: skip
    """BUILT: whole, validated and caught up. From now on a follower keeps it caught up."""
    row = move(
        commit, commit.shadow(shadow_id), ShadowState.BUILT, phase=Phase.WAITING, progress=100.0, eta_s=0.0, **more,
        completed_at=commit.now(), applied_lsn=applied_lsn, record_count=record_count, size_bytes=size_bytes,
    )  # fmt: skip
    generation = commit.generation(row.generation)
    assert generation.role is GenerationRole.BUILDING, (
        f"IX-6 generation {generation.number} of {shadow_id} is {generation.role}"
    )
    durable = max(generation.durable_lsn, applied_lsn)
    commit.put_generation(
        msgspec.structs.replace(
            generation, role=GenerationRole.STANDBY, durable_lsn=durable, manifest_hash=manifest_hash
        )
    )
    what = {"record_count": record_count, "index_size_bytes": size_bytes, "applied_lsn": applied_lsn}
    emit(commit, row, "build.completed", **what, took_s=_took_s(commit, row))
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
    if row.state == ShadowState.BUILDING:
        row = mark_built(commit, shadow_id, applied_lsn, record_count, size_bytes, manifest_hash)
    elif row.state != ShadowState.BUILT:
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
    if row.state == ShadowState.BUILDING and record_count is not None:
        commit.put_shadow(msgspec.structs.replace(row, record_count=record_count))


def note_refused(commit: Commit, shadow_id: str, problems: list[str]) -> None:
    """Store the reasons why a completion was refused; the state of the shadow stays."""
    row = commit.shadow(shadow_id)
    if row.state == ShadowState.BUILDING:
        row = note_error(commit, shadow_id, "; ".join(problems))
    emit(commit, row, "build.refused", problems=problems)
    commit.audit("build.refused", shadow_id, {"problems": problems})


def mark_failed(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """FAILED, with the reason. The files stay for a retry until `Config.failed_keep_s` has passed."""
    row = move(
        commit, commit.shadow(shadow_id), ShadowState.FAILED, phase=Phase.FAILED, error=reason,
        completed_at=commit.now(), failed_at=commit.catalog.clock.moment(),
    )  # fmt: skip
    generation = commit.generation(row.generation)
    commit.put_generation(msgspec.structs.replace(generation, role=GenerationRole.BUILDING, manifest_hash=""))
    emit(commit, row, "build.failed", error=reason)
    commit.audit("build.failed", shadow_id, {"reason": reason})
    return row


def fail_waiting(commit: Commit, shadow_id: str, reason: str) -> bool:
    """FAILED, for a BUILT shadow that turned out unsound; False if it is no longer BUILT."""
    if commit.shadow(shadow_id).state != ShadowState.BUILT:
        return False
    mark_failed(commit, shadow_id, reason)
    return True


def mark_cancelled(commit: Commit, shadow_id: str, reason: str) -> ShadowRow:
    """CANCELLED; the generation retires. A group that holds the shadow is dissolved."""
    row = move(
        commit, commit.shadow(shadow_id), ShadowState.CANCELLED, phase=Phase.CANCELLED, error=reason or None, plan=None
    )
    if commit.find_generation(row.generation) is not None:  # the generation of a build that failed long ago was removed
        retire(commit, row.generation)
    emit(commit, row, "build.cancelled", reason=reason)
    commit.audit("build.cancelled", shadow_id, {"reason": reason})
    cancel_member(commit, shadow_id)
    return row


def mark_retrying(commit: Commit, shadow_id: str, heals: bool = False) -> ShadowRow:
    """PREPARING again after FAILED, with a new fencing token. Raises as `claim_build`."""
    row = commit.shadow(shadow_id)
    _refuse_archived(commit, row.branch, "retry", heals)
    other = commit.under_way(row.branch, row.index_type)
    if other is not None and other.id != row.id:
        raise duplicate(other, "retry")
    if row.state not in (ShadowState.FAILED, ShadowState.CANCELLED):
        raise InvalidTransition(
            f"shadow {shadow_id} is {row.state}, only a FAILED one can be retried",
            operation="retry",
            object=shadow_id,
            hint="see its status with shadow()",
        )
    generation = commit.find_generation(row.generation)
    if generation is None or generation.role is not GenerationRole.BUILDING:
        raise InvalidTransition(
            f"the files of shadow {shadow_id} are removed or being removed",
            operation="retry",
            hint="start a new build with start_build",
        )
    row = move(
        commit, row, ShadowState.PREPARING, phase=Phase.PREPARING if row.external else Phase.QUEUED,
        token=commit.next_number("token"), completed_at=None, eta_s=None, retry_count=row.retry_count + 1, paused_by="",
        paused_why="", begun_by=commit.author[0], begun_why=commit.author[1], of_rebuild=False,
    )  # fmt: skip
    emit(commit, row, "build.retried", retry_count=row.retry_count)
    return row


def resume_building(commit: Commit, shadow_id: str) -> ShadowRow:
    """BUILDING again from the stored shards. S stays: the journal has kept every change after it."""
    row = move(commit, commit.shadow(shadow_id), ShadowState.BUILDING, phase=Phase.COPYING, error=None)
    emit(commit, row, "build.resumed", start_lsn=row.start_lsn)
    return row
