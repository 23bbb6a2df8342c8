"""The removal of indexes, branches and shadows: refused while something uses them, with what uses them.

A branch is dropped in one transaction, which names it no more; its rows go in slices behind it, see `remove_slice`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shadowswitch.model.errors import InUse, UnknownIndex
from shadowswitch.model.shadow_state import ENDED, GenerationRole
from shadowswitch.storage.activity import forget_activity
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import Catalog, name_key, scan_prefix
from shadowswitch.storage.catalog.rows import BranchRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.source.group_table import uses_of_groups
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.forks import end_fork, fork_uses
from shadowswitch.storage.catalog.transitions.groups import held
from shadowswitch.storage.catalog.transitions.retirement import retire_failed, retire_index

SLICE_ROWS = 300
SLICE_S = 0.002
"""A slice of the removal ends after so many rows, or so long: the writers wait behind it."""
AT_ONCE = ("locks", "holds")
"""What goes in the transaction of the drop: a few rows, which other parts read for all branches."""
IN_SLICES = ("journal", "records", "undo", "bases", "forks", "heads", "indexes")
"""What goes in slices. Every key begins with the number of the branch."""


def drop_index(commit: Commit, branch: BranchRow, index_type: str) -> IndexRow:
    """The index is gone: nothing is live, and its generations retire. Readers keep what they have pinned.

    Raises UnknownIndex when nothing is live, InUse while a build or a switch of the index is under way,
    or a group holds it.
    """
    shadow = commit.under_way(branch.number, index_type)
    uses = [*([use_of(shadow)] if shadow is not None else []), *uses_of_groups(held(commit), branch.number, index_type)]
    if uses:
        raise in_use(f"{index_type} of branch {branch.name!r}", uses, "drop_index", branch.name)
    index = commit.index(branch.number, index_type)
    if index is None or not (index.live or index.withdrawn):
        prefix = keys.BRANCH.pack(branch.number)
        others = [rows.decode_index(value) for _, value in scan_prefix(commit.txn, commit.db["indexes"], prefix)]
        live = ", ".join(other.index_type for other in others if other.live)
        raise UnknownIndex(
            f"branch {branch.name!r} has no live {index_type}",
            operation="drop_index",
            object=branch.name,
            hint=f"it has {live}" if live else "it has no index at all",
        )
    row = retire_index(commit, index, "its index was dropped")
    what = {"branch_name": branch.name, "index_type": index_type, "generation": index.live}
    commit.emit("index.dropped", branch.name, what)
    commit.audit("index.dropped", branch.name, what)
    return row


def drop_branch(commit: Commit, number: int, uses: Iterable[str] = ()) -> list[IndexRow]:
    """The branch is unknown from now on, and its name free. Returns its indexes, which have no live generation.

    Raises UnknownBranch, InUse while a build or a switch is under way, or with the given `uses`.
    """
    branch = commit.branch(number)
    may_be_built = sorted(index for index in {*commit.counters.under_way, *commit.moved} if index[0] == number)
    building = [use_of(shadow) for index in may_be_built if (shadow := commit.under_way(*index)) is not None]
    grouped = uses_of_groups(held(commit), number)
    if uses := [*uses, *building, *grouped, *fork_uses(commit, number)]:
        raise in_use(f"branch {branch.name!r}", uses, "drop_branch", branch.name)
    prefix = keys.BRANCH.pack(number)
    indexes = [rows.decode_index(value) for _, value in scan_prefix(commit.txn, commit.db["indexes"], prefix)]
    live = [index.index_type for index in indexes if index.live]
    retired = [retire_index(commit, index, "its branch was dropped") for index in indexes]
    counts = {name: _delete(commit, name, prefix) for name in AT_ONCE}
    end_fork(commit, branch)
    commit.txn.delete(name_key(branch.name), db=commit.db["branch_names"])
    commit.put_branch(msgspec.structs.replace(branch, state=rows.DROPPING))
    commit.dirty.dropped.add(number)
    what = {"branch_name": branch.name, "indexes": live, "holds": counts["holds"]}
    commit.emit("branch.dropped", branch.name, what)
    commit.audit("branch.dropped", branch.name, what)
    return retired


def remove_slice(commit: Commit, number: int) -> bool:
    """Remove some rows of a dropped branch; False when none is left but its shadows, its generations and its own row.

    It depends on what is there alone, so it goes on behind a kill.
    """
    left, until = SLICE_ROWS, commit.catalog.clock.monotonic() + SLICE_S
    prefix = keys.BRANCH.pack(number)
    for name in IN_SLICES:
        left -= _delete(commit, name, prefix, left, until)
        if left <= 0 or commit.catalog.clock.monotonic() > until:
            return True
    return False


def _delete(commit: Commit, database: str, prefix: bytes, most: int = 1 << 30, until: float = float("inf")) -> int:
    """Delete entries whose keys begin so, until that moment at the latest; returns how many."""
    cursor = commit.txn.cursor(commit.db[database])
    monotonic, count = commit.catalog.clock.monotonic, 0
    there = cursor.set_range(prefix)
    while there and count < most and cursor.key()[: len(prefix)] == prefix:
        there = cursor.delete()  # the cursor is at the next entry then
        count += 1
        if not count % 16 and monotonic() > until:
            break
    return count


def _delete_shadow(commit: Commit, shadow_id: str) -> None:
    """Forget a shadow; its generation must be gone."""
    commit.dirty.shadows.add(shadow_id)
    commit.txn.delete(shadow_id.encode(), db=commit.db["shadows"])


def forget_shadows(commit: Commit, shadow_ids: Iterable[str]) -> int:
    """Remove the rows of ended shadows whose generation is gone; the generation of a failed one retires first."""
    removed = 0
    for shadow_id in shadow_ids:
        shadow = commit.shadow(shadow_id)
        generation = commit.find_generation(shadow.generation)
        if generation is None:
            _delete_shadow(commit, shadow_id)
            removed += 1
        elif generation.role is GenerationRole.BUILDING:
            retire_failed(commit, shadow_id, "its branch was dropped")
    return removed


def forget_ended(commit: Commit, over: Iterable[str], unmarked: Iterable[str]) -> int:
    """Remove the rows of shadows that ended long ago; for those without a moment of this boot the time begins now."""
    removed = 0
    for shadow_id in over:
        shadow = commit.find_shadow(shadow_id)
        if shadow is not None and shadow.state in ENDED and commit.find_generation(shadow.generation) is None:
            _delete_shadow(commit, shadow_id)
            removed += 1
    for shadow_id in unmarked:
        shadow = commit.find_shadow(shadow_id)
        if shadow is not None:
            commit.put_shadow(msgspec.structs.replace(shadow, ended_at=commit.catalog.clock.moment()))
    return removed


def forget_branch(commit: Commit, number: int) -> None:
    """Remove the row of a dropped branch, its last one."""
    value = commit.txn.get(keys.BRANCH.pack(number), db=commit.db["branches"])
    if value is not None:
        name = rows.decode_branch(value).name
        forget_activity(commit, number)
        commit.txn.delete(keys.BRANCH.pack(number), db=commit.db["branches"])
        commit.emit("branch.removed", name, {"branch_name": name})


def is_dropped(catalog: Catalog, number: int) -> bool:
    """Was the branch of that number dropped? True also once its last row is gone."""
    with catalog.read() as txn:
        value = txn.get(keys.BRANCH.pack(number), db=catalog.db["branches"])
        return value is None or rows.decode_branch(value).state == rows.DROPPING


def use_of(shadow: ShadowRow) -> str:
    """A build under way, as a use of its index and its branch."""
    return f"shadow {shadow.id} of {shadow.index_type} is {shadow.state}"


def in_use(what: str, uses: list[str], operation: str, object: str) -> InUse:
    """The refusal of a removal, with everything that uses what was to go."""
    return InUse(
        f"{what} is in use: {'; '.join(uses)}",
        uses=uses,
        operation=operation,
        object=object,
        hint="end each of these first: cancel_build ends a build, release_lock a lock; a switch ends by itself;"
        " dissolve_group ends a group; cascade drops the forks of a branch with it",
    )
