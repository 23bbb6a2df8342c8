"""The integrity check of a `kv` shard: its pages, its rows, and what counts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends.kv import store as kv_store
from shadowswitch.storage.reading import Count

FINDINGS_MAX = 20
COUNTED = 1000
"""Rows between two signs that a check goes on."""


def looked_at(path: Path, options: Mapping[str, Any], look: Callable[[kv_store.Environment], list[str]]) -> list[str]:
    """What `look` finds in a shard; what keeps it from being opened or read is a finding."""
    try:
        environment = kv_store.open_environment(path, options)
    except CorruptData as error:
        return [error.message]
    try:
        with kv_store.translated("check", path):
            return look(environment)
    except CorruptData as error:
        return [error.message]
    finally:
        kv_store.release(environment)


def walk_pages(environment: kv_store.Environment) -> list[str]:
    """LMDB copies the shard into nothing. That visits every page in use, the list of free pages too, and most damage
    that would end a cursor with SIGABRT is an error there."""
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with environment.map.used():
            environment.env.copyfd(nothing, compact=True)
    finally:
        os.close(nothing)
    return []


def check_rows(environment: kv_store.Environment, looked: Count) -> list[str]:
    """Findings: every row decodes, lies under its own key, and is counted. Reads one transaction."""
    findings: list[str] = []
    digest = Digest()
    with environment.map.transaction() as transaction:
        stored = kv_store.state_of(environment.read_meta(transaction)).digest
        rows = 0
        for key, value in transaction.cursor(db=environment.rows):
            rows += 1
            if rows % COUNTED == 0:
                looked(COUNTED)
            try:
                resource_type, id, lsn, _ = kv_store.decode_row(key, value)
            except (CorruptData, msgspec.DecodeError) as error:
                findings.append(f"rows: {error}")
            else:
                if kv_store.stored_key(kv_store.full_key(resource_type, id)) != key:
                    findings.append(f"rows: {resource_type}/{id} is stored under another key")
                if lsn < 1:
                    findings.append(f"rows: {resource_type}/{id} has the LSN {lsn}")
                digest.add(key_hash(resource_type, id), lsn)
            if len(findings) >= FINDINGS_MAX:
                return findings
        if rows != transaction.stat(environment.rows)["entries"]:
            findings.append("rows: their number is not that of the database")
    differing = stored.differing(digest)
    if differing:
        findings.append(f"digest: the rows of buckets {differing} do not match the counters")
    return findings
