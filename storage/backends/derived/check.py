"""The integrity check of entries: each is owned by a row that is there, as it was written."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import lmdb

from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.derived.writer import derived_of
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.check import COUNTED, FINDINGS_MAX
from shadowswitch.storage.reading import Count


def check_entries(environment: store.Environment, looked: Count) -> list[str]:
    """Findings. Reads one transaction, and as much memory as the keys of one row's entries."""
    findings: list[str] = []
    with environment.map.transaction() as transaction:
        database, owned = derived_of(environment)
        count = 0
        for rows, (key, held) in enumerate(transaction.cursor(db=owned), 1):
            if rows % COUNTED == 0:
                looked(COUNTED)
            try:
                places = entries.owned_of(key, held)
            except CorruptData as error:
                findings.append(f"owned: {error.message}")
            else:
                count += len(places)
                if transaction.get(key, db=environment.rows) is None:
                    findings.append(f"owned: {key[:80]!r} has entries, and no row")
                findings += _wrong(transaction, database, key, places)
            if len(findings) >= FINDINGS_MAX:
                return findings
        if count != transaction.stat(database)["entries"]:
            findings.append("entries: their number is not that of the rows' entries")
    return findings


def _wrong(transaction: lmdb.Transaction[bytes], database: Any, key: bytes, places: entries.Owned) -> list[str]:
    for place, checksum in places:
        value = transaction.get(place, db=database)
        if value is None or crc32(value) != checksum:
            what = "is missing" if value is None else "is not as it was written"
            return [f"entries: one of the row {key[:80]!r} {what}"]
    return []
