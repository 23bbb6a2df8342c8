"""`check --repair`: derives again what the catalog holds twice. It works beside a running host.

Every step is a short transaction of the JournalWriter, with its event and its audit entry; between them the repair
reads in slices. A repair that was killed is repeated from its beginning. The order: numbers and names, so that
everything else is found; journal and records, from each other and from generations; digests, from the records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.errors import UnknownBranch
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.repair.catalog import catalog_faults, start_faults
from shadowswitch.storage.repair.digests import measure_gaps
from shadowswitch.storage.repair.faults import Fault, Readable, Transact
from shadowswitch.storage.repair.journal import JournalRepair
from shadowswitch.storage.repair.records import RecordRepair


class Repair:
    """One repair of a data directory; one at a time. `run` is its whole life."""

    def __init__(self, catalog: Catalog, root: Path, transact: Transact, by: str, reason: str) -> None:
        self._catalog, self._root, self._transact = catalog, root, transact
        self._by, self._reason = by, reason

    def run(self, readable: Readable) -> list[Finding]:
        """Repair what can be derived: a finding for each repair, with its source. What cannot is left as it is.

        A generation that is not `readable` is no source. Raises what `readable` raises.
        """
        repaired = self._mend_as_of_now(catalog_faults)
        types = self._catalog.types()
        for branch in self._catalog.branches():
            journal = JournalRepair(self._catalog, branch)
            journal.find()
            records = RecordRepair(self._catalog, self._root, branch, self._transact, journal, readable)
            records.find(types)
            repaired += self._mend(journal.faults())
            repaired += self._mend(records.faults())
            if records.upgraded:
                self._transact(partial(self._note, where=branch.name, what={"records": records.upgraded}), "repair")
        return repaired + self._digests(types)

    def run_at_start(self, token: int) -> list[Finding]:
        """Repair the numbers with which no write may begin. `token` is the highest one of a shadow."""
        return self._mend_as_of_now(partial(start_faults, token=token))

    def _mend_as_of_now(self, find: Callable[[Catalog, Any], Iterator[Fault]]) -> list[Finding]:
        """In one transaction, for the numbers rise meanwhile; in none if there is nothing to do."""
        with self._catalog.read() as txn:
            if next(find(self._catalog, txn), None) is None:
                return []

        def work(commit: Commit) -> list[Finding]:
            return [self._mended(commit, fault) for fault in list(find(self._catalog, commit.txn))]

        found: list[Finding] = self._transact(work, "repair")
        return found

    def _digests(self, types: dict[int, str]) -> list[Finding]:
        self._transact(Commit.forget_digests, "repair")
        repaired: list[Finding] = []
        for branch in self._catalog.branches():
            gaps, _ = measure_gaps(self._catalog, branch.number, types, range(BUCKETS))
            with contextlib.suppress(UnknownBranch):  # dropped meanwhile
                repaired += self._mend(_digest_faults(branch, types, gaps))
        return repaired

    def _mend(self, faults: Iterable[Fault]) -> list[Finding]:
        return [self._transact(partial(self._mended, fault=fault), "repair") for fault in faults]

    def _mended(self, commit: Commit, fault: Fault) -> Finding:
        fault.mend(commit)
        found = fault.finding
        what = {"invariant": found.invariant, "problem": found.problem, "source": fault.source}
        self._note(commit, found.where, what)
        return Finding(found.invariant, found.where, found.problem, fault.source)

    def _note(self, commit: Commit, where: str, what: Mapping[str, object]) -> None:
        commit.emit("catalog.repaired", where, {**what})
        commit.audit("catalog.repaired", where, {**what, "by": self._by, "reason": self._reason})


def _digest_faults(branch: BranchRow, types: dict[int, str], gaps: dict[int, Digest]) -> Iterator[Fault]:
    for number, gap in gaps.items():
        buckets = gap.differing(Digest())
        if buckets:
            problem = f"the digest of buckets {buckets} is not that of their records"
            mend = partial(_merge, branch=branch.number, type_number=number, gap=gap)
            where = f"branch {branch.name!r}, type {types[number]!r}"
            yield Fault(Finding("ST-3", where, problem), "the records", mend)


def _merge(commit: Commit, branch: int, type_number: int, gap: Digest) -> None:
    """Raises UnknownBranch for a branch that was dropped: its rows go in slices, so its gap means nothing."""
    commit.branch(branch)
    commit.correct_digest(branch, type_number, gap)
