"""The scan of a copy: resumed after any slice, it continues in its own range and misses no record."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Engine, Put
from shadowswitch.model.digest import buckets_of_shard
from shadowswitch.storage.catalog.journal import read_records
from tests.support import inside
from tests.support.engine_helpers import wait_until

TYPES = ["link_type", "object_type"]


@pytest.fixture
def crowded(open_engine: Any) -> Engine:
    """Two types on each of two branches: behind the end of every range there are other records."""
    engine: Engine = open_engine(copy_slice_rows=10, copy_flush_rows=10, worker_retries=9)
    for branch in ("main", "other"):
        engine.create_branch(branch)
        for resource_type in TYPES:
            engine.write(branch, [Put(resource_type, str(n), {"text": f"{branch} w{n}"}) for n in range(120)])
    return engine


@pytest.mark.parametrize("shards", [1, 2, 3, 64])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_scan_can_be_resumed_after_every_slice_and_stays_in_its_range(
    crowded: Engine, shards: int, limit: int
) -> None:
    catalog = inside.catalog(crowded)
    numbers = {name: number for number, name in catalog.types().items()}
    seen: list[tuple[str, str]] = []
    for shard in range(shards):
        buckets = buckets_of_shard(shard, shards)
        for name in TYPES:
            cursor, done = b"", False
            while not done:
                piece = read_records(catalog, 1, numbers[name], name, buckets, cursor, limit)
                seen += [(item.resource_type, item.id) for item in piece.items]
                assert piece.cursor >= cursor
                if piece.cursor:
                    branch, number, bucket = piece.cursor[:4], piece.cursor[4:8], piece.cursor[8]
                    assert (branch, number) == ((1).to_bytes(4, "big"), numbers[name].to_bytes(4, "big"))
                    assert bucket in buckets, "the scan would go on in another range"
                again = read_records(catalog, 1, numbers[name], name, buckets, piece.cursor, limit)
                assert not piece.done or again.items == []
                cursor, done = piece.cursor, piece.done
    assert len(seen) == len(set(seen)) == 240


@pytest.mark.parametrize("nth", [1, 2, 5, 6, 7, 8, 9, 12, 13, 14])
def test_a_copy_that_is_interrupted_after_any_slice_needs_no_repair(
    crowded: Engine, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", f"copy.slice=kill@{nth}")
    shadow = crowded.start_build("main", "SEARCH_INDEX", TYPES, {"shards": 2, "parallel_workers": 1})
    wait_until(lambda: crowded.shadow(shadow.shadow_index_id).state in ("BUILT", "FAILED"), 120)
    if nth > 1:
        assert crowded.shadow(shadow.shadow_index_id).record_count == 240
    counters = crowded.stats()["counters"]
    assert counters.get("worker_deaths", 0) >= 1
    assert counters.get("buckets_repaired", 0) == 0, "a repair had to correct the copy"
