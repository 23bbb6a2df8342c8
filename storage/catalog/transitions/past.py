"""A branch as of an LSN in its past, for a fork that is made there.

The state at an earlier moment is known where every version is still there: at the beginning of the branch, and at the
LSN of each fork of it (BR-2). A fork begins with what its parent shows as of its LSN, and that is known until it is
rebased. From the newest of these before the wanted LSN on, the journal leads to it, if it still
holds every change since. What a record was then becomes an old image, as if the fork had been made in time; a later
delete gets the tombstone that it would have left. Otherwise the fork is refused: nothing is approximated.
"""

from __future__ import annotations

from typing import NamedTuple

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import entries_of, fragments_of
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.fork_table import Lineage, forks_of
from shadowswitch.storage.catalog.source.versions import old_image, shown, stored_version, undo_key
from shadowswitch.storage.catalog.transaction import Commit

CHANGES_MAX, BYTES_MAX = 5_000, 8 << 20
"""Of the journal since the known state: it is read, and undone, in one transaction, some tens of milliseconds."""


class Past(NamedTuple):
    """What is different from the present: the digests of types that were changed since, and how many records less."""

    digests: dict[int, Digest]
    fewer: int


class _Version(NamedTuple):
    lsn: int
    fields: bytes
    """Encoded; empty for a delete."""


def undo_until(commit: Commit, branch: BranchRow, at_lsn: int) -> Past:
    """Keep every version that the branch had as of an LSN. Raises InvalidConfig where that is not known."""
    changed, lineage = _changes_since(commit, branch, at_lsn), commit.lineage(branch.number)
    past = Past({}, 0)
    for (name, id, key_hash), versions in changed.items():
        after = [version for version in versions if version.lsn > at_lsn]
        if after:
            number = commit.type_number(name)
            digest = past.digests.setdefault(number, commit.digest(branch.number, number).copy())
            key = keys.record_key(branch.number, number, key_hash >> 58, id)
            before = next((version for version in reversed(versions) if version.lsn <= at_lsn), None)
            if before is None:  # as in the known state
                lsn = _known_lsn(commit, branch, lineage, key, at_lsn)
            else:
                lsn = before.lsn if before.fields else 0
            if branch.parent:
                _undo_of_fork(commit, key, id, before)
            else:
                _undo(commit, key, id, before, after)
            if after[-1].fields:
                digest.remove(key_hash, after[-1].lsn)
            if lsn:
                digest.add(key_hash, lsn)
            past = past._replace(fewer=past.fewer + bool(after[-1].fields) - bool(lsn))
    return past


def _known_lsn(commit: Commit, branch: BranchRow, lineage: Lineage, key: bytes, at_lsn: int) -> int:
    """The LSN of the record that the known state has of a key; 0 if it has none."""
    if branch.parent:
        found = shown(stored_version(commit.txn, commit.db, branch.number, lineage, key[keys.BRANCH.size :], at_lsn))
        return keys.claimed_lsn(found[1]) if found is not None else 0
    image = old_image(commit.txn, commit.db, key, at_lsn)
    return keys.claimed_lsn(image) if image is not None and not keys.is_tombstone(image) else 0


def _undo_of_fork(commit: Commit, key: bytes, id: bytes, before: _Version | None) -> None:
    """Keep one record of a fork as it was, a delete as well: it hides what the parent shows."""
    if before is not None:
        commit.txn.put(undo_key(key, before.lsn), _stored(key, id, before), db=commit.db["undo"])


def _undo(commit: Commit, key: bytes, id: bytes, before: _Version | None, after: list[_Version]) -> None:
    """Keep one record as it was `before`, and the later deletes: a fork behind them must not show it again."""
    undo = commit.db["undo"]
    if before is not None and (before.fields or old_image(commit.txn, commit.db, key) is not None):
        commit.txn.put(undo_key(key, before.lsn), _stored(key, id, before), db=undo)
    if old_image(commit.txn, commit.db, key) is not None:
        for version in after:
            if not version.fields:
                commit.txn.put(undo_key(key, version.lsn), _stored(key, id, version), db=undo)


def _stored(key: bytes, id: bytes, version: _Version) -> bytes:
    if not version.fields:
        return keys.tombstone(key, version.lsn, id)
    return keys.record_value(key, version.lsn, id, version.fields, keys.body_checksum(id, version.fields))


def _changes_since(commit: Commit, branch: BranchRow, at_lsn: int) -> dict[tuple[str, bytes, int], list[_Version]]:
    """The versions of each record since the newest known state, in order. Raises InvalidConfig."""
    oldest = commit.head(branch.number)[1]
    begin = _beginning(branch, at_lsn)
    known = max((lsn for lsn, _ in forks_of(commit.txn, commit.db, branch.number) if lsn <= at_lsn), default=begin)
    if known < 0:
        why = "it was rebased since, or an older version made it, and no fork of it is as old"
        raise _refused(branch, at_lsn, why, "make a fork before a rebase, or leave at_lsn out")
    if oldest > known + 1:
        of = f"its fork at LSN {known}" if known != begin else "its beginning"
        why = f"the changes since {of} are not all there: the journal begins at LSN {oldest}"
        raise _refused(branch, at_lsn, why, "make a fork, or hold the journal, before it is needed")
    found: dict[tuple[str, bytes, int], list[_Version]] = {}
    count = size = 0
    for last, value in chunks(commit.txn, commit.catalog, branch.number, known):
        entries, batch_lsn = entries_of(last, value)
        if entries[0].lsn <= at_lsn < batch_lsn:
            why = f"that is inside a batch of changes, which ends at LSN {batch_lsn}"
            raise _refused(branch, at_lsn, why, "take the LSN of a receipt")
        count, size = count + len(entries), size + len(value)
        if count > CHANGES_MAX or size > BYTES_MAX:
            why = f"more than {CHANGES_MAX} changes, or {BYTES_MAX >> 20} MiB, came since LSN {known}"
            raise _refused(branch, at_lsn, why, "fork sooner, or leave at_lsn out")
        for entry, fragment in zip(entries, fragments_of(value), strict=True):
            fields = b"" if entry.fields is None else bytes(fragment[3])
            key = (entry.resource_type, entry.id.encode(), entry.key_hash)
            found.setdefault(key, []).append(_Version(entry.lsn, fields))
    return found


def _beginning(branch: BranchRow, at_lsn: int) -> int:
    """The LSN of the first known state of a branch; -1 if it is not known any more. Raises InvalidConfig."""
    if not branch.parent:
        return 0
    if branch.follows:
        why = "it follows its parent, which keeps no old images for it"
        raise _refused(branch, at_lsn, why, "leave at_lsn out, or fork the parent")
    if at_lsn < branch.born_lsn:
        why = f"it begins at LSN {branch.born_lsn}"
        raise _refused(branch, at_lsn, why, "fork its parent")
    return branch.born_lsn if branch.born_lsn == branch.fork_lsn else -1


def _refused(branch: BranchRow, at_lsn: int, why: str, hint: str) -> InvalidConfig:
    text = f"branch {branch.name!r} cannot be forked as of LSN {at_lsn}: {why}"
    return InvalidConfig(text, operation="fork_branch", object=branch.name, hint=hint)
