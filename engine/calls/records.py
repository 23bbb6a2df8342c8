"""Branches, records and changes: the calls that write and read them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import Write
from shadowswitch.engine.calls.changes import Following
from shadowswitch.engine.encode import lock_tokens, prepare
from shadowswitch.engine.lifecycle import check_seconds, check_whole
from shadowswitch.engine.views import branch_info
from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.names import check_branch, check_id, check_resource_type
from shadowswitch.model.records import Delete, Put, Receipt, Record, RecordPage
from shadowswitch.model.views import (
    BranchInfo,
)
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.journal import get_record, read_records

SCAN_SLICE = 500


class Records(Following):
    """Writing and reading of records. Any thread."""

    def create_branch(self, name: str) -> BranchInfo:
        """Make a branch. Raises InvalidName when the name cannot be used or is taken."""
        check_branch(name)
        house = self._alive()
        row = house.transact(lambda commit: commit.create_branch(name, time.time()), "create branch")
        return branch_info(house, row)

    def branch(self, name: str) -> BranchInfo:
        """A branch. Raises UnknownBranch."""
        return branch_info(self._alive(), self._branch_row(name))

    def branches(self) -> list[BranchInfo]:
        """All branches, in the order of their creation."""
        house = self._alive()
        return [branch_info(house, row) for row in house.catalog.branches()]

    def write(
        self,
        branch: str,
        changes: Sequence[Put | Delete],
        owner: str = "",
        timeout_s: float = 10,
        tokens: Iterable[int] = (),
    ) -> Receipt:
        """Commit one atomic, durable batch; returns after it is on disk.

        `tokens` are those of locks that `owner` holds; only with them a write goes through under its own lock.
        Raises UnknownBranch, InvalidChange, InvalidName (nothing was written), WriteBlocked, LockLost, StorageFull,
        and Timeout, which says whether the batch may still be written.
        """
        house = self._alive()
        row = self._branch_row(branch)
        batch = prepare(changes, house.config)
        deadline = time.monotonic() + check_seconds("timeout_s", timeout_s)
        begun = time.perf_counter()
        self._room.take(row.number, len(batch), house.config.queue_changes_max, deadline)
        try:
            reply: Reply[Receipt] = Reply()
            self._branches.tell(row, Write(batch, owner, reply, tokens=lock_tokens(tokens)))
            receipt: Receipt = result_of(reply, max(0.0, deadline - time.monotonic()), "the write")
        finally:
            self._room.give(row.number, len(batch))
        delay_s = house.running_builds.delays.get(row.number)
        if delay_s:  # a build cannot keep up: every writer gives way a little, bounded by Config.write_delay_max_ms
            time.sleep(delay_s)
            house.metrics.count("writes_slowed")
        house.metrics.observe("write", (time.perf_counter() - begun) * 1000)
        return receipt

    def get(self, branch: str, resource_type: str, id: str) -> Record | None:
        """One record as of now, or None."""
        house = self._alive()
        row = self._branch_row(branch)
        check_resource_type(resource_type)
        return get_record(house.catalog, row.number, self._types(), resource_type, check_id(id))

    def _types(self) -> dict[str, int]:
        return {name: number for number, name in self._house.catalog.types().items()}

    def scan(self, branch: str, resource_type: str | None = None) -> Iterator[Record]:
        """All records, read in slices; the order is the storage's. A record written meanwhile may or may not appear."""
        house = self._alive()
        row = self._branch_row(branch)
        if resource_type is not None:
            check_resource_type(resource_type)
        types = {number: name for name, number in self._types().items() if resource_type in (None, name)}
        return self._scan(house, row.number, types)

    def _scan(self, house: House, branch: int, types: dict[int, str]) -> Iterator[Record]:
        for number, name in sorted(types.items()):
            cursor, done = b"", False
            while not done:
                self._alive()
                piece = read_records(house.catalog, branch, number, name, range(BUCKETS), cursor, SCAN_SLICE)
                cursor, done = piece.cursor, piece.done
                for item in piece.items:
                    yield Record(item.resource_type, item.id, item.fields or {}, item.lsn)

    def scan_page(self, branch: str, resource_type: str, cursor: str | None = None, limit: int = 500) -> RecordPage:
        """The next records of a type after a cursor, for those who cannot hold an iterator. Raises InvalidConfig.

        Each page is of one moment, the whole scan is not: a record written meanwhile may or may not appear.
        """
        house = self._alive()
        row = self._branch_row(branch)
        check_whole("limit", limit, 1)
        number = self._types().get(check_resource_type(resource_type))
        if number is None:
            return RecordPage([], None)
        piece = read_records(
            house.catalog,
            row.number,
            number,
            resource_type,
            range(BUCKETS),
            _position(cursor, row.number, number),
            limit,
        )
        records = [Record(item.resource_type, item.id, item.fields or {}, item.lsn) for item in piece.items]
        return RecordPage(records, None if piece.done else piece.cursor.hex())

    def count(self, branch: str, resource_type: str | None = None) -> int:
        """How many records a branch has, of one type or of all; O(1)."""
        house = self._alive()
        digests = house.catalog.digests(self._branch_row(branch).number)
        if resource_type is None:
            return sum(digest.count for digest in digests.values())
        digest = digests.get(self._types().get(check_resource_type(resource_type), 0))
        return digest.count if digest is not None else 0

    def head(self, branch: str) -> int:
        """The LSN of the last change of a branch; 0 before the first."""
        house = self._alive()
        return house.catalog.head(self._branch_row(branch).number)[0]


def _position(cursor: str | None, branch: int, resource_type: int) -> bytes:
    """Where a page begins. Raises InvalidConfig for a cursor that is not of a scan of this type of this branch."""
    if cursor is None:
        return b""
    try:
        position = bytes.fromhex(cursor)
    except (TypeError, ValueError):
        position = b""
    first = keys.RECORD_PREFIX.pack(branch, resource_type, 0)
    last = keys.RECORD_PREFIX.pack(branch, resource_type, BUCKETS - 1) + b"\xff" * 500
    if not first < position <= last:
        raise InvalidConfig("the cursor is not of a scan of these records", hint="begin again without a cursor")
    return position
