"""The rows of the catalog's database `locks`: one for each branch that ever had a lock or left the state ACTIVE.

    branch number -> LocksRow     [1, 7, 12, {"branch": "main", "next_token": 9, "locks": [...], ...}, {...}]

A row holds the whole lock table and the status of its branch. The transaction that replaces a row also adds the events
of the step (ST-4). `revision` grows by one with each row. After a commit of unknown outcome, the revision in the
catalog shows the BranchActor whether its transaction committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shadowswitch.model.events import ENGINE
from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.checks import lost
from shadowswitch.model.locks.records import DURABLE, Lock, LockEvent, LockTableState
from shadowswitch.model.locks.targets import overlaps
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit


class LocksRow(msgspec.Struct, array_like=True, frozen=True):
    """The lock table and the status of one branch."""

    v: int
    branch: int
    revision: int
    table: LockTableState
    status: BranchStatus


LOCK_TOKENS = "lock_tokens"
"""The number of `meta` behind which the tokens of a branch without a row begin; 0 unless a restore made the catalog."""

decode_locks = msgspec.msgpack.Decoder(LocksRow).decode


def all_locks(catalog: Catalog) -> list[LocksRow]:
    """Every row, by branch number."""
    with catalog.read() as txn:
        return [decode_locks(value) for _, value in txn.cursor(catalog.db["locks"])]


def find_locks(catalog: Catalog, branch: int) -> LocksRow | None:
    """The row of a branch, or None while it never had a lock."""
    with catalog.read() as txn:
        value = txn.get(BRANCH.pack(branch), db=catalog.db["locks"])
        return decode_locks(value) if value is not None else None


def save_locks(
    commit: Commit,
    row: LocksRow,
    events: Iterable[LockEvent],
    audit: tuple[str, dict[str, Any]] | None,
) -> None:
    """Store a row, the events of the step that made it and, if given, an entry of the audit history.

    Raises UnknownBranch for a branch that was dropped.
    """
    branch = commit.branch(row.branch)
    stored = commit.txn.get(BRANCH.pack(row.branch), db=commit.db["locks"])
    before = decode_locks(stored) if stored is not None else None
    assert row.revision == (before.revision if before is not None else 0) + 1, (
        f"LK-2 the locks of branch {row.branch} have the revision {before and before.revision}, not {row.revision - 1}"
    )
    state = before.status.state if before is not None else branch.state
    commit.txn.put(BRANCH.pack(row.branch), rows.encode_row(row), db=commit.db["locks"])
    for event in events:
        lock = event.lock
        if lock is None or lock.shared or event.kind not in DURABLE:  # a write lease ends within seconds: no event
            continue
        commit.emit(str(event.kind), lock.lock_id, _event_data(branch, lock, event))
    if row.status.state != state:
        status = row.status
        commit.put_branch(msgspec.structs.replace(branch, state=str(status.state)))
        what = {"branch_name": branch.name, "state": str(status.state), "previous": state}
        what |= {"by": status.by or ENGINE, "reason": status.reason or "its locks changed"}
        commit.emit("branch.state", branch.name, what)
        audit = audit or ("branch.state", what)
    if audit is not None:
        commit.audit(audit[0], branch.name, audit[1])


def begin_tokens_behind(commit: Commit, gap: int) -> None:
    """The next token of every branch, also of one that never had a lock, is higher by `gap` than any so far (LK-2)."""
    stored = [decode_locks(value) for _, value in commit.txn.cursor(commit.db["locks"])]
    given = max((row.table.next_token for row in stored), default=1) - 1
    behind = max(given, commit.catalog.number(LOCK_TOKENS, commit.txn)) + gap
    commit.put_number(LOCK_TOKENS, behind)
    for row in stored:
        table = msgspec.structs.replace(row.table, next_token=behind + 1)
        row = msgspec.structs.replace(row, table=table, revision=row.revision + 1)
        commit.txn.put(BRANCH.pack(row.branch), rows.encode_row(row), db=commit.db["locks"])


def check_fence(commit: Commit, branch: int, owner: str, tokens: Iterable[int]) -> None:
    """In the transaction of a write under locks: raise LockLost unless each token is still that of a stored lock.

    A later holder got its lock in an earlier transaction, which ended the locks of these tokens. So a write that was
    admitted and then delayed, for however long, never commits after the writes of the next holder (LK-3).
    """
    stored = commit.txn.get(BRANCH.pack(branch), db=commit.db["locks"])
    table = decode_locks(stored).table if stored is not None else None
    held = {lock.token: lock for lock in table.locks if lock.owner == owner} if table is not None else {}
    for token in tokens:
        if token not in held:
            endings = table.endings if table is not None else ()
            raise lost("", token, None, endings, table.saved_at if table is not None else 0.0)


def _event_data(branch: BranchRow, lock: Lock, event: LockEvent) -> dict[str, Any]:
    """The data of a lock event. Every subscriber reads it, so the holder's fencing token is left out."""
    return {
        "branch_name": branch.name,
        "lock_id": lock.lock_id,
        "owner": lock.owner,
        "lock_type": str(lock.lock_type),
        "scope": str(lock.scope),
        "resource_type": lock.resource_type,
        "resource_id": lock.resource_id,
        "by": event.by,
        "reason": event.reason,
    }


def check_locks(catalog: Catalog) -> Iterator[Finding]:
    """fsck: rows decode and belong to a branch (ST-4), no two owners exclude each other (LK-1), tokens rise (LK-2).

    The check needs no clock: the transaction that grants a lock in place of an expired one removes the expired one.
    """
    with catalog.read() as txn:
        branches = {row.number: row for row in _branches(catalog, txn)}
        found = [(bytes(key), bytes(value)) for key, value in txn.cursor(catalog.db["locks"])]
    for key, value in found:
        where = f"locks of branch {int.from_bytes(key, 'big')}"
        try:
            row = decode_locks(value)
        except (msgspec.MsgspecError, ValueError) as error:
            yield Finding("ST-4", where, f"the row does not decode: {error}")
            continue
        branch = branches.get(row.branch)
        if branch is None or BRANCH.pack(row.branch) != key:
            yield Finding("ST-4", where, f"the row names branch {row.branch}, which is unknown or another branch")
        yield from _check_table(row.table, where)


def _branches(catalog: Catalog, txn: Any) -> Iterator[BranchRow]:
    for _, value in txn.cursor(catalog.db["branches"]):
        yield rows.decode_branch(value)


def _check_table(table: LockTableState, where: str) -> Iterator[Finding]:
    locks = table.locks
    for number, one in enumerate(locks):
        for other in locks[number + 1 :]:
            apart = one.owner == other.owner or (one.shared and other.shared) or not overlaps(one.target, other.target)
            if not apart:
                held = f"{one.owner} holds {one.target} and {other.owner} {other.target}"
                yield Finding("LK-1", where, f"two exclusive locks overlap: {held}")
    tokens = [lock.token for lock in locks]
    if len(set(tokens)) < len(tokens) or any(token >= table.next_token for token in tokens):
        yield Finding("LK-2", where, f"tokens {tokens} are not all different and below the next, {table.next_token}")
