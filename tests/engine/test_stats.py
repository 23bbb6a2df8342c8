"""Figures of `stats()`: JSON-like, with counters of the work done; an idle engine holds nothing."""

from __future__ import annotations

import json

import pytest

from shadowswitch import Engine
from shadowswitch.model.metrics import Histogram
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, wait_until


def test_stats_are_json_and_count_the_work_done(filled: Engine) -> None:
    live(filled)
    live(filled)
    filled.rollback("main", KIND)
    found(filled, "hello")
    wait_until(lambda: filled.stats()["builds_running"] == 0)  # a builder counts its build just before it ends
    stats = json.loads(json.dumps(filled.stats()))
    counters = stats["counters"]
    assert (counters["changes"], counters["builds"], counters["switches"], counters["rollbacks"]) == (3000, 2, 2, 1)
    assert stats["latencies"]["write"]["count"] == 6
    assert stats["latencies"]["sealed"]["count"] == 3
    steps = [stats["latencies"][f"switch_{step}"] for step in ("proof", "commit", "drain")]
    assert [step["count"] for step in steps] == [3, 3, 3]
    assert stats["latencies"]["commit"]["count"] == counters["commits"]
    assert stats["catalog"]["entries"]["records"] == 3000
    assert stats["catalog"]["map_used_bytes"] > 100_000


def test_an_engine_at_rest_holds_nothing(filled: Engine) -> None:
    live(filled)
    wait_until(lambda: filled.stats()["builds_running"] == 0)
    stats = filled.stats()
    assert (stats["pins"], stats["worker_pids"], stats["queued_changes"], stats["crashes"]) == (0, [], 0, [])
    assert stats["generations_open"] == 1
    with filled.reader("main", KIND):
        assert filled.stats()["pins"] == 1
        assert filled.index("main", KIND).pins == 1


def test_stats_name_the_generation_that_holds_the_journal(filled: Engine) -> None:
    filled.create_branch("other")
    number = live(filled)
    fill(filled, 100)
    main, other = filled.stats()["journal"]
    assert (main["branch"], main["head_lsn"], main["oldest_lsn"]) == ("main", 3100, 1)
    assert [holder["generation"] for holder in main["held_by"]] == [number]
    assert main["held_by"][0]["durable_lsn"] >= 3000
    assert (other["branch"], other["held_by"]) == ("other", [])


def test_deaths_of_workers_and_repairs_are_counted(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=kill")
    shadow = filled.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    filled.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    assert filled.stats()["counters"]["worker_deaths"] == 4
    wait_until(lambda: filled.stats()["counters"].get("builds_failed") == 1)


def test_a_histogram_gives_quantiles_within_its_buckets_and_the_exact_maximum() -> None:
    histogram = Histogram()
    assert histogram.summary() == {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    for value in range(1, 1001):
        histogram.record(value / 10)
    assert (histogram.count, histogram.max_ms) == (1000, 100.0)
    assert 50.0 <= histogram.quantile_ms(0.5) <= 75.0
    assert 99.0 <= histogram.quantile_ms(0.99) <= 100.0
    histogram.record(1e9)
    assert histogram.quantile_ms(1.0) == 1e9
