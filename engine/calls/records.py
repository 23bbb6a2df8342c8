"""Records: the calls that write and read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from shadowswitch.actors.branch.locks import Write
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.engine.admission import AdmissionQueue
from shadowswitch.engine.arguments import check_seconds, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.encode import lock_tokens, prepare
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.names import check_id, check_resource_type
from shadowswitch.model.records import Delete, Put, Receipt, Record, RecordPage
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.journal import get_record, read_records, types_with_records
from shadowswitch.storage.catalog.journal_format import Batch
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit

SCAN_SLICE = 500


class RecordCalls:
    """Writing and reading of records. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        router: BranchRouter,
        admission: AdmissionQueue,
        running_builds: RunningBuilds,
    ) -> None:
        self._config = context.config
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._clock = context.clock
        self._state = state
        self._branches = branches
        self._router = router
        self._admission = admission
        self._running_builds = running_builds

    def write(
        self,
        branch: str,
        changes: Sequence[Put | Delete],
        owner: str = "",
        timeout_s: float = 10,
        tokens: Iterable[int] = (),
    ) -> Receipt:
        """Commit one atomic, durable batch; returns after it is on disk.

        `tokens` are the tokens of locks that `owner` holds. A write under a lock needs the token of that lock.
        Raises UnknownBranch, InvalidChange, InvalidName (nothing was written), WriteBlocked, LockLost, StorageFull,
        and Timeout, which says whether the batch may still be written.
        """
        return self.write_if(self._branches.row(branch), prepare(changes, self._config), owner, timeout_s, tokens)

    def write_if(
        self,
        row: BranchRow,
        batch: Batch,
        owner: str = "",
        timeout_s: float = 10,
        tokens: Iterable[int] = (),
        check: Callable[[Commit], object] | None = None,
    ) -> Receipt:
        """As `write`, unless `check` raises in the transaction of the batch; then nothing was written."""
        begun = self._clock.monotonic()
        deadline = begun + check_seconds("timeout_s", timeout_s)
        self._admission.take(row.number, len(batch), self._config.queue_changes_max, deadline)
        try:
            reply: Reply[Receipt] = Reply()
            self._router.tell(row, Write(batch, owner, reply, lock_tokens(tokens), check))
            receipt: Receipt = result_of(reply, max(0.0, deadline - self._clock.monotonic()), "the write")
        finally:
            self._admission.give(row.number, len(batch))
        delay_s = self._running_builds.delays.get(row.number)
        if delay_s:  # a build cannot keep up: each write is slowed a little, bounded by Config.write_delay_max_ms
            self._clock.sleep(delay_s)
            self._metrics.count("writes_slowed")
        self._metrics.observe("write", (self._clock.monotonic() - begun) * 1000)
        return receipt

    def get(self, branch: str, resource_type: str, id: str) -> Record | None:
        """One record as of now, or None."""
        row = self._branches.row(branch)
        check_resource_type(resource_type)
        found = get_record(self._catalog, row.number, resource_type, check_id(id))
        if found is None:
            self._branches.check(row)
        return found

    def scan(self, branch: str, resource_type: str | None = None) -> Iterator[Record]:
        """All records, read in slices; the order is the storage's. A record written meanwhile may or may not appear."""
        row = self._branches.row(branch)
        if resource_type is not None:
            check_resource_type(resource_type)
        names = self._catalog.types()
        if resource_type is None:
            return self._scan(row, types_with_records(self._catalog, row.number), names)
        number = self._catalog.type_numbers().get(resource_type)
        return self._scan(row, [] if number is None else [number], names)

    def _scan(self, branch: BranchRow, types: Iterable[int], names: dict[int, str]) -> Iterator[Record]:
        for number in types:
            name = names.get(number)
            if name is None:  # it came since
                continue
            cursor, done = b"", False
            while not done:
                self._state.check()
                found = read_records(self._catalog, branch.number, number, name, range(BUCKETS), cursor, SCAN_SLICE)
                self._branches.check(branch)
                cursor, done = found.cursor, found.done
                for item in found.items:
                    yield Record(item.resource_type, item.id, item.fields or {}, item.lsn)

    def scan_page(self, branch: str, resource_type: str, cursor: str | None = None, limit: int = 500) -> RecordPage:
        """The next records of a type after a cursor, for a caller that cannot hold an iterator. Raises InvalidConfig.

        Each page is of one moment, the whole scan is not: a record written meanwhile may or may not appear.
        """
        row = self._branches.row(branch)
        check_whole("limit", limit, 1)
        number = self._catalog.type_numbers().get(check_resource_type(resource_type))
        if number is None:
            return RecordPage([], None)
        begin = _position(cursor, row.number, number)
        found = read_records(self._catalog, row.number, number, resource_type, range(BUCKETS), begin, limit)
        self._branches.check(row)
        records = [Record(item.resource_type, item.id, item.fields or {}, item.lsn) for item in found.items]
        return RecordPage(records, None if found.done else found.cursor.hex())

    def count(self, branch: str, resource_type: str | None = None) -> int:
        """How many records a branch has, of one type or of all; O(1)."""
        row = self._branches.row(branch)
        if resource_type is None:
            count = self._catalog.record_count(row.number)
        else:
            count = self._catalog.count(row.number, check_resource_type(resource_type))
        self._branches.check(row)
        return count

    def head(self, branch: str) -> int:
        """The LSN of the last change of a branch; 0 before the first."""
        row = self._branches.row(branch)
        head, _ = self._catalog.head(row.number)
        self._branches.check(row)
        return head


def _position(cursor: str | None, branch: int, resource_type: int) -> bytes:
    """The begin of a page. Raises InvalidConfig for a cursor that is not of a scan of this type of this branch."""
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
