"""Forks: how a branch is made from another, moved on to its parent's head, merged, and what it leaves when it goes.

A fork is one transaction at any size: a row, its place among the forks of its parent, and a copy of the parent's
digests. LSNs number the changes of all branches, so what a fork shows has the same versions, and the same digest.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import scan_prefix
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import LSN_MAX, BranchRow
from shadowswitch.storage.catalog.source.followed import put_base
from shadowswitch.storage.catalog.source.fork_table import FORK, forks_of, needs_of, read_lineage
from shadowswitch.storage.catalog.source.versions import BEHIND_PLACE, old_images, stored_version, undo_lsn
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.past import Past, undo_until

BEHIND = b"\0" + b"\xff" * 9
"""Behind the key of a record: behind all its images."""
NAMED_MAX = 10
"""Forks that a refusal names."""
FOLLOWERS_MAX = 10
"""Forks that a write reaches: each takes a few microseconds of every change."""


def fork_branch(commit: Commit, name: str, parent: int, at_lsn: int | None = None, follows: bool = False) -> BranchRow:
    """Make a fork of a branch as of its head, or of an LSN before it (`transitions.past`), or one that follows it.

    Costs 1 KiB for each resource type of the parent (BR-1). Raises UnknownBranch, BranchExists, InvalidConfig.
    """
    commit.store_heads()
    of = commit.branch(parent)
    if follows:
        _check_followers(commit, of)
    head, _ = commit.head(parent)
    if at_lsn is not None and at_lsn > head:
        raise InvalidConfig(
            f"branch {of.name!r} has not reached LSN {at_lsn}: its head is {head}",
            operation="fork_branch",
            object=of.name,
            hint="leave at_lsn out: the fork is made of the head then",
        )
    past = undo_until(commit, of, at_lsn) if at_lsn is not None and at_lsn < head else Past({}, 0)
    count = commit.count(parent) - past.fewer
    head = head if at_lsn is None else at_lsn
    row = commit.create_branch(name, commit.now(), parent, head)
    kept = scan_prefix(commit.txn, commit.db["heads"], BRANCH.pack(parent))
    for key, value in [(bytes(key), bytes(value)) for key, value in kept]:
        if len(key) == keys.TYPE_PREFIX.size:
            commit.txn.put(BRANCH.pack(row.number) + key[BRANCH.size :], value, db=commit.db["heads"])
    for number, digest in past.digests.items():
        commit.txn.put(keys.TYPE_PREFIX.pack(row.number, number), digest.encode(), db=commit.db["heads"])
    commit.counts[row.number] = count
    commit.set_head(row.number, head, head + 1)
    row = _put_needs(commit, row, msgspec.structs.replace(row, follows=follows, born_lsn=head))
    what = {"branch_name": name, "parent": of.name, "fork_lsn": head, "mode": row.mode}
    commit.emit("branch.forked", name, what)
    commit.audit("branch.forked", name, what)
    return row


def _check_followers(commit: Commit, parent: BranchRow) -> None:
    """Raise InvalidConfig if as many forks follow a branch, or the one that it follows, as may."""
    first = parent
    while first.follows:
        first = commit.branch(first.parent)
    reached = [first.number]
    for number in reached:
        reached += commit.lineage(number).followers
    if len(reached) > FOLLOWERS_MAX:
        raise InvalidConfig(
            f"{FOLLOWERS_MAX} forks follow branch {first.name!r} already: each of its writes goes to all of them",
            operation="fork_branch",
            object=parent.name,
            hint='drop one that is done with, or fork it with mode="snapshot"',
        )


def begin_rebase(commit: Commit, number: int) -> BranchRow:
    """The parent keeps every image as of its head for this fork, too, until `end_rebase`. One that began goes on."""
    row = commit.branch(number)
    if row.rebase_lsn < 0:
        row = _put_needs(commit, row, msgspec.structs.replace(row, rebase_lsn=commit.head(row.parent)[0]))
    return row


def end_rebase(commit: Commit, number: int, done: bool, what: dict[str, Any] | None = None) -> BranchRow:
    """The branch is compared with its parent as of `rebase_lsn` from now on, unless the rebase was not `done`.

    What the parent changed until then is the branch's own already. So it may show its parent as of then, too; if it has
    forks itself, it does not, for they would show what came since.
    """
    row = commit.branch(number)
    if row.rebase_lsn < 0:
        return row
    if not done:
        return _put_needs(commit, row, msgspec.structs.replace(row, rebase_lsn=-1))
    has_forks = any(True for _ in forks_of(commit.txn, commit.db, number))
    changed = {"fork_lsn": row.rebase_lsn, "shown_lsn": row.shows_as_of if has_forks else -1, "rebase_lsn": -1}
    return _rebased(commit, _put_needs(commit, row, msgspec.structs.replace(row, **changed)), what or {})


def end_rebase_of_follower(commit: Commit, number: int, what: dict[str, Any]) -> BranchRow:
    """What a fork that follows changed itself was compared with its parent as it is now."""
    row = commit.branch(number)
    row = msgspec.structs.replace(row, fork_lsn=commit.head(row.parent)[0])
    commit.put_branch(row)
    return _rebased(commit, row, what)


def _rebased(commit: Commit, row: BranchRow, what: dict[str, Any]) -> BranchRow:
    named = {"branch_name": row.name, "fork_lsn": row.fork_lsn} | what
    commit.emit("branch.rebased", row.name, named)
    commit.audit("branch.rebased", row.name, named)
    return row


def move_bases(commit: Commit, fork: BranchRow, places: list[bytes]) -> None:
    """What a fork that follows has at these places is compared with its parent as it is now."""
    parent = commit.lineage(fork.parent)
    for place in places:
        found = stored_version(commit.txn, commit.db, fork.parent, parent, place)
        put_base(commit, BRANCH.pack(fork.number) + place, found)


def _put_needs(commit: Commit, before: BranchRow, row: BranchRow) -> BranchRow:
    """Store the row of a fork that needs its parent as of other LSNs now (BR-4)."""
    commit.put_branch(row)
    needs = needs_of(row, commit.branch)
    _forget_needs(commit, row.number, needs_of(before, commit.branch) - needs)
    for number, lsn in needs:
        commit.txn.put(FORK.pack(number, lsn, row.number), b"", db=commit.db["forks"])
        if lsn < LSN_MAX:
            commit.txn.put(BRANCH.pack(number), b"", db=commit.db["forks"])
    commit.forks_changed()
    return row


def _forget_needs(commit: Commit, fork: int, needs: set[tuple[int, int]]) -> None:
    for number, lsn in needs:
        commit.txn.delete(FORK.pack(number, lsn, fork), db=commit.db["forks"])
        commit.dirty.parents.add(number)


def note_merged(commit: Commit, target: str, source: str, what: dict[str, Any]) -> None:
    """The changes of a fork are in its parent."""
    named = {"branch_name": target, "source": source} | what
    commit.emit("branch.merged", target, named)
    commit.audit("branch.merged", target, named)


def end_fork(commit: Commit, row: BranchRow) -> None:
    """A branch is dropped: its parent keeps nothing for it any more."""
    if row.parent:
        _forget_needs(commit, row.number, needs_of(row, commit.branch))
        commit.forks_changed()


def fork_uses(commit: Commit, number: int) -> list[str]:
    """The forks of a branch, as uses of it."""
    listed = islice(forks_of(commit.txn, commit.db, number), 3 * NAMED_MAX + 1)  # some are there twice
    numbers = list(dict.fromkeys(fork for _, fork in listed))
    names = [commit.branch(fork).name for fork in numbers[:NAMED_MAX]]
    return [f"{name} is a fork of it" for name in names] + (["more forks"] if len(numbers) > NAMED_MAX else [])


def trim_undo(commit: Commit, branch: int, after: bytes, limit: int, until: float) -> bytes | None:
    """Remove old images behind a place that no fork shows. Returns the place to go on from; None: all were looked at.

    An image of LSN L that was overwritten at LSN N is shown by the forks with an LSN in [L, N). A tombstone of a branch
    without a parent stays while an older image of its record does. When a branch without forks has no image left, it is
    written to in the plain way again. Looks at `limit` images at most, and ends at the moment `until` (BR-2, BR-3).
    """
    forks = [lsn for lsn, _ in forks_of(commit.txn, commit.db, branch) if lsn < LSN_MAX]
    is_fork = bool(read_lineage(commit.txn, commit.db, branch).ancestors)
    prefix, place = BRANCH.pack(branch), after
    cursor = commit.txn.cursor(commit.db["undo"])
    looked = 0
    while True:
        there = cursor.set_range(place + BEHIND if place else prefix)
        if not there or bytes(cursor.key()[: len(prefix)]) != prefix:
            break
        if looked >= limit or commit.catalog.clock.monotonic() > until:
            return place
        place = bytes(cursor.key()[:-BEHIND_PLACE])
        looked += _trim_record(commit, place, forks, is_fork)
    if not forks and not any(True for _ in scan_prefix(commit.txn, commit.db["undo"], prefix)):
        commit.txn.delete(prefix, db=commit.db["forks"])
        commit.forks_changed()
    return None


def _trim_record(commit: Commit, key: bytes, forks: list[int], is_fork: bool) -> int:
    """The same for one record; returns how many images it had."""
    images = [(at, keys.is_tombstone(value)) for at, value in old_images(commit.txn, commit.db, key)]
    own = commit.txn.get(key, db=commit.db["records"])
    newer = keys.claimed_lsn(own) if own is not None else 1 << 64
    shown: list[tuple[bytes, bool, bool]] = []
    for at, is_tombstone in images:
        lsn = undo_lsn(at)
        shown.append((at, is_tombstone, any(lsn <= fork < newer for fork in forks)))
        newer = lsn
    older = False
    for at, is_tombstone, needed in reversed(shown):
        if is_tombstone and not is_fork:
            needed = older
        if not needed:
            commit.txn.delete(at, db=commit.db["undo"])
        older = older or needed
    return len(images)
