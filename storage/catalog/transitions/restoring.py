"""The beginning of a catalog that was restored from a backup: no generation has a file, and no number is given twice.

Records, journal, LSNs, branches, locks and holds are those of the backup. Every index that a branch served is
withdrawn, and a build of it is claimed with a plan to switch at once: whatever engine opens the directory makes it (see
`actors.switch.schedule`). Tokens and the numbers of generations and events go on far behind those that the data
directory may have given after the backup, so none is given twice (LK-2, EV-1).
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

import msgspec

from shadowswitch.model.events import ENGINE
from shadowswitch.model.shadow_state import UNDER_WAY, GenerationRole, ShadowState
from shadowswitch.model.views import SwitchRequest
from shadowswitch.storage.catalog.environment import meta_key
from shadowswitch.storage.catalog.locks import begin_tokens_behind
from shadowswitch.storage.catalog.outbox import RESTORED_GAP
from shadowswitch.storage.catalog.rows import DROPPING, GenerationRow, ShadowRow, decode_branch, decode_index
from shadowswitch.storage.catalog.transaction import Commit, signed
from shadowswitch.storage.catalog.transitions.builds import claim_build, mark_cancelled
from shadowswitch.storage.catalog.transitions.groups import dissolve, held
from shadowswitch.storage.catalog.transitions.retirement import forget_generation, retire_and_emit, retire_index
from shadowswitch.storage.catalog.transitions.schedule import schedule
from shadowswitch.storage.catalog.transitions.switches import give_up_switching
from shadowswitch.storage.generations.build_spec import Spec

ORIGINS = "origins"
"""The text of `meta` with the uuids of the data directories that a restored one comes from."""
JUMPING = ("token", "generation", "event")


class Restored(NamedTuple):
    """The indexes of a restored catalog, each as `branch INDEX_TYPE`."""

    builds: list[str]
    unserved: list[str]


def begin_restored(commit: Commit, backup_id: str) -> Restored:
    """Make a catalog out of the rows of a backup. In one transaction, before any engine opens it."""
    found: list[Restored] = []
    why = f"restored from backup {backup_id}"
    signed(lambda c: found.append(_begin(c, backup_id, why)), ENGINE, why)(commit)
    return found[0]


def _begin(commit: Commit, backup_id: str, why: str) -> Restored:
    _name_anew(commit)
    for name in JUMPING:
        commit.put_number(name, commit.catalog.number(name, commit.txn) + RESTORED_GAP)
    begin_tokens_behind(commit, RESTORED_GAP)
    for group in held(commit):
        dissolve(commit, group.id, why)
    generations = [commit.catalog.lists.generation(value, commit.txn) for value in _values(commit, "generations")]
    shadows = [commit.catalog.lists.shadow(value, commit.txn) for value in _values(commit, "shadows")]
    _end_shadows(commit, shadows, why)
    served = [row for row in generations if row.role is GenerationRole.LIVE]
    for value in _values(commit, "indexes"):
        index = decode_index(value)
        if index.live or index.previous:
            withdrawn = f"{why}; it is built again by itself" if index.live else index.withdrawn
            commit.put_index(msgspec.structs.replace(retire_index(commit, index, why), withdrawn=withdrawn))
    for row in generations:
        if commit.generation(row.number).role is not GenerationRole.RETIRING:
            retire_and_emit(commit, row.number, why)
        forget_generation(commit, row.number)
    given = {row.id: row for row in shadows}
    names = _names(commit)
    result = Restored([], [])
    for row in served:
        if row.branch in names:
            known = result.unserved if row.opaque else result.builds
            known.append(f"{names[row.branch]} {row.index_type}")
            if not row.opaque:
                _claim(commit, row, given[row.shadow_id], why)
    what = {"backup": backup_id, "builds": result.builds, "unserved": result.unserved, "lsn": commit.last_lsn}
    commit.emit("catalog.restored", "catalog", what)
    commit.audit("catalog.restored", "catalog", what)
    return result


def _name_anew(commit: Commit) -> None:
    """Another uuid; the present one becomes an origin."""
    meta = commit.catalog.meta
    origins = bytes(commit.txn.get(meta_key(ORIGINS), db=meta) or b"").decode().split()
    named = " ".join([commit.catalog.uuid, *origins])
    commit.txn.put(meta_key(ORIGINS), named.encode(), db=meta)
    commit.catalog.uuid = uuid.uuid4().hex
    commit.txn.put(meta_key("uuid"), commit.catalog.uuid.encode(), db=meta)


def _values(commit: Commit, database: str) -> list[bytes]:
    return [bytes(value) for _, value in commit.txn.cursor(commit.db[database])]


def _names(commit: Commit) -> dict[int, str]:
    with_numbers = (decode_branch(value) for value in _values(commit, "branches"))
    return {row.number: row.name for row in with_numbers if row.state != DROPPING}


def _end_shadows(commit: Commit, shadows: list[ShadowRow], why: str) -> None:
    """Builds that were under way have lost what they had built, and failed ones what a retry would go on with."""
    for row in shadows:
        if row.state == ShadowState.SWITCHING:
            give_up_switching(commit, row.id, why)
        if row.state in (*UNDER_WAY, ShadowState.FAILED):
            mark_cancelled(commit, row.id, why)


def _claim(commit: Commit, row: GenerationRow, given: ShadowRow, why: str) -> None:
    branch = commit.branch(row.branch)
    spec = Spec(row.index_type, row.resource_types, row.backend, row.options, row.shards, 1, row.fingerprint)
    shadow, generation = claim_build(
        commit, uuid.uuid4().hex, branch, spec, given.build_config, False, ENGINE, heals=True, priority=given.priority
    )
    if row.settings:  # of a retune, which no build has in its options
        commit.put_generation(msgspec.structs.replace(generation, settings=row.settings))
    commit.audit("build.claimed", shadow.id, {"branch_name": branch.name, "index_type": row.index_type})
    request = SwitchRequest(force_switch=True, allow_empty=True, performed_by=ENGINE, reason=why)
    schedule(commit, shadow.id, 0.0, 0.0, msgspec.to_builtins(request), ENGINE, why)
