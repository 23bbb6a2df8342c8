"""Bringing merged records into a branch, in batches.

A batch is one transaction. It is admitted like every write, and in its transaction the versions that were compared are
looked at again: a batch with a record that was written meanwhile is not stored, and its records are compared again. So
a writer of the branch waits for one batch at most, and no write between is overwritten. A merge that a crash cut short
is called again: what it has brought is the same on both sides then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec

from shadowswitch.engine.calls.records import RecordCalls
from shadowswitch.engine.encode import prepare
from shadowswitch.model.config import Config
from shadowswitch.model.errors import NotConverging
from shadowswitch.model.forks.merging import REFUSE, OnConflict, merge, same
from shadowswitch.model.forks.views import Conflict, MergeResult
from shadowswitch.model.records import Delete, Put, Receipt
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.own_changes import Moved, Sides, check_base, check_unmoved
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.forks import move_bases
from shadowswitch.storage.failpoints import failpoint

BATCH = 500
"""A merge of so many records is one transaction."""
PART = 20
"""Records of each transaction of a larger one: a writer of the branch waits for one of them."""
TRIES_MAX = 20
"""Comparisons of one batch, each behind a write of one of its records."""


class Bound(NamedTuple):
    """Under whose name, and how long, batches are written."""

    owner: str
    tokens: tuple[int, ...]
    timeout_s: float


class Bringing:
    """The records of one merge or rebase on their way into a branch. On the caller's thread."""

    def __init__(
        self,
        records: RecordCalls,
        config: Config,
        fork: BranchRow,
        into: BranchRow,
        on_conflict: OnConflict,
        bound: Bound,
    ) -> None:
        """`into` is written to: the parent of `fork` in a merge, the fork itself in a rebase."""
        self._records = records
        self._config = config
        self._fork = fork
        self._into = into
        self._is_rebase = into is fork
        self._on_conflict = on_conflict
        self._bound = bound
        self.applied = self.same = 0
        self.conflicts: list[Conflict] = []
        self.receipt: Receipt | None = None

    def result(self) -> MergeResult:
        """What was brought so far."""
        refused = self.is_refused and self.receipt is None
        return MergeResult(0 if refused else self.applied, self.same, self.conflicts, self.receipt)

    @property
    def is_refused(self) -> bool:
        """Is there a conflict that is not settled?"""
        return self._on_conflict == REFUSE and bool(self.conflicts)

    def count(self, slices: Iterable[list[Sides]]) -> None:
        """Compare only: what would be brought."""
        for sides in slices:
            self.applied += len(self._decide(sides))

    def bring(self, slices: Iterable[list[Sides]], again: Callable[[list[Sides]], list[Sides]]) -> None:
        """Bring every record; `again` reads the sides of some of them anew. Ends early with a conflict to refuse.

        Raises what a write raises; batches before that stay.
        """
        for sides in self._batches(slices):
            self._batch_of(sides, again)
            if self.is_refused:
                return

    def _batches(self, slices: Iterable[list[Sides]]) -> Iterator[list[Sides]]:
        """All records as one batch if they are few, else in parts."""
        whole, part = (min(most, self._config.batch_changes_max) for most in (BATCH, PART))
        gathered: list[Sides] = []
        is_large = False
        for sides in slices:
            gathered += sides
            is_large = is_large or len(gathered) > whole
            while is_large and len(gathered) > part:
                yield gathered[:part]
                del gathered[:part]
        if gathered:
            yield gathered

    def _batch_of(self, sides: list[Sides], again: Callable[[list[Sides]], list[Sides]]) -> None:
        for _ in range(TRIES_MAX):
            kept = (self.same, len(self.conflicts))
            decided = self._decide(sides)
            if self.is_refused:
                return
            try:
                for part in self._parts(decided):
                    self._write(part)
                return
            except Moved:
                self.same = kept[0]
                del self.conflicts[kept[1] :]
                sides = again(sides)
        raise NotConverging(
            f"records of branch {self._into.name!r} are written faster than they can be merged",
            operation="merge",
            object=self._into.name,
            hint="merge again at a quieter time, or under a lock; what was merged so far stays",
        )

    def _write(self, part: list[tuple[Sides, Put | Delete]]) -> None:
        failpoint("merge.batch")
        checks: list[Callable[[Commit], object]] = [partial(check_base, fork=self._fork)]
        ours = [(sides.place, sides.ours.lsn) for sides, _ in part]
        checks.append(partial(check_unmoved, branch=self._fork.number, expected=ours))
        if not self._is_rebase or self._fork.follows:  # else a rebase has the parent as of one LSN
            theirs = [(sides.place, sides.theirs.lsn) for sides, _ in part]
            checks.append(partial(check_unmoved, branch=self._fork.parent, expected=theirs))
        if self._is_rebase and self._fork.follows:
            checks.append(partial(move_bases, fork=self._fork, places=[place for place, _ in ours]))
        self.receipt = self._records.write_if(
            self._into,
            prepare([change for _, change in part], self._config),
            self._bound.owner,
            self._bound.timeout_s,
            self._bound.tokens,
            partial(_check_all, checks),
        )
        self.applied += len(part)
        failpoint("merge.brought")

    def _parts(self, decided: list[tuple[Sides, Put | Delete]]) -> Iterator[list[tuple[Sides, Put | Delete]]]:
        """The same in parts that are no larger than a batch may be."""
        part: list[tuple[Sides, Put | Delete]] = []
        size, most = 0, self._config.batch_size_max_bytes
        for sides, change in decided:
            own = len(msgspec.msgpack.encode(change.fields)) if isinstance(change, Put) else 0
            if part and size + own > most:
                yield part
                part, size = [], 0
            part.append((sides, change))
            size += own
        if part:
            yield part

    def _decide(self, compared: list[Sides]) -> list[tuple[Sides, Put | Delete]]:
        """What must be written to the branch."""
        changes: list[tuple[Sides, Put | Delete]] = []
        for sides in compared:
            key = (sides.resource_type, sides.id)
            base, ours, theirs = sides.base.fields, sides.ours.fields, sides.theirs.fields
            merged = merge(key, base, ours, theirs, self._on_conflict)
            if merged.conflict is not None:
                self.conflicts.append(merged.conflict)
            inherited = self._is_rebase and theirs is not None and sides.ours.lsn == sides.base.lsn
            is_there = same(merged.fields, ours if self._is_rebase else theirs) and not inherited
            if is_there:
                self.same += merged.conflict is None and same(ours, theirs) and not same(ours, base)
            if is_there and not (self._is_rebase and self._fork.follows):  # there the base moves with a write
                continue
            if merged.fields is None:
                changes.append((sides, Delete(*key)))
            else:
                changes.append((sides, Put(*key, merged.fields)))
        return changes


def _check_all(checks: list[Callable[[Commit], object]], commit: Commit) -> None:
    for check in checks:
        check(commit)
