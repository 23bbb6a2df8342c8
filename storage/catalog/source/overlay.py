"""Writing to a fork, and to a branch that has forks, or old images that are still to be removed (see `versions`).

Such a branch is written to in this way until its last old image is gone: the plain way would leave an old image of a
record that is deleted now, and a fork that is made later would show it again. Invariants: BR-1, BR-2, BR-3.
"""

from __future__ import annotations

from typing import Any

from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.journal_format import Batch, Prepared
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.source.followed import Writer, Written, pass_on, put_base
from shadowswitch.storage.catalog.source.fork_table import Lineage
from shadowswitch.storage.catalog.source.versions import old_image, shown, stored_version, undo_key


def write_overlaid(commit: Writer, branch: int, batch: Batch, lineage: Lineage) -> int:
    """Store the records of a batch behind the last LSN; returns how many records the branch shows then."""
    lsn, present = commit.last_lsn, commit.count(branch)
    put = _put_in_fork if lineage.ancestors else _put_in_root
    written: list[Written] = []
    for change in batch.changes:
        lsn += 1
        number = commit.type_number(change.resource_type)
        key = keys.record_key(branch, number, change.key_hash >> 58, change.id)
        before = put(commit, branch, lineage, key, lsn, change)
        written.append(Written(change, lsn, before, number))
        present += written[-1].note(commit.changed_digest(branch, number))
    pass_on(commit, lineage.followers, written, batch.chunks)
    return present


def _put_in_fork(commit: Writer, branch: int, lineage: Lineage, key: bytes, lsn: int, change: Prepared) -> int:
    """Returns the LSN of the version that the branch showed; 0 for none."""
    place = key[BRANCH.size :]
    found = stored_version(commit.txn, commit.db, branch, lineage, place)
    is_own, record = found is not None and found[0] == key, shown(found)
    if record is None and not is_own and not change.fields:
        return 0
    if found is not None and is_own:
        _save(commit, lineage, key, found[1])
    elif lineage.follows:
        put_base(commit, key, found)
    before = keys.claimed_lsn(record[1]) if record is not None else 0
    if change.fields:
        value = keys.record_value(key, lsn, change.id, change.fields, change.checksum)
    else:
        value = keys.tombstone(key, lsn, change.id)
    commit.txn.put(key, value, db=commit.db["records"])
    return before


def _put_in_root(commit: Writer, branch: int, lineage: Lineage, key: bytes, lsn: int, change: Prepared) -> int:
    """As `_put_in_fork`, for a branch without a parent."""
    own = commit.txn.get(key, db=commit.db["records"])
    before = keys.claimed_lsn(own) if own is not None else 0
    if own is not None:
        _save(commit, lineage, key, own)
    if change.fields:
        value = keys.record_value(key, lsn, change.id, change.fields, change.checksum)
        commit.txn.put(key, value, db=commit.db["records"])
    elif own is not None:
        commit.txn.delete(key, db=commit.db["records"])
        if old_image(commit.txn, commit.db, key) is not None:
            commit.txn.put(undo_key(key, lsn), keys.tombstone(key, lsn, change.id), db=commit.db["undo"])
    return before


def _save(commit: Writer, lineage: Lineage, key: bytes, value: Any) -> None:
    """Keep what stands there now, if a fork shows it."""
    if keys.claimed_lsn(value) <= lineage.newest_fork:
        commit.txn.put(undo_key(key, keys.claimed_lsn(value)), value, db=commit.db["undo"])
