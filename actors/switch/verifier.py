"""Verification of the generation that has just become live: through the same path as every reader."""

from __future__ import annotations

import random

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog.journal import get_record, read_records
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.generation import Generation, touch

SAMPLES = 16


def verify(context: EngineContext, index: LiveIndex, generation: Generation, commit_lsn: int) -> list[str]:
    """Pin the live generation and read from it. Returns what is wrong, nothing when it is sound."""
    failpoint("switch.verify")
    row = generation.row
    live = index.live
    if live is not generation or not live.pin():
        return [f"readers do not get generation {row.number}"]
    try:
        reader = live.take_reader()
        try:
            if row.opaque:  # that it can be opened at all is everything that can be seen of it
                return []
            return _read(context, generation, reader, commit_lsn)
        finally:
            live.give_reader(reader)
    finally:
        live.unpin()


def _read(context: EngineContext, generation: Generation, reader: IndexReader, commit_lsn: int) -> list[str]:
    problems = []
    applied = reader.applied_lsn()
    if applied < commit_lsn:
        problems.append(f"readers see LSN {applied}, the index was switched at {commit_lsn} (SW-2)")
    touch(reader)
    chance = random.Random()
    types = sorted(generation.writer.types.items())
    for _ in range(SAMPLES):
        number, name = chance.choice(types)
        bucket = chance.randrange(BUCKETS)
        piece = read_records(context.catalog, generation.row.branch, number, name, range(bucket, bucket + 1), b"", 1)
        for item in piece.items:
            held = reader.get(item.resource_type, item.id)
            missed = item.lsn <= commit_lsn and (held is None or held.lsn < item.lsn)
            if missed and _is_still(context, generation, item):
                problems.append(f"{item.resource_type} {item.id!r} of LSN {item.lsn} cannot be read (IX-3)")
    return problems


def _is_still(context: EngineContext, generation: Generation, item: Item) -> bool:
    """Has the source that version? Between the two looks a writer may have deleted it, and the index followed."""
    found = get_record(context.catalog, generation.row.branch, item.resource_type, item.id.encode())
    return found is not None and found.lsn == item.lsn
