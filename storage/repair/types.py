"""The names of resource types, derived again (ST-4).

The key of a record has the number of its type. The digest of the type has sums of `version_hash` over keys, and keys
have the name. So a name is proven by one bucket whose sum it gives. The names to try are those of shadows, generations
and journal entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import islice

import lmdb

from shadowswitch.model.digest import BUCKETS, Digest, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import entries_of
from shadowswitch.storage.catalog.source.type_table import rows_from
from shadowswitch.storage.catalog.source.versions import shown_records
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.repair.digests import stored_digest
from shadowswitch.storage.repair.faults import Fault

CHUNKS_READ = 2_000
"""Of the journal, in search of names."""


def type_faults(catalog: Catalog, txn: lmdb.Transaction) -> Iterator[Fault]:
    """Every type whose name does not give the digest of its records, while another name does."""
    names = dict(rows_from(txn, catalog.db["types"], 0))
    candidates: set[str] | None = None
    for branch, number in _first_of_each(catalog, txn):
        if _gives_digest(catalog, txn, branch, number, names.get(number, "")):
            continue
        if candidates is None:
            candidates = _candidates(catalog, txn) - set(names.values())
        found = [name for name in sorted(candidates) if _gives_digest(catalog, txn, branch, number, name)]
        if len(found) == 1:
            there = f"its name is {names[number]!r}" if number in names else "it has no name"
            problem = f"{there}, and its records are of type {found[0]!r}"
            step = partial(_name, number=number, name=found[0])
            yield Fault(Finding("ST-4", f"resource type {number}", problem), "the digest of its records", step)


def _first_of_each(catalog: Catalog, txn: lmdb.Transaction) -> list[tuple[int, int]]:
    """For each type the first branch that has records of it."""
    found: dict[int, int] = {}
    for key, _ in txn.cursor(catalog.db["heads"]):
        if len(key) == keys.TYPE_PREFIX.size:
            branch, number = keys.TYPE_PREFIX.unpack(key)
            if number not in found and stored_digest(catalog, txn, branch, number).count:
                found[number] = branch
    return [(branch, number) for number, branch in sorted(found.items())]


def _gives_digest(catalog: Catalog, txn: lmdb.Transaction, branch: int, number: int, name: str) -> bool:
    """Does one bucket of the type, under this name, have the sum that its digest has?"""
    kept = stored_digest(catalog, txn, branch, number)
    bucket = min((b for b in range(BUCKETS) if kept.counts[b]), key=lambda b: kept.counts[b])
    counted = Digest()
    for key, value in shown_records(catalog, txn, branch, number, bucket):
        counted.add(key_hash(name, keys.claimed_id(key, value)), keys.claimed_lsn(value))
    return not kept.differing(counted, [bucket])


def _candidates(catalog: Catalog, txn: lmdb.Transaction) -> set[str]:
    names: set[str] = set()
    for database, decode in (("shadows", catalog.lists.shadow), ("generations", catalog.lists.generation)):
        for _, value in txn.cursor(catalog.db[database]):
            with contextlib.suppress(ValueError, CorruptData):
                names.update(decode(value, txn).resource_types)
    for key, value in islice(txn.cursor(catalog.db["journal"]), CHUNKS_READ):
        last = keys.JOURNAL_KEY.unpack(key)[1]
        with contextlib.suppress(CorruptData):
            names.update(entry.resource_type for entry in entries_of(last, memoryview(value))[0])
    return names


def _name(commit: Commit, number: int, name: str) -> None:
    commit.put_type(number, name)
    commit.counters.types = {known: at for known, at in commit.counters.types.items() if at != number} | {name: number}
